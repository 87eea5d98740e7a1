// Requests to the worker's API, with the token that the reader gave.
import { $ } from "./dom.js";

// The path of the worker, which may be below a proxy's prefix. A prefix can end in any name, also in /calls.
const root = new URL("../", import.meta.url).pathname;
// Behind a proxy several workers can share a host name, and each has its token.
const TOKEN_KEY = `greenroom-token ${root}`;
let token = sessionStorage.getItem(TOKEN_KEY) || "";
await changeCode();

// A link of `greenroom page` has a code, which works once.
async function changeCode() {
  const code = new URLSearchParams(location.hash.slice(1)).get("code");
  if (!code) return;
  history.replaceState(null, "", location.pathname + location.search);
  const answer = await send("POST", "v1/page/token", { code });
  if (!answer.ok) return;
  token = (await answer.json()).token || "";
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(root + path, { ...options, headers, cache: "no-store" });
}

export function send(method, path, body) {
  return ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

// Shows the form for the token, and calls `open` when there is one.
export function askForToken(open) {
  $("main").hidden = true;
  $("token-form").hidden = false;
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    sessionStorage.setItem(TOKEN_KEY, token);
    $("token-form").hidden = true;
    $("main").hidden = false;
    open();
  };
}

// Calls `step` again and again; a step that fails is tried again later. `onLost` hears of each failure.
export async function poll(step, every, onLost) {
  for (let wait = every; ; ) {
    try {
      if ((await step()) === "stop") return;
      wait = every;
    } catch (error) {
      onLost(error);
      wait = Math.min(wait * 2, 8000);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
