// Status page: a board that is read once, and events that change it. All data comes from the pool's own events.
import { apply, emptyBoard, light } from "./board.js";
import { readEvents } from "./stream.js";
import { drawHistogram, drawMemory, drawTimeline } from "./draw.js";

const LONGEST_LIST = 30;
const LINGER = 8000; // milliseconds that the light of an ended process is still shown
const REDRAW = 250;
const MANY = 150;

const $ = (id) => document.getElementById(id);
const board = emptyBoard();
// Behind a proxy several workers can share a host name, and each has its token.
const TOKEN_KEY = `greenroom-token ${location.pathname}`;
let token = sessionStorage.getItem(TOKEN_KEY) || "";
let chosen = null;
let isStale = true;

// --- the connection --------------------------------------------------------------------------------

async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const response = await ask("v1/events");
      if (response.status === 401) return askForToken();
      if (response.ok) {
        wait = 250;
        await readEvents(response, (name, data) => { apply(board, name, data); isStale = true; });
      }
    } catch (error) {
      console.info("the stream of events was lost:", error.message);
    }
    showLost();
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// The path is relative to the page's own, which can be below a proxy's prefix.
function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token && { Authorization: `Bearer ${token}` }) };
  return fetch(path, { ...options, headers, cache: "no-store" });
}

function askForToken() {
  $("main").hidden = true;
  $("token-form").hidden = false;
  $("ready").textContent = "locked";
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem(TOKEN_KEY, token);
  $("token-form").hidden = true;
  $("main").hidden = false;
  follow();
});

function showLost() {
  board.stats = null;
  $("ready").textContent = "no connection";
  $("ready").className = "badge not-ready";
}

// --- what is shown ---------------------------------------------------------------------------------

function show() {
  const now = Date.now();
  for (const [id, process] of board.processes) {
    if (process.gone && now - process.gone > LINGER) { board.processes.delete(id); isStale = true; }
  }
  drawTimeline($("timeline"), board.sessions, now / 1000);
  if (!isStale) return;
  isStale = false;
  showHeader();
  showFigures();
  showLights();
  showTurnedDown();
  showReports();
  $("percentiles").textContent = drawHistogram($("histogram"), board.startMs);
  $("memory-now").textContent = drawMemory($("memory"), board.memory, board.processes);
  $("start").hidden = !board.dev;
}

function showHeader() {
  const stats = board.stats;
  if (!stats) return;
  const ready = board.problem === null;
  $("ready").textContent = ready ? "ready" : `not ready: ${board.problem}`;
  $("ready").className = `badge ${ready ? "ready" : "not-ready"}`;
  const parts = [board.app, stats.generation && `generation ${stats.generation}`, stats.zygote_pid && `zygote ${stats.zygote_pid}`];
  if (stats.zygote_restarts) parts.push(`zygote replaced ${stats.zygote_restarts}×`);
  if (stats.breaker_cause) parts.push(stats.breaker_cause);
  $("about").textContent = parts.filter(Boolean).join(" · ");
}

function showFigures() {
  const stats = board.stats, counts = board.counts();
  if (!stats) return;
  figure("running", "sessions / limit", `${board.liveSessions()} / ${board.options.max_jobs}`);
  figure("idle", "idle / target", `${counts.idle} / ${stats.idle_target}`);
  figure("warming", "warming", counts.warming);
  figure("turned-down-count", "rejected", Object.values(board.turnedDownTotal).reduce((sum, n) => sum + n, 0));
  figure("session-mb", "MiB per session", stats.session_mb === null ? "–" : stats.session_mb.toFixed(1));
}

function figure(name, label, value) {
  const id = `figure-${name}`;
  let box = $(id);
  if (!box) {
    box = element("div", { id });
    box.append(element("b"), element("span", { className: "quiet", textContent: label }));
    $("figures").append(box);
  }
  box.firstChild.textContent = value;
}

function showLights() {
  const lights = $("lights");
  lights.classList.toggle("many", board.processes.size > MANY);
  const present = new Map([...lights.children].map((button) => [button.dataset.id, button]));
  for (const [id, process] of board.processes) {
    let button = present.get(id);
    present.delete(id);
    if (!button) {
      button = element("button", { type: "button" });
      button.dataset.id = id;
      button.setAttribute("role", "listitem");
      lights.append(button);
    }
    const kind = light(process);
    if (button.dataset.kind !== kind) {
      button.dataset.kind = kind;
      button.className = `s-${kind}`;
      button.setAttribute("aria-label", `process ${id}: ${process.why || process.state}`);
    }
    button.title = describe(process);
  }
  for (const button of present.values()) button.remove();
  showLegend();
  $("chosen").textContent = chosen && board.processes.has(chosen) ? describe(board.processes.get(chosen)) : "";
}

function showLegend() {
  const counts = board.counts();
  $("legend").replaceChildren(...Object.entries(counts).map(([kind, count]) => {
    const item = element("li");
    item.append(element("i", { className: `s-${kind}` }), `${count} ${kind}`);
    return item;
  }));
}

$("lights").addEventListener("click", (event) => {
  chosen = event.target.dataset.id ?? chosen;
  isStale = true;
});

function describe(process) {
  const parts = [`process ${process.id}`, process.pid && `pid ${process.pid}`, process.why || process.state, `generation ${process.generation}`];
  if (process.job_id) parts.push(`job ${process.job_id}`, ...labelsOf(board.sessions.get(process.job_id)));
  if (process.private_mb) parts.push(`${process.private_mb.toFixed(1)} MiB private`);
  return parts.filter(Boolean).join(" · ");
}

// Labels of a session, from its source. An example is "room hall".
function labelsOf(item) {
  return Object.entries(item?.labels || {}).map(([name, text]) => `${name} ${text}`);
}

function showTurnedDown() {
  const latest = board.turnedDown.slice(-LONGEST_LIST).reverse();
  $("no-turned-down").hidden = latest.length > 0;
  $("turned-down").replaceChildren(...latest.map((item) => {
    const line = element("li");
    line.append(element("b", { textContent: item.reason }), ` ${[clock(item.at), item.source, ...labelsOf(item), item.detail].join(" · ")}`);
    return line;
  }));
}

function showReports() {
  const latest = board.reports.slice(-LONGEST_LIST).reverse();
  $("no-reports").hidden = latest.length > 0;
  const open = new Set([...$("reports").querySelectorAll("details[open]")].map((item) => item.dataset.key));
  $("reports").replaceChildren(...latest.map((report) => {
    const details = element("details"), key = `${report.process_id} ${report.job_id} ${report.at}`;
    details.dataset.key = key;
    details.open = open.has(key);
    const who = report.job_id ? `job ${report.job_id}` : `process ${report.process_id}`;
    details.append(element("summary", { textContent: `${clock(report.at)} ${who}: ${report.outcome}, ${report.reason}` }));
    details.append(element("p", { className: "quiet", textContent: [...labelsOf(report), report.detail].join(" · ") }));
    for (const text of [report.traceback, report.stack_dump]) {
      if (text) details.append(element("pre", { textContent: text }));
    }
    return details;
  }));
}

// --- starting a session ----------------------------------------------------------------------------

$("start-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const result = $("start-result");
  let metadata;
  try {
    metadata = JSON.parse($("metadata").value || "null");
  } catch (error) {
    result.textContent = `The metadata is not JSON: ${error.message}`;
    return;
  }
  $("start-button").disabled = true;
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await (await ask("v1/jobs", { method: "POST", headers, body: JSON.stringify({ metadata }) })).json();
    result.textContent = answer.error
      ? `Rejected (${answer.error.reason || answer.error.type}): ${answer.error.message}`
      : `${answer.id} runs in process ${answer.pid} after ${answer.start_ms} ms`;
  } catch (error) {
    result.textContent = `The worker did not answer: ${error.message}`;
  } finally {
    $("start-button").disabled = false;
  }
});

// --- helpers ---------------------------------------------------------------------------------------

function element(name, properties = {}) {
  return Object.assign(document.createElement(name), properties); // text is set as text, never as HTML
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString();
}

globalThis.greenroom = { board, apply }; // for a browser's developer tools
addEventListener("resize", () => { isStale = true; });
setInterval(show, REDRAW);
follow();
