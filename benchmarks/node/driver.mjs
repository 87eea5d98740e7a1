// The driver of the Node peer: answers the same requests as benchmarks/peers/serve.py.
import { initializeLogger } from '@livekit/agents';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
// The pool is not exported; a path reaches it, and shares the package's modules.
const { ProcPool } = await import(
  path.join(here, 'node_modules/@livekit/agents/dist/ipc/proc_pool.js')
);
initializeLogger({ pretty: false, level: 'error' });

const now = () => process.hrtime.bigint();
const since = (start, end) => Number(end - start) / 1e6;

class Inbox {
  #waiting = new Map();
  #next = 1;

  constructor() {
    this.fifo = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'inbox-')), 'inbox');
    execFileSync('mkfifo', [this.fifo]);
    // Open for writing too, or the reader would see the end of the file whenever no session writes.
    const fd = fs.openSync(this.fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
    readline.createInterface({ input: new net.Socket({ fd }) }).on('line', (line) => {
      const [, id, , when] = line.split(' ');
      this.#waiting.get(Number(id))(BigInt(when));
      this.#waiting.delete(Number(id));
    });
  }

  metadata(hold = 0) {
    const metadata = { id: this.#next++, fifo: this.fifo, hold };
    const entered = new Promise((resolve) => this.#waiting.set(metadata.id, resolve));
    return { metadata, entered };
  }
}

class Driver {
  #inbox = new Inbox();
  #idle = 0;
  #pool;

  async open({ idle }) {
    const start = now();
    this.#make(idle);
    while (this.#warm() < idle) await sleep(10);
    return { seconds: since(start, now()) / 1e3 };
  }

  #make(idle) {
    this.#idle = idle;
    this.#pool = new ProcPool({
      agent: path.join(here, 'agent.mjs'),
      numIdleProcesses: idle,
      initializeTimeout: 10_000,
      closeTimeout: 10_000,
      sessionEndTimeout: 300_000,
      memoryWarnMB: 1000,
      memoryLimitMB: 0,
    });
    this.#pool.start();
  }

  #warm() {
    return this.#pool.warmedProcQueue.items.length;
  }

  async pids() {
    const idle = this.#pool.warmedProcQueue.items.map((item) => item.proc.proc.pid);
    return { supervisor: process.pid, idle };
  }

  async #launch({ metadata, entered }) {
    const start = now();
    const id = `AJ_${metadata.id}`;
    const room = { name: `room-${metadata.id}`, sid: `RM_${metadata.id}` };
    await this.#pool.launchJob({
      acceptArguments: { name: 'agent', identity: `agent-${metadata.id}`, metadata: '' },
      job: { id, room, metadata: JSON.stringify(metadata), agentName: '' },
      url: 'ws://127.0.0.1:7880',
      token: '',
      workerId: 'AW_bench',
    });
    const ended = this.#pool.getByJobId(id).join();
    const when = await entered;
    return { ms: since(start, when), when, ended };
  }

  async #oneByOne({ count, seconds }, settle) {
    const ms = [];
    const deadline = performance.now() + seconds * 1e3;
    while (ms.length < count && performance.now() < deadline) {
      await sleep(30);
      const launched = await this.#launch(this.#inbox.metadata());
      ms.push(launched.ms);
      await launched.ended;
      if (settle) await this.#settled();
    }
    return { ms };
  }

  async #settled() {
    while (this.#warm() < this.#idle || this.#pool.executors.length > this.#idle) await sleep(5);
  }

  quiet_launches(options) {
    return this.#oneByOne(options, true);
  }

  launches(options) {
    return this.#oneByOne(options, false);
  }

  async burst({ count, hold }) {
    const start = now();
    const jobs = Array.from({ length: count }, () => this.#inbox.metadata(hold));
    const launched = await Promise.all(jobs.map((metadata) => this.#launch(metadata)));
    const ms = launched.map(({ when }) => since(start, when));
    return { seconds: Math.max(...ms) / 1e3, ms };
  }

  async fill({ count, width, hold }) {
    const start = now();
    const ms = [];
    let left = count;
    const lane = async () => {
      while (left-- > 0) ms.push((await this.#launch(this.#inbox.metadata(hold))).ms);
    };
    await Promise.all(Array.from({ length: width }, lane));
    return { seconds: since(start, now()) / 1e3, ms };
  }

  async jobs({ seconds, width }) {
    const ends = [];
    const begun = performance.now() + 1e3;
    const until = begun + seconds * 1e3;
    const lane = async () => {
      while (performance.now() < until) {
        await (await this.#launch(this.#inbox.metadata())).ended;
        ends.push(performance.now());
      }
    };
    await Promise.all(Array.from({ length: width }, lane));
    const counted = ends.filter((end) => end >= begun && end < until).length;
    return { per_second: counted / seconds, ended: ends.length };
  }

  // The pool initialises one process at a time, so the time between two that became warm is one start.
  async cold({ count, seconds }) {
    const ms = [];
    const deadline = performance.now() + seconds * 1e3;
    let last = now();
    this.#make(count);
    while (ms.length < count && performance.now() < deadline) {
      if (this.#warm() > ms.length) {
        ms.push(since(last, now()));
        last = now();
      }
      await sleep(1);
    }
    return { ms };
  }
}

const link = new net.Socket({ fd: Number(process.env.GREENROOM_BENCH_RPC_FD) });
const driver = new Driver();
for await (const line of readline.createInterface({ input: link })) {
  const { do: what, ...options } = JSON.parse(line);
  const answer = await driver[what](options).catch((error) => ({ error: String(error) }));
  link.write(JSON.stringify(answer) + '\n');
}
process.exit(0);
