// List of calls: live ones first, then the latest that ended; a search; failures by their cause.
import { ask, askForToken, poll } from "./client.js";
import { $, clock, duration, element, endOf, isBadEnd, keyed, part, setText, utc, who } from "./dom.js";

const EVERY = 2000;
const SHOWN = 200;
let asOf = 0;
let restart = () => {};

$("search").value = new URLSearchParams(location.search).get("q") || "";
$("search-form").addEventListener("submit", (event) => event.preventDefault());
$("search").addEventListener("input", () => {
  const query = $("search").value.trim();
  history.replaceState(null, "", query ? `?q=${encodeURIComponent(query)}` : location.pathname);
  restart();
});

async function step() {
  // Live and ended calls apart: however many live ones there are, the latest failures are shown.
  const q = $("search").value.trim(), offset = -new Date().getTimezoneOffset();
  const query = (state) => new URLSearchParams({ q, limit: SHOWN, state, older: true, utc_offset: offset });
  const responses = await Promise.all(["live", "ended"].map((state) => ask(`v1/jobs?${query(state)}`)));
  if (responses.some((one) => one.status === 401)) {
    askForToken(start);
    return "stop";
  }
  const bodies = await Promise.all(responses.map((one) => one.json()));
  const response = responses.find((one) => !one.ok) || responses[0];
  const body = bodies[responses.indexOf(response)];
  setText($("problem"), response.status === 400 ? body.error.message : "");
  if (!response.ok) {
    if (response.status === 400) return undefined;
    throw new Error(body.error?.message || response.statusText);
  }
  asOf = Date.now() / 1000;
  showState("connected", "ready");
  show([...bodies[1].jobs, ...bodies[0].jobs]);
  return undefined;
}

function showState(text, kind) {
  setText($("state"), text);
  $("state").className = `badge ${kind}`;
  document.body.classList.toggle("lost", kind !== "ready");
  setText($("as-of"), kind === "ready" || !asOf ? "" : `as of ${utc(asOf)}`);
}

function show(jobs) {
  const isLive = (job) => job.state !== "ended";
  const sorted = [...jobs].reverse().sort((one, other) => isLive(other) - isLive(one));
  setText($("count"), `${jobs.filter(isLive).length} live, ${jobs.length} shown`);
  keyed($("rows"), sorted, (job) => `${job.id} ${job.accepted}`, "tr", fillRow);
  showCauses(sorted);
}

function fillRow(row, job) {
  if (!row.firstChild) {
    row.append(element("th", { scope: "row" }, element("a", { href: `calls/${encodeURIComponent(job.id)}` }), element("span", { className: "quiet" })));
    for (const name of ["State", "Started", "Lasted", "MiB", "CPU s", "Last beat", "Code"]) {
      const cell = element("td");
      cell.dataset.name = name;
      row.append(cell);
    }
  }
  const [head, ...cells] = row.children;
  setText(head.children[0], job.id);
  setText(head.children[1], who(job));
  const now = job.ended ?? Date.now() / 1000;
  const end = job.outcome ? endOf(job) : job.state;
  const texts = [
    job.is_stuck ? "stuck" : end,
    job.started === null ? "" : clock(job.started),
    job.started === null ? "" : duration(now - job.started),
    job.memory_mb === null ? "" : job.memory_mb.toFixed(0),
    job.cpu_seconds === null ? "" : job.cpu_seconds.toFixed(1),
    job.beat_age === null ? "" : `${job.beat_age.toFixed(1)} s`,
    job.generation === null ? "" : `generation ${job.generation}`,
  ];
  cells.forEach((cell, index) => setText(cell, texts[index]));
  cells[0].className = job.is_stuck || isBadEnd(job) ? "bad" : "";
}

function showCauses(jobs) {
  const causes = new Map();
  for (const job of jobs) {
    if (!isBadEnd(job)) continue;
    const known = causes.get(job.cause) || { cause: job.cause, count: 0, last: job.ended, job };
    causes.set(job.cause, { ...known, count: known.count + 1, first: job.ended });
  }
  const listed = [...causes.values()].sort((one, other) => other.last - one.last);
  $("causes-section").hidden = listed.length === 0;
  keyed($("causes"), listed, ({ cause }) => cause, "li", (line, { cause, count, first, last, job }) => {
    part(line, "a", `${count}× ${cause}`).href = `calls/${encodeURIComponent(job.id)}`;
    part(line, "span", ` ${count === 1 ? clock(last) : `${clock(first)} to ${clock(last)}`}`);
  });
}

function start() {
  let isCurrent = true;
  restart = () => {
    isCurrent = false;
    start();
  };
  poll(async () => (isCurrent ? step() : "stop"), EVERY, () => showState("no connection", "not-ready"));
}

start();
