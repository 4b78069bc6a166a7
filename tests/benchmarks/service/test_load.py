"""The load's figures are of requests that were sent and answered."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.service.load import measure
from benchmarks.service.load_client import Client, send_on_schedule


def test_a_small_load():
    row = measure(None, num_jobs=20, rate=50, seconds=1, training=False)
    assert (row.database, row.training) == ("SQLite", False)
    assert (row.requests, row.errors) == (50, 0)
    assert 0 < row.p50 <= row.p99 <= row.max


def test_what_waits_behind_a_stall_counts():
    """One answer of ten comes 0.3 s late, and those due meanwhile wait for it."""
    num_asked = 0
    stall = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_asked
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            num_asked += 1
            if num_asked == 5:
                asyncio.get_running_loop().call_later(0.3, stall.set)
            if num_asked >= 5:
                await stall.wait()
            status = b"404 Not Found" if num_asked == 1 else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def run() -> dict[str, object]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        client = Client(host, port)
        found = await send_on_schedule(client, ["/"], rate=100, seconds=0.1)
        await client.close()
        server.close()
        return found

    found = asyncio.run(run())
    milliseconds = found["milliseconds"]
    assert len(milliseconds) == 10
    assert found["errors"] == ["status 404"]
    assert len([it for it in milliseconds if it > 200]) == 6
    assert sorted(milliseconds)[-1] == pytest.approx(300, abs=90)


def test_a_server_that_is_gone():
    async def run() -> dict[str, object]:
        return await send_on_schedule(Client("127.0.0.1", 1), ["/"], rate=100, seconds=0.02)

    found = asyncio.run(run())
    assert (len(found["milliseconds"]), len(found["errors"])) == (0, 2)
