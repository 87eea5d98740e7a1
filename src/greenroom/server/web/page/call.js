// One call: who it is, what happened when, what it says, what it takes, and how it ended.
import { ask, askForToken, poll, send } from "./client.js";
import { $, duration, element, endOf, isBadEnd, keyed, part, setText, utc, who } from "./dom.js";

const EVERY = 1000;
const MOST_LINES = 2000;
const id = decodeURIComponent(location.pathname.split("/").pop());
const path = `v1/jobs/${encodeURIComponent(id)}`;
let asOf = 0, lastLine = 0, isOver = false;

document.title = `${id} · Greenroom`;
setText($("title"), id);

async function step() {
  const responses = await Promise.all([ask(path), ask(`${path}/life`), ask(`${path}/log?after=${lastLine}`)]);
  if (responses.some((response) => response.status === 401)) {
    askForToken(start);
    return "stop";
  }
  const [job, life, log] = await Promise.all(responses.map((response) => response.json()));
  if (responses[0].status === 404) {
    setText($("problem"), job.error.message);
    showState("not found", "not-ready");
    return "stop";
  }
  if (!responses[0].ok) throw new Error(job.error?.message || responses[0].statusText);
  asOf = Date.now() / 1000;
  showState(job.is_stuck ? "stuck" : job.outcome || job.state, job.is_stuck || isBadEnd(job) ? "not-ready" : "ready");
  showFacts(job);
  showReport(job);
  if (responses[1].ok) showLife(life);
  if (responses[2].ok) showLog(log);
  isOver = job.state === "ended";
  $("cancel-button").disabled = $("stack-button").disabled = isOver;
  return isOver && (!responses[2].ok || log.is_over) ? "stop" : undefined;
}

function showState(text, kind) {
  setText($("state"), text);
  $("state").className = `badge ${kind}`;
  const isLost = text === "no connection";
  document.body.classList.toggle("lost", isLost);
  setText($("as-of"), isLost && asOf ? `as of ${utc(asOf)}` : "");
}

function showFacts(job) {
  const now = job.ended ?? Date.now() / 1000;
  const facts = [
    ["who", who(job)],
    ["source", job.source],
    ["started", job.started === null ? "not yet" : `${utc(job.started)}, ${duration(now - job.started)} ${job.ended === null ? "ago" : "long"}`],
    ["start", job.start_ms === null ? "" : `${job.launch_type}, ${job.start_ms.toFixed(1)} ms`],
    ["process", job.pid === null ? "" : `pid ${job.pid}, ${job.process_id}, generation ${job.generation}`],
    ["app version", job.app_version],
    ["trace", job.trace_id],
    ["last beat", job.beat_age === null ? "" : `${job.beat_age.toFixed(1)} s ago${job.is_stuck ? `: the event loop stands still since ${utc(now - job.beat_age)}` : ""}`],
  ].filter(([, text]) => text);
  keyed($("facts"), facts, ([name]) => name, "div", (line, [name, text]) => {
    part(line, "dt", name);
    part(line, "dd", text);
  });
}

// A call that was lost with its worker has no report.
function showReport(job) {
  $("report").hidden = job.state !== "ended";
  if (job.state !== "ended") return;
  setText($("detail"), `${utc(job.ended)} · ${endOf(job)}: ${job.detail}`);
  showText($("traceback"), job.report?.error?.traceback);
  showText($("dump"), job.report?.stack_dump);
}

function showText(node, text) {
  node.hidden = !text;
  if (text) setText(node, text);
}

function showLife(life) {
  keyed($("steps"), life.steps, (one) => `${one.at} ${one.what}`, "li", (line, one) => {
    part(line, "b", one.what);
    part(line, "span", ` ${utc(one.at)} · ${one.detail}`);
  });
  const samples = life.samples;
  const cpu = samples.slice(1).map((one, index) => [one.at, (one.cpu_seconds - samples[index].cpu_seconds) / Math.max(one.at - samples[index].at, 0.001)]);
  draw("memory", samples.filter((one) => one.memory_mb !== null).map((one) => [one.at, one.memory_mb]), (value) => `${value.toFixed(1)} MiB`);
  draw("cpu", cpu, (value) => `${(100 * value).toFixed(0)} % of a CPU`);
  draw("lag", samples.filter((one) => one.lag !== null).map((one) => [one.at, one.lag]), (value) => `${(1000 * value).toFixed(0)} ms`);
}

function draw(name, points, text) {
  setText($(`${name}-now`), points.length ? `${text(points[points.length - 1][1])} now, ${text(Math.max(...points.map(([, value]) => value)))} at most` : "not measured yet");
  const chart = $(`${name}-chart`);
  chart.setAttribute("viewBox", "0 0 300 80");
  chart.setAttribute("preserveAspectRatio", "none");
  const line = chart.firstChild || chart.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  const [first, last] = [points[0]?.[0] ?? 0, points[points.length - 1]?.[0] ?? 1];
  const most = Math.max(...points.map(([, value]) => value), 1e-9);
  line.setAttribute("points", points.map(([at, value]) => `${(300 * (at - first)) / (last - first || 1)},${78 - (76 * value) / most}`).join(" "));
}

function showLog(log) {
  const box = $("log");
  const follows = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  for (const line of log.lines) {
    if (line.number > lastLine + 1) box.append(element("i", { textContent: `… ${line.number - lastLine - 1} lines are not kept\n` }));
    lastLine = line.number;
    const isBad = ["warning", "error", "critical"].includes(line.level);
    const when = new Date(line.at * 1000).toISOString().slice(11, 23);
    box.append(element("span", { className: isBad ? "bad" : "", textContent: `${when} ${line.level.padEnd(7)} ${line.origin}: ${line.text}\n` }));
  }
  while (box.children.length > MOST_LINES) box.firstChild.remove();
  if (follows) box.scrollTop = box.scrollHeight;
  setText($("log-count"), `${log.count} lines${log.left_out ? `, of which ${log.left_out} are not kept` : ""}; times in UTC`);
}

$("stack-button").addEventListener("click", () => act("reading the stack", async () => {
  const answer = await (await send("POST", `${path}/stack`, {})).json();
  showText($("stack"), answer.stacks);
  return answer.error ? answer.error.message : "";
}));

$("cancel-button").addEventListener("click", () => act("cancelling", async () => {
  const response = await ask(`${path}?reason=${encodeURIComponent("cancelled on the page")}`, { method: "DELETE" });
  return response.ok ? "the call is being cancelled" : (await response.json()).error.message;
}));

$("link-button").addEventListener("click", () => act("copying", async () => {
  await navigator.clipboard.writeText(location.href);
  return "copied";
}));

async function act(what, work) {
  setText($("action-result"), `${what} …`);
  try {
    setText($("action-result"), await work());
  } catch (error) {
    setText($("action-result"), `${what} failed: ${error.message}`);
  }
}

function start() {
  poll(step, EVERY, () => showState("no connection", "not-ready"));
}

start();
