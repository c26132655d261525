// Results as cards: the words of each sentence, the candidates of a selected word, and the variants.
const ORIGINS = { mlm: "language model", glove: "similar words" };
let selected = null;

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function showResults(place, candidates, results) {
  selected = null;
  const cards = candidates.map((one, index) => {
    const title = element("h2", { textContent: candidates.length > 1 ? `Sentence ${index + 1}` : "Sentence" });
    const card = element("article", { className: "card" }, title);
    const panel = element("div", { className: "candidates", id: `candidates-${index}`, hidden: true });
    for (const column of [one.text_a, one.text_b]) if (column) card.append(wordsLine(column, panel));
    card.append(panel);
    if (card.querySelector("button.word")) card.append(element("p", { className: "hint", textContent: "Select a coloured word to see what may replace it." }));
    const samples = results[index].samples;
    if (samples.length) card.append(element("h3", { textContent: "Variants" }), element("ol", { className: "samples" }, ...samples.map(sampleItem)));
    else card.append(element("p", { className: "none", textContent: "No variants: this sentence has no word that can be replaced, or the number of variants is 0." }));
    return card;
  });
  place.replaceChildren(...cards);
  // One open list shows what words do.
  const first = place.querySelector("button.word");
  if (first) open(first);
}

// Spans are in code points, but JavaScript strings are in UTF-16 units: slice arrays of code points.
function wordsLine({ text, words }, panel) {
  const letters = Array.from(text), line = element("p", { className: "words" });
  let last = 0;
  for (const word of words) {
    line.append(letters.slice(last, word.start).join(""));
    line.append(wordElement(letters.slice(word.start, word.end).join(""), word, panel));
    last = word.end;
  }
  line.append(letters.slice(last).join(""));
  return line;
}

function wordElement(shown, word, panel) {
  if (!word.origin) return element("span", { className: "kept", textContent: shown });
  const button = element("button", { type: "button", className: `word ${word.origin}`, textContent: shown });
  const count = word.candidates.length;
  button.setAttribute("aria-label", `${shown}, ${ORIGINS[word.origin]}, ${count ? `${count} candidates` : "no candidates"}`);
  button.setAttribute("aria-expanded", "false");
  button.setAttribute("aria-controls", panel.id);
  button.open = () => fill(panel, shown, word);
  button.addEventListener("click", () => (selected === button ? closeCandidates() : open(button)));
  return button;
}

function open(button) {
  closeCandidates();
  selected = button;
  button.setAttribute("aria-expanded", "true");
  button.open();
}

export function closeCandidates() {
  if (!selected) return;
  selected.setAttribute("aria-expanded", "false");
  document.getElementById(selected.getAttribute("aria-controls"))?.setAttribute("hidden", "");
  selected = null;
}

// A language model gives scores whose exponentials are proportional to probabilities: shown among the K candidates.
function shares(word) {
  if (word.origin === "glove") return word.scores.map((score) => Math.max(score, 0));
  const best = Math.max(...word.scores), weights = word.scores.map((score) => Math.exp(score - best));
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

function fill(panel, shown, word) {
  const values = shares(word), largest = Math.max(...values, 1e-9);
  const items = word.candidates.map((candidate, index) => {
    const percent = 100 * values[index];
    const value = word.origin === "glove" ? values[index].toFixed(2) : percent < 0.1 ? "<0.1%" : `${percent.toFixed(percent < 10 ? 1 : 0)}%`;
    const item = element("li", {}, element("span", { textContent: candidate }), element("span", { textContent: value }));
    item.style.setProperty("--share", `${Math.round((100 * values[index]) / (word.origin === "glove" ? 1 : largest))}%`);
    return item;
  });
  const meaning = word.origin === "mlm" ? "probability among these candidates" : "similarity, at most 1";
  const what = items.length ? `may be replaced by one of ${items.length}: ${meaning}` : "has no candidates, so it is not replaced";
  panel.replaceChildren(element("p", {}, element("strong", { textContent: shown }), ` ${what}`), element("ol", {}, ...items));
  panel.className = `candidates is-${word.origin}`;
  panel.hidden = false;
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
