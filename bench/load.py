"""Requests as bytes and connections that are equally many to each worker, for the benches that load a service."""

import asyncio
from collections.abc import Sequence

import httpx
import psutil

KEY = "the-key-of-the-bench"

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(path: str, field: str, photos: Sequence[bytes]) -> bytes:
    """Return a whole request with some JPEG files, as it goes over the wire."""
    part = b'--edge\r\nContent-Disposition: form-data; name="%b"; filename="a.jpg"\r\n\r\n%b\r\n'
    body = b"".join(part % (field.encode(), data) for data in photos) + b"--edge--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {KEY}\r\n"
        f"Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(connection: Connection, sent: bytes) -> int:
    """Send a request, read its answer, and return its status."""
    reader, writer = connection
    writer.write(sent)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])


async def connect(url: str, workers: Sequence[int], count: int) -> list[Connection]:
    """Open connections, equally many to each worker: who accepts one is chance, and would decide a short round."""
    wanted = {pid: count // len(workers) + (place < count % len(workers)) for place, pid in enumerate(workers)}
    address = httpx.URL(url)
    kept: list[Connection] = []
    spare: list[Connection] = []
    while any(wanted.values()):
        connection = await asyncio.open_connection(address.host, address.port)
        await exchange(connection, b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")  # so that it is accepted
        ours = connection[1].get_extra_info("sockname")[1]
        holder = next(pid for pid in wanted if ours in _peers(pid))
        (kept if wanted[holder] else spare).append(connection)
        wanted[holder] = max(wanted[holder] - 1, 0)
    for _, writer in spare:
        writer.close()
    return kept


def _peers(pid: int) -> set[int]:
    return {each.raddr.port for each in psutil.Process(pid).net_connections("tcp4") if each.raddr}
