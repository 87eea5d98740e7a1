"""An agent whose main block is a program: it has options of its own, takes a lock, and answers health checks itself."""

import argparse
import http.server
import os
import socket
import sys
import threading

PORT = int(os.environ.get("HEALTH_PORT", "0"))


class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"alive in {os.getpid()}".encode())


async def entrypoint(ctx) -> None:
    import answering

    await answering.answer(ctx)
    await ctx.room.local_participant.set_attributes({"arguments": " ".join(sys.argv[1:])})


def prewarm(proc) -> None:
    import answering

    answering.setup(proc)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["start", "dev"])
    parser.add_argument("--name", default="nobody")
    options = parser.parse_args()
    sys.argv = sys.argv[:2]

    lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        lock.bind(f"\0greenroom-test-{PORT}")
    except OSError:
        sys.exit("another worker is running")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"health checks on port {server.server_port}", flush=True)

    import math

    from livekit.agents import WorkerOptions, cli

    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=entrypoint,
            prewarm_fnc=prewarm,
            agent_name=options.name,
            num_idle_processes=1,
            load_fnc=lambda: 0.0,  # a test machine is busy with other tests
            load_threshold=math.inf,
            initialize_process_timeout=60.0,
            port=0,
        )
    )


if __name__ == "__main__":
    main()
