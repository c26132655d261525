// Requests to the service.
const LARGEST_EXACT = 2n ** 53n;

// JSON of a body; a BigInt is written digit by digit, because a 64-bit seed does not fit into a JavaScript number.
function written(body) {
  const seed = typeof body.seed === "bigint" && body.seed > LARGEST_EXACT ? body.seed : null;
  const text = JSON.stringify(body, (_, value) => (typeof value === "bigint" ? Number(value) : value));
  return seed === null ? text : text.replace(`"seed":${Number(seed)}`, `"seed":${seed}`);
}

export async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { method: "POST", headers, body: written(body), signal });
  if (response.ok) return (await response.json()).results;
  const problem = await response.json().catch(() => ({ detail: `The service responded with status ${response.status}.` }));
  throw Object.assign(new Error(problem.detail), { problem, response });
}

export async function info() {
  const response = await fetch("info");
  if (!response.ok) throw new Error(String(response.status));
  return response.json();
}

// The reason why the service never will be ready; null once it is.
export async function waitUntilReady(report) {
  for (;;) {
    const state = await fetch("readyz").then((response) => response.json()).catch(() => null);
    if (state?.status !== "loading") {
      report("");
      return state?.status === "failed" ? state.detail : null;
    }
    report("The models are loading…");
    await new Promise((done) => setTimeout(done, 500));
  }
}
