// The API as a page: routes, fields and examples of openapi.json, without third-party code.
const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const nameOf = (schema) => schema.$ref?.split("/").pop();

function typeOf(schema) {
  if (schema.$ref) return nameOf(schema);
  if (schema.enum) return schema.enum.join(" · ");
  if (schema.const !== undefined) return String(schema.const);
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  const bounds = ["minimum", "maximum", "minItems", "maxItems", "maxLength"].filter((name) => schema[name] !== undefined && schema[name] < 2 ** 53);
  const shown = bounds.map((name) => `${name} ${schema[name]}`).join(", ");
  let kind = schema.type ?? "any";
  if (kind === "array") kind = `list of ${typeOf(schema.items ?? {})}`;
  if (kind === "object" && schema.additionalProperties) kind = `object of ${typeOf(schema.additionalProperties)}`;
  return shown ? `${kind} (${shown})` : kind;
}

function table(schema, headings) {
  const head = element("tr", {}, ...headings.map((text) => element("th", { textContent: text })));
  const rows = Object.entries(schema.properties).map(([name, field]) => {
    const standard = field.default === undefined || field.default === null ? "" : JSON.stringify(field.default);
    const cells = { field: name, values: typeOf(field), default: standard, meaning: field.description ?? "" };
    return element("tr", {}, ...headings.map((text) => element("td", { textContent: cells[text] })));
  });
  return element("div", { className: "wide" }, element("table", {}, head, ...rows));
}

// The schema of an answer, followed by those that its fields refer to.
function* answerSchemas(schema, all, seen = new Set()) {
  if (!schema || typeof schema !== "object") return;
  const name = nameOf(schema);
  if (name && !seen.has(name)) {
    seen.add(name);
    if (all[name]?.properties) yield [name, all[name]];
    yield* answerSchemas(all[name], all, seen);
  }
  for (const part of Object.values(schema)) yield* answerSchemas(part, all, seen);
}

function answer(status, response, all) {
  const parts = [element("p", { className: "answer" }, element("strong", { textContent: status }), ` ${response.description}`)];
  const isGood = status.startsWith("2");
  for (const content of Object.values(response.content ?? {})) {
    const schemas = isGood ? [...answerSchemas(content.schema, all)] : [];
    for (const [name, schema] of schemas) parts.push(element("h3", { textContent: name }), table(schema, ["field", "values", "meaning"]));
    if (content.example) parts.push(element("pre", { textContent: JSON.stringify(content.example, null, 1) }));
  }
  return parts;
}

function routeCard(path, method, route, all) {
  const card = element("article", { className: "card route" }, element("h2", { textContent: `${method} ${path}` }), element("p", { textContent: route.summary ?? "" }));
  const schema = route.requestBody?.content["application/json"].schema;
  const url = new URL(path.slice(1), document.baseURI), token = route.security ? " -H 'Authorization: Bearer TOKEN'" : "";
  if (schema) {
    card.append(table(schema, ["field", "values", "default", "meaning"]));
    const example = JSON.stringify(schema.examples[0]);
    card.append(element("pre", { textContent: `curl -H 'Content-Type: application/json'${token} -d '${example.replaceAll("'", "'\\''")}' ${url}` }));
  } else card.append(element("pre", { textContent: `curl${token} ${url}` }));
  for (const [status, response] of Object.entries(route.responses)) card.append(...answer(status, response, all));
  return card;
}

const api = await (await fetch("openapi.json")).json(), all = api.components?.schemas ?? {};
const cards = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => routeCard(path, method.toUpperCase(), route, all)));
const problem = element("article", { className: "card route" }, element("h2", { textContent: "Errors" }), element("p", { textContent: all.Problem?.description ?? "" }), ...(all.Problem ? [table(all.Problem, ["field", "values", "meaning"])] : []));
document.getElementById("routes").append(element("p", { textContent: api.info.description }), ...cards, problem);
