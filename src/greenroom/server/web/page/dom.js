// Small helpers for the pages. Text is set as text, never as HTML.

export const $ = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// Elements by a key, in order. What has not changed is not touched, so that a selection and the focus stay.
export function keyed(parent, items, keyOf, tag, fill) {
  const present = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    const child = present.get(key) || element(tag);
    present.delete(key);
    child.dataset.key = key;
    fill(child, item);
    const wanted = before ? before.nextSibling : parent.firstChild;
    if (child !== wanted) parent.insertBefore(child, wanted);
    before = child;
  }
  for (const child of present.values()) child.remove();
}

// The first child of this kind, with this text if there is one.
export function part(parent, tag, text) {
  const child = [...parent.children].find((one) => one.localName === tag) || parent.appendChild(element(tag));
  if (text !== undefined) setText(child, text);
  return child;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The time of day where the reader is. The whole date is shown for another day.
export function clock(seconds) {
  const at = new Date(seconds * 1000);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

export function utc(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

export function duration(seconds) {
  const whole = Math.max(seconds, 0);
  if (whole < 10) return `${whole.toFixed(1)} s`;
  if (whole < 60) return `${Math.round(whole)} s`;
  const minutes = Math.floor(whole / 60), pad = (number) => String(number).padStart(2, "0");
  return minutes < 60 ? `${minutes}m${pad(Math.floor(whole % 60))}s` : `${Math.floor(minutes / 60)}h${pad(minutes % 60)}m`;
}

// Ends that need attention: also that of a call which a drain has cut.
export function isBadEnd(job) {
  return ["failed", "killed"].includes(job.outcome) || job.reason === "drained";
}

// A call that was lost with its worker has no reason, but a cause.
export function endOf(job) {
  return job.reason ? `${job.outcome}, ${job.reason}` : job.cause;
}

// Names and texts of a job by which people know it: its labels and its metadata.
export function who(job) {
  const labels = Object.entries(job.labels || {}).map(([name, text]) => `${name} ${text}`);
  const metadata = job.metadata;
  const more = metadata && typeof metadata === "object" && !Array.isArray(metadata)
    ? Object.entries(metadata).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    : metadata === null || metadata === undefined ? [] : [typeof metadata === "string" ? metadata : JSON.stringify(metadata)];
  return [...labels, ...more].join(" · ");
}
