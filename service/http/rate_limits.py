"""Rate limits, counted by the package `limits` for all workers together."""

import asyncio
import ipaddress
import logging
import math
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from limits import RateLimitItem, parse
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string
from starlette.types import ASGIApp, Receive, Scope, Send

from service import metrics
from service.http.errors import ApiError
from service.http.routing import Route, RouteTable
from service.settings import Settings
from service.sqlite import one_at_a_time, use_write_ahead_log

logger = logging.getLogger(__name__)

_REDIS_SECONDS = 0.5  # how long a request may wait for Redis
_LOCK_SECONDS = 0.25  # how long a request may wait while another worker writes
_RETRY_SECONDS = 0.005
_PAUSE_SECONDS = 5.0  # after a failure, how long the storage is not asked


class RateLimitMiddleware:
    """Pure ASGI middleware: 429 with `Retry-After` to a client that asks too often.

    A client is known by the name of its API key, or else by its address. For IPv6 that is the network of 64 bits,
    because one household or server has a whole one. While the storage fails, no client is limited.
    """

    def __init__(self, app: ASGIApp, settings: Settings, routes: RouteTable) -> None:
        self.app = app
        rates = ((route, route.rules.rate_limit(settings)) for route in routes if route.rules.rate_limit)
        self._limits = {route: parse(rate) for route, rate in rates if rate}
        self._counter = FixedWindowRateLimiter(_storage(settings.rate_limit_url))
        self._paused_until = float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        route: Route | None = scope["state"]["route"] if scope["type"] == "http" else None
        limit = self._limits.get(route) if route else None
        if route and limit and (seconds := await self._seconds_to_wait(limit, _client(scope), route.endpoint)):
            metrics.RATE_LIMITED.labels(route.endpoint).inc()
            raise ApiError(
                429,
                "rate_limit_exceeded",
                f"the limit is {limit} for {route.endpoint}; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
        await self.app(scope, receive, send)

    async def _seconds_to_wait(self, limit: RateLimitItem, *identity: str) -> int | None:
        if time.monotonic() < self._paused_until:
            return None
        try:
            if await self._counter.hit(limit, *identity):
                return None
            window = await self._counter.get_window_stats(limit, *identity)
        except StorageError as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            metrics.RATE_LIMIT_ERRORS.inc()
            logger.warning("rate limits cannot be counted, nobody is limited: %s", type(error.storage_error).__name__)
            return None
        return max(1, math.ceil(window.reset_time - time.time()))


class SqliteStorage(Storage):
    """Counts in an SQLite file that the workers of one machine share; each start of the service begins anew.

    The memory storage of `limits` counts for one process only, so two workers would allow twice the rate.
    SQLite never waits for a lock here, because that would block the event loop: each call tries again instead.
    """

    STORAGE_SCHEME = None

    def __init__(self) -> None:
        super().__init__(wrap_exceptions=True)
        # BentoML's own folder of shared metrics: the same for all workers, and emptied at every start.
        folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or tempfile.mkdtemp(prefix="aidetect-")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(
            Path(folder) / "rate-limits.sqlite",
            timeout=_LOCK_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # the event loop's thread may be another one than this
        )
        with one_at_a_time(Path(folder) / "rate-limits.lock"):
            # No power cut matters here, and with a write-ahead log the kill of a worker does not, either.
            use_write_ahead_log(self._database, _LOCK_SECONDS)
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS counts (key TEXT PRIMARY KEY, count INTEGER, expires REAL) WITHOUT ROWID"
            )
        self._database.execute("PRAGMA busy_timeout = 0")
        self._swept = time.time()

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.time()
        if now - self._swept > 60:
            self._swept = now
            await self._run("DELETE FROM counts WHERE expires <= :now", now=now)
        [row] = await self._run(
            "INSERT INTO counts VALUES (:key, :amount, :expires) ON CONFLICT (key) DO UPDATE SET "
            "count = CASE WHEN expires <= :now THEN :amount ELSE count + :amount END, "
            "expires = CASE WHEN expires <= :now THEN :expires ELSE expires END RETURNING count",
            key=key,
            amount=amount,
            expires=now + expiry,
            now=now,
        )
        return int(row[0])

    async def get(self, key: str) -> int:
        return int((await self._row(key))[0])

    async def get_expiry(self, key: str) -> float:
        return float((await self._row(key))[1])

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return len(await self._run("DELETE FROM counts RETURNING key"))

    async def clear(self, key: str) -> None:
        await self._run("DELETE FROM counts WHERE key = :key", key=key)

    async def _row(self, key: str) -> tuple[int, float]:
        now = time.time()
        rows = await self._run(
            "SELECT count, expires FROM counts WHERE key = :key AND expires > :now", key=key, now=now
        )
        return rows[0] if rows else (0, now)

    async def _run(self, statement: str, **values: object) -> list[Any]:
        """Run one statement and return its rows; while another process writes, the event loop goes on.

        Raises:
            sqlite3.Error: it fails, or the other process holds its lock for too long.
        """
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                return self._database.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                # The low byte is the kind. A statement that met a lock has changed nothing: it may run again.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)


def _storage(url: str) -> Storage:
    if url == "memory://":
        return SqliteStorage()
    storage = storage_from_string(
        f"async+{url}",
        implementation="redispy",
        wrap_exceptions=True,
        socket_timeout=_REDIS_SECONDS,
        socket_connect_timeout=_REDIS_SECONDS,
    )
    assert isinstance(storage, Storage)  # noqa: S101 - for mypy: "async+" asks for it
    return storage


def _client(scope: Scope) -> str:
    if (key := scope["state"].get("api_key")) is not None:
        return f"key:{key}"
    host = scope["client"][0] if scope.get("client") else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"address:{host}"
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or ipaddress.ip_network((address, 64), strict=False).network_address
    return f"address:{address}"
