// The benchmark's image and session as a LiveKit job in Node.
import { defineAgent } from '@livekit/agents';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export default defineAgent({
  prewarm: async () => {
    if (process.env.GREENROOM_BENCH_IMAGE === 'livekit_rtc') {
      // Any native call starts the runtime; this is the cheapest that is exported.
      const { AudioResampler } = await import('@livekit/rtc-node');
      new AudioResampler(16000, 8000, 1);
    }
  },
  entry: async (ctx) => {
    const entered = process.hrtime.bigint(); // CLOCK_MONOTONIC, as in the driver
    const metadata = JSON.parse(ctx.job.metadata);
    fs.writeFileSync(metadata.fifo, `entered ${metadata.id} ${process.pid} ${entered}\n`);
    if (metadata.hold) await sleep(metadata.hold * 1000);
    ctx.shutdown('done');
  },
});
