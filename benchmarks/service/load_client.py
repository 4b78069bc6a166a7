"""Sends GET requests on a schedule, whatever the answers take, and says how long each took.

    python -m benchmarks.service.load_client HOST PORT --rate 200 --seconds 30 < PATHS

A request's time begins when it is due, not when it could be sent: a server that stalls is not
asked less meanwhile, and what waits behind the stall counts. Plain sockets, kept open, so that
the client takes little of the machine. Prints one JSON object: milliseconds in order of time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections import deque
from collections.abc import Sequence

Connection = tuple[StreamReader, StreamWriter]


class Client:
    """Free connections to one server; a new one where none is free."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._free: deque[Connection] = deque()  # in turn, so that none is idle for long
        self.num_connections = 0

    async def get(self, path: str) -> int:
        """The answer's status; its body is read."""
        connection = self._free.popleft() if self._free else await self._connect()
        reader, writer = connection
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        num_bytes = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await reader.readexactly(num_bytes)
        self._free.append(connection)
        return int(head[9:12])

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()

    async def _connect(self) -> Connection:
        self.num_connections += 1
        return await asyncio.open_connection(self._host, self._port)


async def send_on_schedule(
    client: Client, paths: Sequence[str], *, rate: float, seconds: float
) -> dict[str, object]:
    """Milliseconds from when each request was due to its answer's end, and what went wrong."""
    loop = asyncio.get_running_loop()
    milliseconds: list[float] = []
    errors: list[str] = []

    async def send(path: str, due_at: float) -> None:
        try:
            status = await client.get(path)
        except (OSError, EOFError) as error:
            errors.append(repr(error))
            return
        milliseconds.append(1000 * (loop.time() - due_at))
        if status != 200:
            errors.append(f"status {status}")

    began_at = loop.time()
    tasks = []
    for number in range(int(rate * seconds)):
        due_at = began_at + number / rate
        if (wait := due_at - loop.time()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(send(paths[number % len(paths)], due_at)))
    await asyncio.gather(*tasks)
    return {
        "milliseconds": milliseconds,
        "errors": errors,
        "connections": client.num_connections,
        "requests_per_second": len(milliseconds) / (loop.time() - began_at),
    }


async def measure(host: str, port: int, *, rate: float, seconds: float) -> None:
    paths = sys.stdin.read().split()
    client = Client(host, port)
    await send_on_schedule(client, paths, rate=rate, seconds=min(2.0, seconds))  # warms up
    gc.disable()
    found = await send_on_schedule(client, paths, rate=rate, seconds=seconds)
    await client.close()
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    rate, seconds = arguments.rate, arguments.seconds
    asyncio.run(measure(arguments.host, arguments.port, rate=rate, seconds=seconds))


if __name__ == "__main__":
    main()
