// Data about the worker: the picture at the start of the stream, and the changes by each event.

const KEPT = 400;
const KEPT_LATENCIES = 2000;
const NORMAL_ENDS = new Set(["completed", "idle_expired", "drained", "cancelled"]);
const KINDS = { requested: "warming", forked: "warming", claimed: "running", killing: "draining", exited: "draining" };

export function emptyBoard() {
  return {
    stats: null, options: {}, problem: null, app: "", dev: false,
    processes: new Map(), sessions: new Map(),
    turnedDown: [], turnedDownTotal: {}, reports: [], startMs: [], memory: [],
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

// The colour of a process: its state, or how it ended.
export function light(process) {
  if (process.gone) return process.killed ? "killed" : "ended";
  return KINDS[process.state] || process.state;
}

const handlers = {
  board(board, picture) {
    Object.assign(board, {
      stats: picture.stats, options: picture.options, problem: picture.problem, app: picture.app, dev: picture.dev,
      processes: new Map(picture.processes.map((process) => [process.id, process])),
      sessions: new Map(picture.sessions.map((session) => [session.id, session])),
      turnedDown: picture.turned_down, turnedDownTotal: picture.turned_down_total,
      reports: picture.reports, startMs: picture.start_ms,
    });
  },

  Levels(board, levels) {
    board.stats = levels.stats;
    board.problem = levels.problem;
    sampleMemory(board, Date.now() / 1000);
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
    const isNormal = NORMAL_ENDS.has(report.reason);
    if (process) Object.assign(process, { gone: Date.now(), killed: !isNormal, why: `${report.outcome}: ${report.reason} (${report.detail})` });
    if (!isNormal) keep(board.reports, { ...report, at }, 100);
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
