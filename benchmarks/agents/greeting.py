"""An agent that greets its caller by an `AgentSession`, offline.

Written for livekit-agents, with nothing of Greenroom in it. Voices are detected by Silero. The speech is a tone that is
made beforehand, so that no model's time is measured.
"""

import array
import logging
import math
import os

from livekit.agents import Agent, AgentServer, AgentSession, APIConnectOptions, JobContext, JobProcess, cli, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.plugins import silero

RATE = 24_000
logger = logging.getLogger("greeting")

server = AgentServer(
    num_idle_processes=int(os.environ.get("IDLE", "3")),
    load_fnc=lambda: 0.0,
    load_threshold=math.inf,
    initialize_process_timeout=60.0,
    port=0,
)


class Tone(tts.TTS):
    """Says each text as a second of a tone."""

    def __init__(self, samples: bytes) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=RATE, num_channels=1)
        self.samples = samples

    def synthesize(self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS) -> "Utterance":
        return Utterance(tts=self, input_text=text, conn_options=conn_options)


class Utterance(tts.ChunkedStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(request_id="tone", sample_rate=RATE, num_channels=1, mime_type="audio/pcm")
        output_emitter.push(self._tts.samples)
        output_emitter.flush()


def setup(proc: JobProcess) -> None:
    proc.userdata["vad"] = silero.VAD.load()
    proc.userdata["tone"] = array.array(
        "h", (int(12_000 * math.sin(math.tau * 880 * n / RATE)) for n in range(RATE))
    ).tobytes()
    logger.info("process %d is set up", os.getpid())


server.setup_fnc = setup


class Greeter(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="Greet the caller.")

    async def on_enter(self) -> None:
        self.session.say("Good evening!")


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    session = AgentSession(vad=ctx.proc.userdata["vad"], tts=Tone(ctx.proc.userdata["tone"]))
    await session.start(Greeter(), room=ctx.room)


if __name__ == "__main__":
    cli.run_app(server)
