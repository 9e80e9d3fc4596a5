"""Ten thousand mixed requests at the real service: none may be lost, answered wrongly, or stay in memory.

python bench/soak.py [--requests 10000] [--seed 0] [--report reports/soak.json]
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import platform
import random
import socket
import sqlite3
import statistics
import struct
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.photos import BAD, GOOD, encode, photo
from tests.support.server import ROOT, Server, is_ready, serving

KEY = "the-key-of-the-soak"
CLIENTS = 12  # that wait for one answer before they ask again; slow clients come on top
SAMPLE_SECONDS = 0.1
BEFORE, AFTER = (0.2, 0.3), (0.9, 1.0)  # parts of the run whose memory is compared
# Of the median: a photo of 20 megapixels holds 160 MB for half a second, and a mean would tell who got one when.
MOST_GROWTH = 0.05
MOST_SHED = 0.01  # share of 503; with more, this machine is too slow to say anything about the service
PACKAGES = ("bentoml", "fastapi", "numpy", "onnxruntime", "pillow", "starlette", "uvicorn", "uvloop")
SHAPE = {"error", "detail", "request_id", "status_code", "error_class"}
FORM = {"Content-Type": "multipart/form-data; boundary=edge"}
MIB = 2**20


# What is asked


@dataclass(frozen=True)
class Ask:
    """One request, and how it must be answered.

    Attributes:
        method: of HTTP.
        path: likewise.
        status: what it must be answered with; a 503 with `Retry-After` is right, too.
        error: the `error` that the answer must name, where it matters.
        options: of `httpx.AsyncClient.request`: files, content, headers, …
        photos: of a batch: for each photo the error it must get, None for a good one.
        seconds: that sending takes.
        leaves: how the client leaves before it is answered; None where it stays.
        closes: the connection is not used again; the next one may reach the other worker.
        kind: under which it is counted.
    """

    method: str
    path: str
    status: int = 200
    error: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    photos: list[str | None] = field(default_factory=list)
    seconds: float = 0
    leaves: str | None = None
    closes: bool = False
    kind: str = ""


Maker = Callable[[random.Random, int], Ask]  # the number counts the requests of that kind


def _form(data: bytes) -> bytes:
    return b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n%b\r\n--edge--\r\n' % data


def _sized(*sizes: tuple[int, int]) -> list[bytes]:
    kinds = ("JPEG", "PNG", "WEBP")
    return [encode(photo(*size, seed=seed), kind) for seed, size in enumerate(sizes) for kind in kinds]


def _huge(kind: str) -> bytes:
    """Return a photo of 20 megapixels whose file is below the limit: each pixel of a small one, a hundred times."""
    return encode(photo(500, 400).resize((5000, 4000), Image.Resampling.NEAREST), kind)


def _post(path: str, status: int, error: str | None = None, **options: Any) -> Ask:
    return Ask("POST", path, status, error, options)


def _in_turn(*asks: Ask) -> Maker:
    return lambda _, turn: asks[turn % len(asks)]


def _photo(
    photos: list[bytes], path: str = "/predict", slow: tuple[float, float] = (0, 0), leaves: str | None = None
) -> Maker:
    def make(chance: random.Random, _: int) -> Ask:
        files = {"file": chance.choice(photos)}
        seconds, closes = chance.uniform(*slow), chance.random() < 0.1
        return replace(_post(path, 200, files=files), seconds=seconds, leaves=leaves, closes=closes)

    return make


def _batch(chance: random.Random, _: int) -> Ask:
    files, errors = [], []
    for place in range(chance.randint(1, 20)):
        bad = chance.random() < 0.15
        data, _, error = BAD[chance.choice(list(BAD))] if bad else (chance.choice(SMALL), 200, None)
        files.append(("files", (f"{place}.jpg", data)))
        errors.append(error)
    return replace(_post("/predict/batch", 200, files=files), photos=errors)


def _stranger(key: str) -> Maker:
    asks = (_post("/predict", 401, files={"file": JPEG}), *(Ask("GET", path, 401) for path in ("/model", "/nothing")))
    return _in_turn(*(replace(ask, options=ask.options | {"headers": {"X-API-Key": key}}) for ask in asks))


def _feedback(request_id: str, label: str, status: int) -> Ask:
    return _post("/feedback", status, json={"request_id": request_id, "label": label})


SMALL = [*GOOD.values(), *_sized((32, 32), (32, 32), (48, 48), (100, 75), (224, 224), (320, 480), (640, 480))]
LARGE = _sized((800, 800), (1500, 1000), (1024, 1500))
HUGE = [_huge("JPEG"), _huge("PNG"), _huge("WEBP")]
JPEG = GOOD["jpeg"]
BODIES = (
    _post("/predict", 422),
    _post("/predict", 422, files={"photo": JPEG}),
    _post("/predict", 422, files=[("file", JPEG), ("file", JPEG)]),
    _post("/predict", 422, files={"file": (None, "http://127.0.0.1:9/a.jpg")}),
    _post("/predict", 422, data={"file": "http://127.0.0.1:9/a.jpg"}),
    _post("/predict", 422, content=b"x", headers={"Content-Type": "multipart/form-data"}),
    _post("/predict", 422, content=b"nothing of the sort", headers=FORM),
    _post("/predict", 422, content=_form(JPEG)[:200], headers=FORM),
    _post("/predict", 415, json={"file": "x"}),
    _post("/predict", 415, content=b"x", headers={"Content-Type": "application/vnd.bentoml+pickle"}),
    _post("/predict", 415, content=JPEG, headers={"Content-Type": "image/jpeg"}),
    _post("/predict", 415, files={"file": JPEG}, headers={"Content-Encoding": "gzip"}),
    _post("/predict/batch", 422, files=[("files", JPEG)] * 21),
)
TOO_LARGE = (
    _post("/predict", 413, "file_too_large", content=_form(b"0" * (10 * MIB + 1)), headers=FORM),
    _post("/predict/explain", 413, "content_too_large", content=_form(b"0" * (11 * MIB)), headers=FORM),
    _post("/predict", 413, "content_too_large", content=12, headers=FORM),  # MiB, in chunks, without a length
    _post("/predict/batch", 413, "content_too_large", content=54, headers=FORM),
)
VERDICTS = (
    _post("/feedback", 422, content=b"{", headers={"Content-Type": "application/json"}),
    _post("/feedback", 422, json={}),
    _post("/feedback", 415, data={"request_id": "a", "label": "real"}),
    _feedback("a b", "real", 422),
    _feedback("a", "maybe", 422),
)
PATHS = (("GET", "/nothing"), ("POST", "/predict/nothing"), ("GET", "/.env"), ("GET", "/wp-login.php?a=1"))
METHODS = (("GET", "/predict"), ("PUT", "/predict/batch"), ("POST", "/health"), ("DELETE", "/metrics"))
# kind -> how many of it are in every 500 requests, so that any stretch of the run has the same mix; what makes one
MIX: dict[str, tuple[int, Maker]] = {
    "photo": (212, _photo(SMALL)),
    "large photo": (20, _photo(LARGE)),
    "20 megapixels": (2, _photo(HUGE)),
    "batch": (25, _batch),
    "explain": (22, _photo(SMALL + LARGE, "/predict/explain")),
    "slow": (12, _photo(SMALL, slow=(2, 6))),
    "leaves in the head": (3, _photo(SMALL, leaves="head")),
    "leaves in the body": (12, _photo(SMALL, slow=(1, 5), leaves="body")),
    "leaves after sending": (12, _photo(SMALL, leaves="close")),
    "resets after sending": (12, _photo(SMALL, leaves="reset")),
    "bad photo": (
        26,
        _in_turn(*[_post("/predict", s, error, files={"file": data}) for data, s, error in BAD.values()]),
    ),
    "bad body": (20, _in_turn(*BODIES)),
    "body too large": (2, _in_turn(*TOO_LARGE)),
    "feedback": (30, _in_turn(Ask("POST", "/feedback"))),  # on an earlier answer, which is known only then
    "feedback, unknown": (3, _in_turn(_feedback("never", "real", 404))),
    "feedback, bad": (6, _in_turn(*VERDICTS)),
    "/health": (14, _in_turn(Ask("GET", "/health"))),
    "/metrics": (8, _in_turn(Ask("GET", "/metrics"))),
    "/drift": (6, _in_turn(Ask("GET", "/drift"))),
    "/model": (8, _in_turn(Ask("GET", "/model"))),
    "/readyz, /docs": (5, _in_turn(*(Ask("GET", path) for path in ("/readyz", "/docs", "/openapi.json")))),
    "wrong key": (10, _stranger("wrong")),
    "no key": (6, _stranger("")),
    "unknown path": (12, _in_turn(*(Ask(*path, 404, "not_found") for path in PATHS))),
    "wrong method": (12, _in_turn(*(Ask(*method, 405, "method_not_allowed") for method in METHODS))),
}


def mix(requests: int, seed: int) -> Iterator[Ask]:
    """Return the requests of a run: the same for the same seed.

    It begins with the most that a worker ever has in hand at once. Without that, chance brings it about some time
    later, and the memory that it takes for good would look like growth.
    """
    files = [("files", (f"{place}.jpg", LARGE[0])) for place in range(20)]
    full = replace(_post("/predict/batch", 200, files=files), photos=[None] * 20, closes=True, kind="batch")
    huge = replace(_post("/predict", 200, files={"file": HUGE[1]}), closes=True, kind="20 megapixels")
    first = [one for one in (full, huge) * 3 for _ in range(CLIENTS)]
    yield from first[:requests]
    chance = random.Random(seed)  # noqa: S311 - no secret
    turns = {kind: itertools.count() for kind in MIX}
    left = requests - len(first)
    while left > 0:
        block = [kind for kind, (share, _) in MIX.items() for _ in range(share)]
        chance.shuffle(block)
        for kind in block[:left]:
            yield replace(MIX[kind][1](chance, next(turns[kind])), kind=kind)
        left -= len(block)


# Who asks


@dataclass
class Seen:
    """What the clients saw, and what must therefore be in the service's log and output.

    Attributes:
        counts: (kind, status or `left`) -> requests.
        faults: what was wrong, in words.
        rows: request id of an answered photo -> its rows in the log.
        verdicts: request id of a photo -> rows of feedback on it.
        lines: request id -> the status in its line of the output; None: any.
        left: request ids whose photos may have a row or not: their clients left.
        reset: request ids that may have a line or not: a reset may have overtaken what was sent.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    lines: dict[str, int | None] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    reset: set[str] = field(default_factory=set)


class Clients:
    """Everybody who asks."""

    def __init__(self, server: Server, requests: int, seed: int) -> None:
        self.seen = Seen()
        self.memory: dict[int, list[tuple[float, int]]] = defaultdict(list)  # process -> (part of the run, bytes)
        self.seconds = 0.0
        self._server = server
        self._asks = enumerate(mix(requests, seed))
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._requests = requests
        self._bar = tqdm(total=requests, unit=" requests", mininterval=1)
        address = urlsplit(server.url)
        self._address = address.hostname, address.port

    async def run(self) -> None:
        """Send all requests, and wait until the service is done with all of them."""
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2)  # the service hangs up after 5 s
        started = time.monotonic()
        sampling = asyncio.create_task(self._sample())
        async with httpx.AsyncClient(base_url=self._server.url, timeout=100, limits=limits) as http:
            async with asyncio.TaskGroup() as group:
                for _ in range(CLIENTS):
                    group.create_task(self._client(http, group))
            self.seconds = time.monotonic() - started
            sampling.cancel()
            await self._settle(http)
        await self._hang_up()
        self._bar.close()

    async def _sample(self) -> None:
        workers = [psutil.Process(pid) for pid in self._server.workers()]
        while True:
            for worker in workers:
                with contextlib.suppress(psutil.Error):  # a dead worker is found out in the end
                    self.memory[worker.pid].append((self._bar.n / self._requests, worker.memory_info().rss))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _client(self, http: httpx.AsyncClient, group: asyncio.TaskGroup) -> None:
        for number, ask in self._asks:
            work = self._leave(number, ask) if ask.leaves else self._ask(http, number, ask)
            if ask.seconds:  # slow ones keep nobody else from asking
                group.create_task(work)
            else:
                await work

    async def _ask(self, http: httpx.AsyncClient, number: int, ask: Ask) -> None:
        if ask.kind == "feedback":
            known = list(self.seen.rows)
            ask = replace(_feedback(self._chance.choice(known), "real", 200) if known else BODIES[0], kind=ask.kind)
        options = dict(ask.options)
        headers = {"X-API-Key": KEY} | options.pop("headers", {})
        if number % 4:  # every fourth client leaves the naming to the service
            headers["X-Request-ID"] = f"soak-{number}"
        if ask.closes:
            headers["Connection"] = "close"
        if ask.seconds:
            body = _form(options.pop("files")["file"])
            headers |= FORM | {"Content-Length": str(len(body))}
            options["content"] = _trickle(body, ask.seconds)
        elif isinstance(options.get("content"), int):
            options["content"] = _endless(options["content"])
        try:
            answer = await http.request(ask.method, ask.path, headers=headers, **options)
        except httpx.TransportError as error:
            self._fault(number, ask, f"no answer: {error!r}")
            self._count(ask, "no answer")
            self.seen.left.add(f"soak-{number}")  # said once; its row and its line are not counted as further faults
            self.seen.reset.add(f"soak-{number}")
            return
        self._count(ask, str(answer.status_code))
        try:
            for words in self._faults(ask, answer, headers.get("X-Request-ID")):
                self._fault(number, ask, f"{words}: {answer.text[:500]}")
        except (LookupError, TypeError, ValueError) as error:
            self._fault(number, ask, f"{error!r}: {answer.status_code} {answer.text[:500]}")

    def _faults(self, ask: Ask, answer: httpx.Response, sent: str | None) -> Iterator[str]:
        """Say what is wrong with an answer; remember what must be in the log for it."""
        status, request_id = answer.status_code, answer.headers.get("X-Request-ID", "")
        self.seen.lines[request_id] = status
        shed = status == 503 and "Retry-After" in answer.headers
        if not request_id or sent not in (None, request_id):
            yield f"X-Request-ID is {request_id!r}, sent was {sent!r}"
        if status != ask.status and not shed:
            yield f"{status} instead of {ask.status}"
        body = answer.json() if answer.headers["Content-Type"] == "application/json" else {}
        if status >= 400:
            side = "server_error" if status >= 500 else "client_error"
            said = body["status_code"], body["error_class"], body["request_id"]
            if set(body) != SHAPE or said != (status, side, request_id) or not body["detail"]:
                yield "an error of another shape"
            if ask.error not in (None, body["error"]) and not shed:
                yield f"the error is not {ask.error}"
        elif ask.path == "/feedback":
            self.seen.verdicts[body["prediction_id"]] += 1
        elif ask.path == "/predict/batch":
            if [item["error_type"] for item in body["results"]] != ask.photos:
                yield f"the photos' errors are not {ask.photos}"
            self.seen.rows.update(item["request_id"] for item in body["results"] if item["error"] is None)
        elif ask.path.startswith("/predict"):
            self.seen.rows[body["request_id"]] += 1

    async def _leave(self, number: int, ask: Ask) -> None:
        """Ask by hand and leave, as no client library would."""
        request_id, body = f"soak-{number}", _form(ask.options["files"]["file"])
        head = (
            f"POST {ask.path} HTTP/1.1\r\nHost: soak\r\nX-Request-ID: {request_id}\r\nX-API-Key: {KEY}\r\n"
            f"Content-Type: {FORM['Content-Type']}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        _, writer = await asyncio.open_connection(*self._address)
        if ask.leaves != "close":  # what ends the connection is a reset
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if ask.leaves == "head":
            writer.write(head[: len(head) // 2])
        elif ask.leaves == "body":
            self.seen.lines[request_id] = 499
            writer.write(head)
            async for part in _trickle(body[: len(body) // 2], ask.seconds):
                writer.write(part)
        else:
            self.seen.left.add(request_id)
            if ask.leaves == "close":
                self.seen.lines[request_id] = None
            else:
                self.seen.reset.add(request_id)
            writer.write(head + body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if ask.leaves == "close":
                writer.close()  # sends what is left first
            else:
                writer.transport.abort()
            await writer.wait_closed()
        self._count(ask, "left")

    async def _settle(self, http: httpx.AsyncClient) -> None:
        """Wait until the service is done with those who left."""
        text = ""
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                text = (await http.get("/health", headers={"X-API-Key": KEY, "X-Request-ID": "settle"})).text
                if '"active_requests":1,' in text:
                    return
            await asyncio.sleep(0.1)
        self.seen.faults.append(f"10 s after the last answer there are still requests to be answered: {text}")

    async def _hang_up(self) -> None:
        """Wait until the service has closed what all of us have closed."""
        for _ in range(50):
            workers = [psutil.Process(pid) for pid in self._server.workers()]
            left = [each for worker in workers for each in worker.net_connections("tcp") if each.raddr]
            if not left:
                return
            await asyncio.sleep(0.1)
        self.seen.faults.append(f"{len(left)} connections are still open 5 s after the last client closed its own")

    def _count(self, ask: Ask, status: str) -> None:
        self.seen.counts[ask.kind, status] += 1
        self._bar.update()

    def _fault(self, number: int, ask: Ask, words: str) -> None:
        self.seen.faults.append(f"request {number} ({ask.kind}, {ask.method} {ask.path}): {words}")


async def _endless(mebibytes: int) -> AsyncIterator[bytes]:
    yield _form(b"").partition(b"\r\n--edge--")[0]
    for _ in range(mebibytes):
        yield b"0" * MIB


async def _trickle(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    step = len(body) // 10 + 1
    for start in range(0, len(body), step):
        yield body[start : start + step]
        await asyncio.sleep(seconds / 10)


# What it did


def memory(samples: list[tuple[float, int]]) -> dict[str, Any]:
    """Return a worker's memory in MiB before, after and in every twentieth of the run, and how much its median grew."""

    def during(low: float, high: float) -> list[float]:
        return [rss / MIB for part, rss in samples if low <= part <= high] or [0.0]

    before, after = during(*BEFORE), during(*AFTER)
    return {
        "before_mib": round(statistics.median(before), 1),
        "after_mib": round(statistics.median(after), 1),
        "growth": round(statistics.median(after) / (statistics.median(before) or 1) - 1, 4),
        "mean_before_mib": round(statistics.mean(before), 1),
        "mean_after_mib": round(statistics.mean(after), 1),
        "most_mib": round(max(during(0, 1)), 1),
        "twentieths_mib": [round(statistics.median(during(part / 20, (part + 1) / 20))) for part in range(20)],
    }


def rows_of(database: Path, table: str) -> Counter[str]:
    """Return how many rows of a table of the prediction log each request id has."""
    connection = sqlite3.connect(database)
    query = f"SELECT request_id, count(*) FROM {table} GROUP BY request_id"  # noqa: S608 - our own names
    found = Counter(dict(connection.execute(query).fetchall()))
    connection.close()
    return found


def compare(what: str, expected: Counter[str], found: Counter[str], perhaps: Iterable[str] = ()) -> list[str]:
    """Say for which request ids something is missing, or there without reason; one of each in `perhaps` may be."""
    sides = {"missing": expected - found, "too many": found - expected - Counter(perhaps)}
    return [
        f"{what}: {sum(wrong.values())} {word}, such as of {', '.join(list(wrong)[:5])}"
        for word, wrong in sides.items()
        if wrong
    ]


def judge(clients: Clients, server: Server, database: Path, workers: list[int], survivors: list[int]) -> dict[str, Any]:
    """Compare what the clients saw with what the service kept and printed."""
    seen, printed, faults = clients.seen, server.printed(), list(clients.seen.faults)
    try:
        printed_lines = server.requests()
    except ValueError as error:
        printed_lines = []
        faults.append(f"a line of the output is not JSON: {error}")
    statuses = {line["request_id"]: line["status"] for line in printed_lines}
    lines = Counter(line["request_id"] for line in printed_lines)  # those of the start and the end have other ids
    lines = Counter({one: count for one, count in lines.items() if one in seen.lines or one.startswith("soak-")})
    rows, verdicts = rows_of(database, "predictions"), rows_of(database, "feedback")
    growth = {
        f"worker {place}": memory(clients.memory[pid]) for place, pid in enumerate(workers, 1) if pid in survivors
    }
    restarts = server.starts() - len(workers)
    shed = sum(count for (_, status), count in seen.counts.items() if status == "503") / seen.counts.total()

    faults += compare("rows of predictions", seen.rows, rows, seen.left)
    faults += compare("rows of feedback", seen.verdicts, verdicts)
    faults += compare("lines of requests", Counter(list(seen.lines)), lines, seen.reset)
    for one, status in seen.lines.items():
        if status is not None and statuses.get(one, status) != status:
            faults.append(f"the line of {one} says {statuses[one]}, its client saw {status}")
    if restarts or workers != survivors:
        faults.append(f"workers were restarted: {restarts} times, {workers} before, {survivors} after")
    if shed > MOST_SHED:
        faults.append(f"{shed:.1%} of the requests were refused as too busy")
    faults += [f"the output holds {word!r}" for word in ("traceback", "exception") if word in printed.lower()]
    faults += [
        f"the memory of {worker} grew by {found['growth']:.1%}, less than {MOST_GROWTH:.0%} is allowed"
        for worker, found in growth.items()
        if found["growth"] >= MOST_GROWTH
    ]

    def share(expected: Iterable[str], found: Counter[str]) -> dict[str, int]:
        wanted = Counter(list(expected))
        return {"expected": wanted.total(), "found": sum(found[one] for one in wanted)}

    kinds: dict[str, dict[str, int]] = {kind: {} for kind in MIX}
    for (kind, answer), count in sorted(seen.counts.items()):
        kinds[kind][answer] = count
    return {
        "kinds": kinds,
        "memory": growth,
        "kept": {
            "rows of predictions": share(seen.rows.elements(), rows),
            "rows of predictions, client left": share(seen.left, rows) | {"or_fewer": True},
            "rows of feedback": share(seen.verdicts.elements(), verdicts),
            "lines of requests": share(seen.lines, lines),
            "lines of requests, client reset": share(seen.reset, lines) | {"or_fewer": True},
        },
        "worker_restarts": restarts,
        "faults": faults[:100],
    }


def show(report: dict[str, Any]) -> None:
    """Print a report for people."""
    print(f"\n{'kind':<22} {'requests':>8}  answers")
    for kind, counts in report["kinds"].items():
        print(f"{kind:<22} {sum(counts.values()):>8}  {', '.join(f'{s}: {n}' for s, n in counts.items())}")
    print(f"\n{'memory, MiB (mean)':<22} {'20-30 %':>16} {'90-100 %':>16} {'growth':>8} {'most':>8}")
    for worker, found in report["memory"].items():
        before, after = (f"{found[f'{when}_mib']} ({found[f'mean_{when}_mib']})" for when in ("before", "after"))
        print(f"{worker:<22} {before:>16} {after:>16} {found['growth']:>8.1%} {found['most_mib']:>8}")
    print(f"\n{'kept and printed':<34} {'expected':>9} {'found':>8}")
    for what, found in report["kept"].items():
        expected = f"{'0-' if 'or_fewer' in found else ''}{found['expected']}"
        print(f"{what:<34} {expected:>9} {found['found']:>8}")
    print(f"\n{report['requests']} requests in {report['seconds']} s, {report['worker_restarts']} worker restarts")
    for fault in report["faults"][:20]:
        print(f"BROKEN: {fault}")
    print("every condition holds" if not report["faults"] else f"{len(report['faults'])} conditions do not hold")


def main() -> None:
    """Run, print a table and a verdict, write the report; exit 1 where a condition does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path, default=ROOT / "reports" / "soak.json")
    options = parser.parse_args()
    settings = {"API_KEYS": f"soak:{KEY}", "WORKERS": "2", "RATE_LIMITS": "false", "OMP_WAIT_POLICY": "PASSIVE"}
    settings["MONITOR"] = "true"
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        with serving(folder, is_ready, **settings) as server:
            workers = server.workers()
            clients = Clients(server, options.requests, options.seed)
            asyncio.run(clients.run())
            survivors = server.workers()
        found = judge(clients, server, folder / "predictions.db", workers, survivors)
    report = {
        "requests": options.requests,
        "seed": options.seed,
        "seconds": round(clients.seconds, 1),
        **found,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    show(report)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if report["faults"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
