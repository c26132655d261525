// Variants as files: one row per variant, with the id of its sentence.
const MARK = "\ufeff";

const rows = (results) => results.flatMap((one) => one.samples.map((sample) => ({ id: one.id, ...sample })));

export const asJsonl = (results) => rows(results).map((row) => JSON.stringify(row) + "\n").join("");

// RFC 4180; the byte order mark tells spreadsheets that it is UTF-8.
export function asCsv(results) {
  const lines = rows(results).map(({ id, n, text_a, text_b }) => [id, n, text_a, text_b ?? ""].map(field).join(","));
  return MARK + ["id,n,text_a,text_b", ...lines].join("\r\n") + "\r\n";
}

const field = (value) => (/[",\r\n]/.test(String(value)) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export async function copy(button, text, status) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Could not copy";
  }
  status.textContent = button.textContent;
  setTimeout(() => (button.textContent = before), 1500);
}
