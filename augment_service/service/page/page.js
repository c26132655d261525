// The web page: requests candidates and samples of the sentences, and shows which model proposed each word.
const EXAMPLE = "A gripping and honest film that never loses its sense of humour.\nThe plot is formulaic, but the photography is dazzling.";
const NUMBERS = ["n_a", "k", "seed", "p_t"];
const SWITCHES = ["filter", "context", "words", "text", "conditioning", "pairs"];
const ONLY_SAMPLES = ["n_a", "seed", "p_t", "conditioning", "pairs"];
const ORIGINS = { mlm: "masked LM", glove: "GloVe" };
const LONGEST_SHARED_TEXT = 4000;

const byId = (id) => document.getElementById(id);
const form = byId("form"), tip = byId("tip");
const defaults = Object.fromEntries([...NUMBERS, ...SWITCHES].map((name) => [name, form.elements[name].value]));
let running = null, lastLines = "", tipOwner = null;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function readTexts() {
  const lines = byId("texts").value.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => (line.includes("\t") ? [line.slice(0, line.indexOf("\t")), line.slice(line.indexOf("\t") + 1)] : line));
}

function readSettings() {
  const settings = {};
  for (const name of NUMBERS) settings[name] = Number(form.elements[name].value);
  for (const name of SWITCHES) settings[name] = form.elements[name].value;
  return settings;
}

// Errors are shown at the field that the problem document points at, otherwise above the results.
function clearErrors() {
  byId("alert").hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const line of form.querySelectorAll(".error")) line.hidden = true;
}

function showFieldError(name, message) {
  const line = byId(`${name}-error`), field = form.elements[name];
  if (!line || !field) return false;
  field.setAttribute("aria-invalid", "true");
  line.textContent = message;
  line.hidden = false;
  field.focus();
  return true;
}

function showAlert(message) {
  byId("alert").textContent = message;
  byId("alert").hidden = false;
}

function showProblem(problem, response) {
  if (response.status === 401) {
    byId("token-box").hidden = false;
    showAlert(sessionStorage.getItem("token") ? "The service does not accept this token." : "This service requires a token.");
    byId("token").focus();
    return;
  }
  const seconds = response.headers.get("Retry-After");
  let placed = false;
  for (const { pointer, detail } of problem.errors ?? []) {
    const [, name, index] = pointer.split("/");
    const where = name === "texts" && index !== undefined ? `Sentence ${Number(index) + 1}: ` : "";
    placed = showFieldError(name, where + detail) || placed;
  }
  if (!placed) showAlert(problem.detail + (seconds ? ` (try again in ${seconds} s)` : ""));
}

function checkFields() {
  for (const name of NUMBERS) {
    const field = form.elements[name];
    const isWhole = name === "p_t" || /^\d+$/.test(field.value.trim());
    if (!isWhole || !field.checkValidity()) return !showFieldError(name, isWhole ? field.validationMessage : "Enter a whole number.");
  }
  if (readTexts().length === 0) return !showFieldError("texts", "Enter a sentence first.");
  return true;
}

async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  if (response.ok) return (await response.json()).results;
  const problem = await response.json().catch(() => ({ detail: `The service answered ${response.status}.` }));
  throw Object.assign(new Error(problem.detail), { problem, response });
}

async function run() {
  clearErrors();
  hideTip();
  if (!checkFields()) return;
  running?.abort();
  const mine = (running = new AbortController());
  const texts = readTexts(), settings = readSettings();
  const candidateSettings = Object.fromEntries(Object.entries(settings).filter(([name]) => !ONLY_SAMPLES.includes(name)));
  writeUrl();
  byId("go").setAttribute("aria-busy", "true");
  byId("status").textContent = "Working…";
  const began = performance.now();
  try {
    // Samples are drawn from the candidates: requesting these first puts them into the service's cache.
    const candidates = await ask("v1/candidates", { texts, ...candidateSettings }, mine.signal);
    const samples = await ask("v1/augment", { texts, ...settings }, mine.signal);
    show(candidates, samples);
    const count = samples.reduce((sum, one) => sum + one.samples.length, 0);
    byId("status").textContent = `${count} ${count === 1 ? "sample" : "samples"} in ${Math.round(performance.now() - began)} ms`;
    byId("token-box").hidden = true;
  } catch (error) {
    if (mine.signal.aborted) return;
    byId("status").textContent = "";
    if (error.problem) showProblem(error.problem, error.response);
    else showAlert("The service does not respond. Is it still running?");
  } finally {
    if (running === mine) byId("go").removeAttribute("aria-busy");
  }
}

function show(candidates, results) {
  const cards = candidates.map((one, index) => {
    const title = element("h2", { textContent: `Sentence ${index + 1}` });
    const card = element("article", { className: "card" }, title, wordsLine(one.text_a));
    if (one.text_b) card.append(wordsLine(one.text_b));
    const samples = results[index].samples;
    if (samples.length) card.append(element("ol", { className: "samples" }, ...samples.map(sampleItem)));
    else card.append(element("p", { className: "none", textContent: "No samples: this sentence has no replaceable word, or the number of samples is 0." }));
    return card;
  });
  byId("cards").replaceChildren(...cards);
  byId("toolbar").hidden = false;
  lastLines = results.flatMap((one) => one.samples.map((sample) => JSON.stringify({ id: one.id, ...sample }))).join("\n") + "\n";
}

// Spans are in code points, but JavaScript strings are in UTF-16 units: slice arrays of code points.
function wordsLine({ text, words }) {
  const letters = Array.from(text), line = element("p", { className: "words" });
  let last = 0;
  for (const word of words) {
    line.append(letters.slice(last, word.start).join(""));
    line.append(wordElement(letters.slice(word.start, word.end).join(""), word));
    last = word.end;
  }
  line.append(letters.slice(last).join(""));
  return line;
}

function wordElement(shown, word) {
  if (!word.origin) return element("span", { className: "kept", textContent: shown });
  const button = element("button", { type: "button", className: `word ${word.origin}`, textContent: shown });
  const count = word.candidates.length;
  button.setAttribute("aria-label", `${shown}, ${ORIGINS[word.origin]}, ${count ? `${count} candidates` : "no candidates"}`);
  for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, () => showTip(button, word));
  button.addEventListener("pointerleave", () => document.activeElement !== button && hideTip());
  button.addEventListener("blur", hideTip);
  return button;
}

function showTip(owner, word) {
  hideTip();
  const scores = word.scores, low = Math.min(...scores), span = Math.max(...scores) - low || 1;
  const items = word.candidates.map((candidate, index) => {
    const item = element("li", {}, element("span", { textContent: candidate }), element("span", { textContent: scores[index].toFixed(2) }));
    item.style.setProperty("--share", `${Math.round(8 + 92 * ((scores[index] - low) / span))}%`);
    return item;
  });
  const heading = items.length ? `${ORIGINS[word.origin]}: ${word.origin === "mlm" ? "logit" : "cosine"}` : "No candidates: the word is not replaced.";
  tip.replaceChildren(element("h3", { textContent: heading }), element("ol", {}, ...items));
  tip.className = `is-${word.origin}`;
  tip.hidden = false;
  const place = owner.getBoundingClientRect(), width = tip.offsetWidth, height = tip.offsetHeight;
  const left = Math.max(8, Math.min(place.left, document.documentElement.clientWidth - width - 8));
  const fitsBelow = place.bottom + height + 8 < innerHeight || place.top < height + 8;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(fitsBelow ? place.bottom + 6 : place.top - height - 6) + scrollY}px`;
  owner.setAttribute("aria-describedby", "tip");
  tipOwner = owner;
}

function hideTip() {
  tip.hidden = true;
  tipOwner?.removeAttribute("aria-describedby");
  tipOwner = null;
}

function sampleItem(sample) {
  const item = element("li", { value: sample.n });
  item.append(...markedText(sample, "text_a"));
  if (sample.text_b !== null) item.append(element("span", { className: "second" }, ...markedText(sample, "text_b")));
  return item;
}

function markedText(sample, column) {
  const letters = Array.from(sample[column]), parts = [];
  let last = 0;
  for (const one of sample.replaced.filter((one) => one.column === column)) {
    parts.push(letters.slice(last, one.start).join(""));
    const was = element("span", { className: "unseen", textContent: ` (was ${one.word})` });
    parts.push(element("mark", { className: one.origin, title: `was: ${one.word}` }, one.candidate, was));
    last = one.end;
  }
  parts.push(letters.slice(last).join(""));
  return parts;
}

async function copy(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Could not copy";
  }
  byId("status").textContent = button.textContent;
  setTimeout(() => (button.textContent = before), 1500);
}

// Settings and sentences are kept in the URL's fragment, which browsers never send to a server.
function writeUrl() {
  const parts = new URLSearchParams();
  for (const name of [...NUMBERS, ...SWITCHES]) if (form.elements[name].value !== defaults[name]) parts.set(name, form.elements[name].value);
  const text = byId("texts").value;
  if (text !== EXAMPLE && text.length <= LONGEST_SHARED_TEXT) parts.set("texts", text);
  history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname);
}

function readUrl() {
  const parts = new URLSearchParams(location.hash.slice(1));
  byId("texts").value = parts.get("texts") ?? EXAMPLE;
  for (const name of [...NUMBERS, ...SWITCHES]) {
    const field = form.elements[name], value = parts.get(name) ?? defaults[name];
    const isKnown = field.tagName !== "SELECT" || [...field.options].some((one) => one.value === value);
    field.value = isKnown ? value : defaults[name];
  }
  byId("switches").open = SWITCHES.some((name) => form.elements[name].value !== defaults[name]);
  showShare();
}

function showShare() {
  byId("p_t-value").textContent = Number(form.elements.p_t.value).toFixed(2);
}

async function waitUntilReady() {
  for (;;) {
    const state = await fetch("readyz").then((response) => response.json()).catch(() => null);
    if (state?.status !== "loading") {
      if (state?.status === "failed") showAlert(state.detail);
      if (byId("status").textContent.startsWith("The models")) byId("status").textContent = "";
      return;
    }
    byId("status").textContent = "The models are loading…";
    await new Promise((done) => setTimeout(done, 500));
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (token) sessionStorage.setItem("token", token);
  byId("token").value = "";
  run();
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit(byId("go"));
  }
});
form.addEventListener("change", writeUrl);
byId("p_t").addEventListener("input", showShare);
byId("copy-jsonl").addEventListener("click", (event) => copy(event.currentTarget, lastLines));
byId("copy-link").addEventListener("click", (event) => copy(event.currentTarget, location.href));
addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
addEventListener("hashchange", readUrl);
readUrl();
waitUntilReady();
