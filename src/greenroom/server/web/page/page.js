// Status page: a board that is read once, and events that change it. All data comes from the pool's own events.
import { apply, emptyBoard, light, now } from "./board.js";
import { ask, askForToken, send } from "./client.js";
import { $, clock, element, keyed, part, setText, who } from "./dom.js";
import { readEvents } from "./stream.js";
import { drawHistogram, drawMemory, drawTimeline } from "./draw.js";

const LONGEST_LIST = 30;
const LINGER = 8000; // milliseconds that the light of an ended process is still shown
const REDRAW = 250;
const MANY = 150;
const SHOWN_OF_A_CAUSE = 5;
const SHOWN_OF_A_REASON = 10;

let asOf = 0;

const board = emptyBoard();
let chosen = null;
let isStale = true;
let isLost = false;

// --- the connection --------------------------------------------------------------------------------

async function follow() {
  for (let wait = 500; ; wait = Math.min(wait * 2, 8000)) {
    try {
      const response = await ask("v1/events");
      if (response.status === 401) {
        setText($("ready"), "locked");
        return askForToken(follow);
      }
      if (response.ok) {
        wait = 250;
        await readEvents(response, (name, data) => { apply(board, name, data); isStale = true; isLost = false; });
      }
    } catch (error) {
      console.info("the stream of events was lost:", error.message);
    }
    showLost();
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// What was known last stays, in grey, with its time.
function showLost() {
  isLost = isStale = true;
}

// --- what is shown ---------------------------------------------------------------------------------

function show() {
  for (const [id, process] of board.processes) {
    if (process.gone && Date.now() - process.gone > LINGER) { board.processes.delete(id); isStale = true; }
  }
  if (!isLost) {
    drawTimeline($("timeline"), board.sessions, now(board));
    asOf = now(board);
  }
  if (!isStale) return;
  isStale = false;
  showHeader();
  showFigures();
  showLights();
  showTurnedDown();
  showIncidents();
  showReports();
  $("percentiles").textContent = drawHistogram($("histogram"), board.startMs);
  $("memory-now").textContent = drawMemory($("memory"), board.memory, board.processes);
  $("start").hidden = !board.dev;
}

// Reasons for which a healthy worker takes no more sessions for a while.
const BUSY = new Set(["full", "draining", "memory", "cpu", "load"]);

function showHeader() {
  document.body.classList.toggle("lost", isLost);
  $("as-of").textContent = isLost && asOf ? `as of ${new Date(asOf * 1000).toISOString().slice(11, 19)} UTC` : "";
  const [text, kind] = isLost ? ["no connection", "not-ready"]
    : board.problem === null ? ["ready", "ready"]
    : [`takes no more: ${board.problem}`, BUSY.has(board.problem) ? "busy" : "not-ready"];
  setText($("ready"), text);
  $("ready").className = `badge ${kind}`;
  const stats = board.stats;
  if (!stats) return;
  const parts = [board.app, stats.generation && `generation ${stats.generation}`, stats.zygote_pid && `zygote ${stats.zygote_pid}`];
  if (stats.zygote_restarts) parts.push(`zygote replaced ${stats.zygote_restarts}×`);
  if (stats.breaker_cause) parts.push(stats.breaker_cause);
  setText($("about"), parts.filter(Boolean).join(" · "));
}

function showFigures() {
  const stats = board.stats, counts = board.counts();
  if (!stats) return;
  figure("running", "sessions / limit", `${board.liveSessions()} / ${board.options.max_jobs}`);
  if (board.room) figure("room", `more fit, by ${board.room.limit}`, board.room.jobs);
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
    box.append(element("b"), element("span", { className: "quiet" }));
    $("figures").append(box);
  }
  setText(box.firstChild, String(value));
  setText(box.lastChild, label);
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

// One line for each source and reason. The latest calls are inside: who they were, and when they came.
function showTurnedDown() {
  const groups = new Map();
  for (const item of board.turnedDown) {
    const key = `${item.source} ${item.reason}`, group = groups.get(key) || { key, items: [] };
    group.items.push(item);
    groups.set(key, group);
  }
  const latest = [...groups.values()].sort((one, other) => other.items.at(-1).at - one.items.at(-1).at);
  $("no-turned-down").hidden = latest.length > 0;
  keyed($("turned-down"), latest, ({ key }) => key, "li", (line, { items }) => {
    const details = part(line, "details"), summary = part(details, "summary"), last = items.at(-1);
    const when = span({ count: items.length, first: items[0].at, last: last.at });
    part(summary, "b", last.reason);
    part(summary, "span", ` ${items.length}×, ${when} · ${last.source} · ${last.detail}`);
    keyed(part(details, "div"), items.slice(-SHOWN_OF_A_REASON).reverse(), (one) => `${one.job_id} ${one.at}`, "article", (article, one) => {
      part(article, "p", [clock(one.at), `job ${one.job_id}`, who(one), one.detail].filter(Boolean).join(" · "));
    });
  });
}

function showIncidents() {
  const latest = board.incidents.slice(-LONGEST_LIST).reverse();
  $("no-incidents").hidden = latest.length > 0;
  keyed($("incidents"), latest, (one) => `${one.at} ${one.kind}`, "li", (line, one) => {
    part(line, "b", one.kind).className = one.is_bad ? "bad" : "";
    part(line, "span", ` ${clock(one.at)} · ${one.cause}`);
  });
}

// One line for each cause, with its count. Its latest reports are inside.
function showReports() {
  const latest = [...board.causes.values()].reverse();
  $("no-reports").hidden = latest.length > 0;
  keyed($("reports"), latest, ({ cause }) => cause, "details", (details, cause) => {
    part(details, "summary", `${cause.count}× ${cause.cause}, ${span(cause)}`);
    keyed(part(details, "div"), cause.reports.slice(-SHOWN_OF_A_CAUSE).reverse(), (one) => `${one.process_id} ${one.at}`, "article", (article, report) => {
      const job = report.job_id ? `job ${report.job_id}` : `process ${report.process_id}`;
      part(article, "p", [clock(report.at), job, ...labelsOf(report), report.detail].join(" · "));
      if (report.job_id) part(article, "a", "show the call").href = `calls/${encodeURIComponent(report.job_id)}`;
      for (const text of [report.traceback, report.stack_dump]) {
        if (text && article.querySelectorAll("pre").length < 2 && !article.dataset.full) article.append(element("pre", { textContent: text, tabIndex: 0 }));
      }
      article.dataset.full = "yes";
    });
  });
}

function span(cause) {
  return cause.count === 1 ? clock(cause.last) : `${clock(cause.first)} to ${clock(cause.last)}`;
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
    const answer = await (await send("POST", "v1/jobs", { metadata })).json();
    result.textContent = answer.error
      ? `Rejected (${answer.error.reason || answer.error.type}): ${answer.error.message}`
      : `${answer.id} runs in process ${answer.pid} after ${answer.start_ms} ms`;
  } catch (error) {
    result.textContent = `The worker did not answer: ${error.message}`;
  } finally {
    $("start-button").disabled = false;
  }
});

globalThis.greenroom = { board, apply }; // for a browser's developer tools
addEventListener("resize", () => { isStale = true; });
setInterval(show, REDRAW);
follow();
