// The API as a page: routes, fields and examples of openapi.json, without third-party code.
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

function typeOf(schema) {
  if (schema.enum) return schema.enum.join(" · ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  const bounds = ["minimum", "maximum", "minItems", "maxItems", "maxLength"].filter((name) => schema[name] !== undefined && schema[name] < 2 ** 53);
  const shown = bounds.map((name) => `${name} ${schema[name]}`).join(", ");
  const kind = schema.type === "array" ? `list of ${typeOf(schema.items ?? {})}` : (schema.type ?? "any");
  return shown ? `${kind} (${shown})` : kind;
}

function fieldRow([name, schema]) {
  const standard = schema.default === undefined || schema.default === null ? "" : JSON.stringify(schema.default);
  return element("tr", {}, ...[name, typeOf(schema), standard, schema.description ?? ""].map((text) => element("td", { textContent: text })));
}

function routeCard(path, method, route) {
  const card = element("article", { className: "card route" }, element("h2", { textContent: `${method} ${path}` }), element("p", { textContent: route.summary ?? "" }));
  const schema = route.requestBody?.content["application/json"].schema;
  if (schema) {
    const head = element("tr", {}, ...["field", "values", "default", "meaning"].map((text) => element("th", { textContent: text })));
    card.append(element("div", { className: "wide" }, element("table", {}, head, ...Object.entries(schema.properties).map(fieldRow))));
    const example = JSON.stringify(schema.examples[0]);
    const token = route.security ? " -H 'Authorization: Bearer TOKEN'" : "";
    card.append(element("pre", { textContent: `curl --json '${example.replaceAll("'", "'\\''")}'${token} ${new URL(path.slice(1), document.baseURI)}` }));
  }
  for (const [status, answer] of Object.entries(route.responses)) {
    card.append(element("p", { className: "answer" }, element("strong", { textContent: status }), ` ${answer.description}`));
    for (const content of Object.values(answer.content ?? {})) if (content.example) card.append(element("pre", { textContent: JSON.stringify(content.example, null, 1) }));
  }
  return card;
}

const api = await (await fetch("openapi.json")).json();
const cards = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => routeCard(path, method.toUpperCase(), route)));
document.getElementById("routes").append(element("p", { textContent: api.info.description }), ...cards);
