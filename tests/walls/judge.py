"""A process that judges its clients, as a worker does. It reads nothing from them, so that a reset is not noticed.

Prints its port, a line for each connection, and after a line on the standard input, who is an outsider.
"""

import asyncio
import sys

from greenroom.server.local_clients import LocalClients


class Deaf(asyncio.Protocol):
    def connection_made(self, transport):
        transport.pause_reading()
        accepted.append(transport)
        print("accepted", flush=True)


async def main():
    server = await asyncio.get_running_loop().create_server(Deaf, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    clients = LocalClients()
    print(*[await clients.is_outsider(transport) for transport in accepted], flush=True)
    clients.close()


accepted = []
asyncio.run(main())
