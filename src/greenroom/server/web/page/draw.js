// Three small drawings on canvas: plain, so that they stay quick with many sessions.

const WINDOW = 300; // seconds on the timeline
const BOUNDS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000]; // milliseconds
const OUTCOMES = { succeeded: "--idle", failed: "--killed", killed: "--killed", cancelled: "--ended" };

export function drawTimeline(canvas, sessions, now) {
  const { context, width, height } = prepare(canvas);
  const begin = now - WINDOW, scale = width / WINDOW, lanes = [];
  const shown = [...sessions.values()].filter((session) => (session.ended || now) >= begin);
  const placed = shown.map((session) => {
    const from = session.started || session.accepted, to = session.ended || now;
    let lane = lanes.findIndex((end) => end <= from);
    if (lane < 0) lane = lanes.push(0) - 1;
    lanes[lane] = to + 1;
    return { session, lane, from: Math.max(from, begin), to };
  });
  const row = Math.min(14, (height - 16) / Math.max(lanes.length, 1));
  for (const { session, lane, from, to } of placed) {
    context.fillStyle = colour(session.ended ? OUTCOMES[session.outcome] || "--ended" : "--running");
    context.fillRect((from - begin) * scale, lane * row, Math.max((to - from) * scale, 2), Math.max(row - 1, 1));
  }
  context.fillStyle = colour("--quiet");
  for (let minute = 1; minute < 5; minute += 1) context.fillText(`-${5 - minute} min`, minute * 60 * scale - 16, height - 3);
}

export function drawHistogram(canvas, startMs) {
  const { context, width, height } = prepare(canvas);
  const bars = BOUNDS.length + 1, step = width / bars, counts = Array.from({ length: bars }, () => ({ warm: 0, cold: 0 }));
  for (const [type, ms] of startMs) {
    const index = BOUNDS.findIndex((bound) => ms <= bound);
    counts[index < 0 ? bars - 1 : index][type === "cold" ? "cold" : "warm"] += 1;
  }
  const most = Math.max(1, ...counts.map(({ warm, cold }) => warm + cold)), full = height - 18;
  counts.forEach(({ warm, cold }, index) => {
    const tall = (warm / most) * full, more = (cold / most) * full;
    context.fillStyle = colour("--idle");
    context.fillRect(index * step + 1, full - tall, step - 2, tall);
    context.fillStyle = colour("--warming");
    context.fillRect(index * step + 1, full - tall - more, step - 2, more);
    context.fillStyle = colour("--quiet");
    context.fillText(index < BOUNDS.length ? label(BOUNDS[index]) : "more", index * step + 2, height - 4);
  });
  const sorted = startMs.map(([, ms]) => ms).sort((a, b) => a - b);
  if (!sorted.length) return "No session has started yet.";
  const at = (share) => sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)].toFixed(1);
  return `${sorted.length} starts: half within ${at(0.5)} ms, 99 of 100 within ${at(0.99)} ms (green: warm, yellow: cold)`;
}

export function drawMemory(canvas, memory, processes) {
  const { context, width, height } = prepare(canvas);
  let known = 0, total = 0;
  for (const process of processes.values()) {
    if (process.private_mb && !process.gone) { known += 1; total += process.private_mb; }
  }
  if (memory.length > 1) {
    const [first] = memory[0], [last] = memory[memory.length - 1], most = Math.max(...memory.map(([, mb]) => mb), 1);
    context.strokeStyle = colour("--running");
    context.lineWidth = 2;
    context.beginPath();
    for (const [at, mb] of memory) context.lineTo(((at - first) / (last - first || 1)) * width, (height - 4) * (1 - mb / most) + 2);
    context.stroke();
  }
  return known ? `${total.toFixed(0)} MiB in the ${known} processes that were measured so far` : "No process was measured yet.";
}

function prepare(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
  if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "10px system-ui, sans-serif";
  return { context, width, height };
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name);
}

function label(ms) {
  return ms < 1000 ? `${ms} ms` : `${ms / 1000} s`;
}
