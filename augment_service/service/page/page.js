// The web page: asks for candidates and samples of the sentences, and keeps the settings in the link.
import { ask, info, waitUntilReady } from "./service.js";
import { element, showResults, closeCandidates } from "./results.js";
import { asCsv, asJsonl, copy, save } from "./files.js";

const EXAMPLE = "A gripping and honest film that never loses its sense of humour.\nThe plot is formulaic, but the photography is dazzling.";
const NUMBERS = ["n_a", "k", "seed", "p_t"];
const SWITCHES = ["filter", "context", "words", "text", "conditioning", "pairs"];
const ONLY_SAMPLES = ["n_a", "seed", "p_t", "conditioning", "pairs"];
const NAMES = { n_a: "the number of variants", k: "the number of candidates", seed: "the seed", p_t: "the share" };
const LONGEST_SHARED_TEXT = 4000;
const LARGEST_SEED = 2n ** 63n - 1n;

const byId = (id) => document.getElementById(id);
const form = byId("form");
const defaults = Object.fromEntries([...NUMBERS, ...SWITCHES].map((name) => [name, form.elements[name].value]));
let running = null, shown = null, limits = null, isExample = false;

function readTexts() {
  const lines = byId("texts").value.split("\n").filter((line) => line.trim() !== "");
  return lines.map((line) => (line.includes("\t") ? [line.slice(0, line.indexOf("\t")), line.slice(line.indexOf("\t") + 1)] : line));
}

function readSettings() {
  const settings = {};
  for (const name of NUMBERS) settings[name] = name === "seed" ? BigInt(form.elements.seed.value.trim()) : Number(form.elements[name].value);
  for (const name of SWITCHES) settings[name] = form.elements[name].value;
  return settings;
}

// What the results depend on. Whoever changes it sees that the results below belong to something else.
const inputs = () => JSON.stringify([byId("texts").value, ...[...NUMBERS, ...SWITCHES].map((name) => form.elements[name].value)]);

// Errors are shown at the field that the problem document points at, otherwise above the results.
function clearErrors() {
  byId("alert").hidden = true;
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  for (const line of form.querySelectorAll(".error")) line.hidden = true;
}

function showFieldError(name, message) {
  const line = byId(`${name}-error`), field = form.elements[name];
  if (!line || !field) return false;
  if (byId("settings").contains(field)) byId("settings").open = true;
  field.setAttribute("aria-invalid", "true");
  line.textContent = message;
  line.hidden = false;
  form.querySelector("[aria-invalid]").focus();
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
  if (problem.code === "timeout") return showAlert("This took longer than the service allows. Try fewer or shorter sentences.");
  const seconds = response.headers.get("Retry-After");
  if (problem.code === "overload") return showAlert(`The service is busy. Try again${seconds ? ` in ${seconds} s` : " in a moment"}.`);
  let placed = false;
  for (const { pointer, detail } of problem.errors ?? []) {
    const [, name, index] = pointer.split("/");
    const where = name === "texts" && index !== undefined ? `Sentence ${Number(index) + 1}: ` : "";
    placed = showFieldError(name, where + detail) || placed;
  }
  if (!placed) showAlert(problem.detail + (seconds ? ` (try again in ${seconds} s)` : ""));
}

function rangeOf(name) {
  if (name === "seed") return [0n, LARGEST_SEED];
  if (name === "p_t") return [0, 1];
  const field = form.elements[name];
  return [Number(field.min), Number(field.max)];
}

// All fields are checked, so that whoever mends the first one does not meet the next error afterwards.
function checkFields() {
  const faults = [["texts", faultOfTexts()], ...NUMBERS.map((name) => [name, faultOfNumber(name)])].filter(([, fault]) => fault);
  for (const [name, fault] of faults) showFieldError(name, fault);
  return faults.length === 0;
}

function faultOfNumber(name) {
  const value = form.elements[name].value.trim(), [low, high] = rangeOf(name);
  if (value === "") return `Enter ${NAMES[name]}.`;
  const isNumber = name === "p_t" || /^-?\d+$/.test(value);
  const number = isNumber && (name === "seed" ? BigInt(value) : Number(value));
  return !isNumber || number < low || number > high ? `Enter a ${name === "p_t" ? "" : "whole "}number from ${low} to ${high}.` : "";
}

function faultOfTexts() {
  const texts = readTexts();
  if (texts.length === 0) return "Enter a sentence first.";
  if (!limits) return "";
  if (texts.length > limits.max_texts) return `You entered ${texts.length} sentences; the maximum is ${limits.max_texts}.`;
  const place = texts.findIndex((text) => [text].flat().some((one) => Array.from(one).length > limits.max_text_characters));
  return place < 0 ? "" : `Sentence ${place + 1}: longer than ${limits.max_text_characters} characters.`;
}

async function run() {
  clearErrors();
  closeCandidates();
  if (!checkFields()) return;
  running?.abort();
  const mine = (running = new AbortController());
  const texts = readTexts(), settings = readSettings(), asked = inputs(), moves = !isExample;
  const candidateSettings = Object.fromEntries(Object.entries(settings).filter(([name]) => !ONLY_SAMPLES.includes(name)));
  if (!isExample) writeUrl();
  isExample = false;
  byId("go").setAttribute("aria-busy", "true");
  byId("stop").hidden = false;
  byId("status").textContent = "Working…";
  const began = performance.now();
  const clock = setInterval(() => (byId("status").textContent = `Working… ${Math.round((performance.now() - began) / 1000)} s`), 1000);
  try {
    // Samples are drawn from the candidates: asking for these first puts them into the service's cache.
    const candidates = await ask("v1/candidates", { texts, ...candidateSettings }, mine.signal);
    const samples = await ask("v1/augment", { texts, ...settings }, mine.signal);
    showResults(byId("cards"), candidates, samples);
    shown = { asked, samples };
    byId("toolbar").hidden = byId("downloads").hidden = false;
    markStale();
    const count = samples.reduce((sum, one) => sum + one.samples.length, 0);
    byId("status").textContent = `${count} ${count === 1 ? "variant" : "variants"} in ${Math.round(performance.now() - began)} ms`;
    byId("token-box").hidden = true;
    // On a phone the results are below the fold.
    if (moves && byId("cards").getBoundingClientRect().top > innerHeight * 0.7) byId("results").scrollIntoView({ block: "start" });
  } catch (error) {
    if (mine.signal.aborted) return;
    byId("status").textContent = "";
    if (error.problem) showProblem(error.problem, error.response);
    else showAlert("The service is not responding. Is it still running?");
  } finally {
    clearInterval(clock);
    if (running === mine) {
      byId("go").removeAttribute("aria-busy");
      byId("stop").hidden = true;
    }
  }
}

function stop() {
  running?.abort();
  byId("status").textContent = "Stopped.";
}

function markStale() {
  const isStale = shown !== null && shown.asked !== inputs();
  byId("stale").hidden = !isStale;
  byId("cards").classList.toggle("is-stale", isStale);
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
  showSettings();
}

function showSettings() {
  byId("p_t-value").textContent = `about ${Math.round(100 * form.elements.p_t.value)}%`;
  const count = [...NUMBERS, ...SWITCHES].filter((name) => form.elements[name].value !== defaults[name]).length;
  byId("changed").textContent = count ? `${count} changed` : "variants per sentence, candidates, seed …";
  markStale();
}

function reset() {
  for (const name of [...NUMBERS, ...SWITCHES]) form.elements[name].value = defaults[name];
  clearErrors();
  showSettings();
  writeUrl();
}

function showAbout(found) {
  const { models, version } = found;
  limits = found.limits;
  form.elements.n_a.max = limits.max_n_a;
  form.elements.k.max = limits.max_k;
  byId("metrics").hidden = found.needs_token;
  const parts = [`Version ${version}`];
  if (models.mlm) parts.push(`language model ${models.mlm.name} (${models.mlm.dtype}, ${models.mlm.fingerprint.slice(0, 12)})`);
  if (models.glove) parts.push(`word vectors ${models.glove.name} (${models.glove.fingerprint.slice(0, 12)})`);
  parts.push(`at most ${limits.max_texts} sentences of ${limits.max_text_characters.toLocaleString("en")} characters, ${limits.max_n_a} variants, ${limits.max_k} candidates`);
  byId("about").replaceChildren(element("p", { textContent: `${parts.join(" · ")}.` }));
  byId("about").append(element("p", { textContent: "A batch job with the same fingerprints, ids, seed and settings gives the same variants." }));
  byId("about").hidden = false;
}

async function begin() {
  readUrl();
  const failure = await waitUntilReady((text) => (byId("status").textContent = text));
  if (failure) return showAlert(failure);
  const found = await info().catch(() => null);
  if (found) showAbout(found);
  if (found?.needs_token && !sessionStorage.getItem("token")) {
    byId("token-box").hidden = false;
    byId("status").textContent = "Enter your access token to begin.";
    return;
  }
  if (running) return;
  isExample = location.hash === "";
  if (isExample || new URLSearchParams(location.hash.slice(1)).has("texts")) run();
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
form.addEventListener("input", showSettings);
byId("stop").addEventListener("click", stop);
byId("reset").addEventListener("click", reset);
byId("copy-jsonl").addEventListener("click", (event) => copy(event.currentTarget, asJsonl(shown.samples), byId("status")));
byId("copy-link").addEventListener("click", (event) => copy(event.currentTarget, location.href, byId("status")));
byId("save-jsonl").addEventListener("click", () => save("variants.jsonl", "application/x-ndjson", asJsonl(shown.samples)));
byId("save-csv").addEventListener("click", () => save("variants.csv", "text/csv", asCsv(shown.samples)));
addEventListener("keydown", (event) => event.key === "Escape" && closeCandidates());
addEventListener("hashchange", readUrl);
begin();
