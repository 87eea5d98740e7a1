// Data about the worker: the picture at the start of the stream, and the changes by each event.

const KEPT = 400;
const KEPT_LATENCIES = 2000;
const KEPT_CAUSES = 40;
const KEPT_OF_A_CAUSE = 20;
const NORMAL_ENDS = new Set(["completed", "idle_expired", "drained", "cancelled"]);
const KINDS = { requested: "warming", forked: "warming", claimed: "running", killing: "draining", exited: "draining" };

export function emptyBoard() {
  return {
    stats: null, options: {}, problem: null, room: null, app: "", dev: false,
    processes: new Map(), sessions: new Map(),
    turnedDown: [], turnedDownTotal: {}, causes: new Map(), incidents: [], startMs: [], memory: [], clock: 0,
    counts() {
      const counts = { warming: 0, idle: 0, reserved: 0, running: 0, draining: 0, killed: 0 };
      for (const process of this.processes.values()) {
        const kind = light(process);
        if (kind in counts) counts[kind] += 1;
      }
      return counts;
    },
    liveSessions() {
      let live = 0;
      for (const session of this.sessions.values()) if (!session.ended) live += 1;
      return live;
    },
  };
}

// A job that had to be killed needs attention, even after a hang-up. So does one that was cut by a drain.
function isExpected(report) {
  const isCut = report.reason === "drained" && report.job_id;
  return NORMAL_ENDS.has(report.reason) && !["failed", "killed"].includes(report.outcome) && !isCut;
}

// The colour of a process: its state, or how it ended.
export function light(process) {
  if (process.gone) return process.killed ? "killed" : "ended";
  return KINDS[process.state] || process.state;
}

const handlers = {
  board(board, picture) {
    Object.assign(board, {
      stats: picture.stats, options: picture.options, problem: picture.problem, room: picture.room, app: picture.app, dev: picture.dev,
      processes: new Map(picture.processes.map((process) => [process.id, process])),
      sessions: new Map(picture.sessions.map((session) => [session.id, session])),
      turnedDown: picture.turned_down, turnedDownTotal: picture.turned_down_total,
      causes: causesOf(picture), incidents: picture.incidents, startMs: picture.start_ms,
    });
    setClock(board, picture.now);
  },

  Levels(board, levels) {
    board.stats = levels.stats;
    board.problem = levels.problem;
    board.room = levels.room;
    setClock(board, levels.now);
    sampleMemory(board, levels.now);
  },

  ProcessChanged(board, event) {
    const process = board.processes.get(event.process_id) || { id: event.process_id, private_mb: null };
    Object.assign(process, {
      pid: event.pid, state: event.after, generation: event.generation, job_id: event.job_id, since: event.at,
    });
    board.processes.set(event.process_id, process);
  },

  ProcessEnded(board, { at, report }) {
    const process = board.processes.get(report.process_id);
    const isNormal = isExpected(report);
    if (process) Object.assign(process, { gone: Date.now(), killed: !isNormal, why: `${report.outcome}: ${report.reason} (${report.detail})` });
    if (!isNormal) addFailure(board.causes, { ...report, at });
  },

  MemorySampled(board, event) {
    const process = board.processes.get(event.process_id);
    if (process) process.private_mb = event.private_mb;
  },

  JobAccepted(board, event) {
    board.sessions.set(event.job_id, {
      id: event.job_id, source: event.source, labels: event.labels, launch_type: event.launch_type, accepted: event.at, started: null, ended: null,
    });
    forgetOldSessions(board);
  },

  JobStarted(board, event) {
    const start = Math.round(event.start_seconds * 1e6) / 1000;
    keep(board.startMs, [event.launch_type, start], KEPT_LATENCIES);
    const session = board.sessions.get(event.job_id);
    if (session) Object.assign(session, { started: event.at, start_ms: start, launch_type: event.launch_type, pid: event.pid });
  },

  JobEnded(board, { at, report }) {
    const session = board.sessions.get(report.job_id);
    if (session) Object.assign(session, { ended: at, outcome: report.outcome, reason: report.reason });
  },

  TurnedDown(board, event) {
    board.turnedDownTotal[event.reason] = (board.turnedDownTotal[event.reason] || 0) + 1;
    keep(board.turnedDown, event, KEPT);
  },
};

export function apply(board, name, data) {
  handlers[name]?.(board, data);
  if (data.incident) keep(board.incidents, data.incident, 100);
}

// Seconds since the epoch by the worker's clock, which may differ from the reader's.
export function now(board) {
  return Date.now() / 1000 + board.clock;
}

function setClock(board, at) {
  board.clock = at - Date.now() / 1000;
}

// Failures by their cause, so that a storm of one kind hides no other. The latest cause is last.
function causesOf(picture) {
  const causes = new Map(picture.causes.map((one) => [one.cause, { ...one, reports: [] }]));
  for (const report of picture.reports) causes.get(report.cause)?.reports.push(report);
  return causes;
}

function addFailure(causes, report) {
  const cause = causes.get(report.cause) || { cause: report.cause, count: 0, first: report.at, reports: [] };
  cause.count += 1;
  cause.last = report.at;
  keep(cause.reports, report, KEPT_OF_A_CAUSE);
  causes.delete(report.cause);
  causes.set(report.cause, cause);
  if (causes.size > KEPT_CAUSES) causes.delete(causes.keys().next().value);
}

function keep(list, item, most) {
  list.push(item);
  if (list.length > most) list.splice(0, list.length - most);
}

function forgetOldSessions(board) {
  for (const [id, session] of board.sessions) {
    if (board.sessions.size <= KEPT) break;
    if (session.ended) board.sessions.delete(id);
  }
}

function sampleMemory(board, at) {
  let total = 0;
  for (const process of board.processes.values()) if (!process.gone) total += process.private_mb || 0;
  keep(board.memory, [at, total], 600);
}
