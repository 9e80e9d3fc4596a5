"""Which routes there are, and the rules that each one states.

A route states its rules next to its function, and nowhere else:

    @router.post("/predict")
    @rules(max_body=one_photo, rate_limit=lambda settings: settings.rate_limit_predict)
    async def predict(...): ...

Middleware runs before routing, so it asks the `RouteTable`, which is made from the application's own routes.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, compile_path

from service.settings import FORM_OVERHEAD, Settings

OTHER = "other"  # the endpoint of a request that no route answers

PROBES = {  # BentoML answers them
    "/livez": "The process lives",
    "/healthz": "The process lives",
    "/readyz": "The model is loaded and requests are welcome",
}

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_JSON_BYTES = 64 * 1024


@dataclass(frozen=True)
class Rules:
    """What holds for a route before its function is called.

    Attributes:
        max_body: returns the size limit of the body, in bytes; None: the route reads no body.
        rate_limit: returns how often one client may ask, such as `30/minute`; None or an empty text: no limit.
        needs_key: whether a client must send an API key, where the service has keys.
    """

    max_body: Callable[[Settings], int] | None = None
    rate_limit: Callable[[Settings], str] | None = None
    needs_key: bool = True


@dataclass(frozen=True)
class Route:
    """One route.

    Attributes:
        methods: HTTP methods that it answers.
        endpoint: its path as it was declared, such as `/model/plots/{name}`.
        rules: what it states.
    """

    methods: frozenset[str]
    endpoint: str
    rules: Rules = Rules()


_GET = frozenset({"GET", "HEAD"})
_BENTOML = [
    *(Route(_GET, path, Rules(needs_key=False)) for path in PROBES),
    Route(_GET, "/static_content/{path:path}"),
]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_STATED: dict[Callable[..., Any], Rules] = {}


def rules(
    max_body: Callable[[Settings], int] | None = None, rate_limit: Callable[[Settings], str] | None = None
) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that states the `Rules` of a route's function; it stands below the route's path."""

    def state(endpoint: Endpoint) -> Endpoint:
        _STATED[endpoint] = Rules(max_body, rate_limit)
        return endpoint

    return state


def one_photo(settings: Settings) -> int:
    """Return the size limit of a form with one photo, in bytes."""
    return settings.max_file_bytes + FORM_OVERHEAD


def many_photos(settings: Settings) -> int:
    """Return the size limit of a form with a batch of photos, in bytes."""
    return settings.max_batch_bytes + FORM_OVERHEAD


def small_json(settings: Settings) -> int:  # noqa: ARG001 - the same for all settings
    """Return the size limit of a body without photos, in bytes."""
    return _JSON_BYTES


class RouteTable:
    """All routes of the service, BentoML's included: iterate over them, or find the one of a request."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """Read the rules of the application's routes.

        Raises:
            ValueError: a route takes a body and states no limit for it.
        """
        own = [
            Route(frozenset(route.methods), route.path, _STATED.get(route.endpoint, Rules()))
            for route in iter_route_contexts(list(routes))
            if route.path and route.methods and route.endpoint
        ]
        for route in own:
            if route.methods & _WITH_BODY and route.rules.max_body is None:
                raise ValueError(
                    f"{'/'.join(sorted(route.methods))} {route.endpoint} states no size limit for its body: write "
                    "@rules(max_body=...) of service/http/routing.py below its path"
                )
        self._routes = [*own, *_BENTOML]
        self._by_path: dict[str, list[Route]] = {}
        for route in self._routes:
            self._by_path.setdefault(route.endpoint, []).append(route)
        self._templates = [(compile_path(path)[0], found) for path, found in self._by_path.items() if "{" in path]

    def __iter__(self) -> Iterator[Route]:
        """Iterate over all routes."""
        return iter(self._routes)

    def find(self, method: str, path: str) -> Route:
        """Return the route that answers a request.

        Where no route has this path, its endpoint is `other`; where none has this method, either, it has no rules.
        """
        found = self._by_path.get(path) or next((many for regex, many in self._templates if regex.match(path)), [])
        for route in found:
            if method in route.methods:
                return route
        return Route(frozenset(), found[0].endpoint if found else OTHER)
