"""What a route states of itself is what middleware goes by."""

import pytest
from fastapi import FastAPI

from service.http.app import create_app
from service.http.routing import PROBES, Route, RouteTable, Rules, rules
from service.settings import Settings


@pytest.fixture(scope="module")
def table() -> RouteTable:
    """The service's own routes."""
    return RouteTable(create_app(Settings()).routes)


def test_a_body_without_a_limit_ends_the_start() -> None:
    app = FastAPI()

    @app.post("/catalogue")
    async def catalogue() -> None: ...

    with pytest.raises(ValueError, match=r"POST /catalogue states no size limit .* @rules\(max_body="):
        RouteTable(app.routes)


def test_the_rules_beside_a_function_are_found_by_method_and_path() -> None:
    app = FastAPI()

    @app.put("/catalogue/{name}")
    @rules(max_body=lambda settings: settings.max_file_bytes, rate_limit=lambda settings: settings.rate_limit_batch)
    async def catalogue(name: str) -> None: ...

    found = RouteTable(app.routes).find("PUT", "/catalogue/shoes")
    settings = Settings(max_file_bytes=7, rate_limit_batch="1/minute")
    assert found.endpoint == "/catalogue/{name}"
    assert found.rules.max_body
    assert found.rules.max_body(settings) == 7
    assert found.rules.rate_limit
    assert found.rules.rate_limit(settings) == "1/minute"
    assert found.rules.needs_key


@pytest.mark.parametrize(
    ("method", "path", "endpoint"),
    [
        ("POST", "/predict", "/predict"),
        ("GET", "/predictions/01M81YWJSJ51VK5SBFRPYH2ZSF:3", "/predictions/{prediction_id}"),
        ("GET", "/model/plots/roc.png", "/model/plots/{name}"),
        ("GET", "/static_content/fonts/a.woff", "/static_content/{path:path}"),
        ("HEAD", "/livez", "/livez"),
        ("GET", "/openapi.json", "/openapi.json"),
    ],
)
def test_a_request_finds_its_route(table: RouteTable, method: str, path: str, endpoint: str) -> None:
    found = table.find(method, path)
    assert found.endpoint == endpoint
    assert method in found.methods


@pytest.mark.parametrize(
    "path", ["/predict/", "/predict/x", "//livez", "/LIVEZ", "/model/plots/a/b", "/predictions", ""]
)
def test_no_other_path_has_a_label_or_rules(table: RouteTable, path: str) -> None:
    assert table.find("GET", path) == Route(frozenset(), "other")


def test_another_method_has_the_paths_label_and_none_of_its_rules(table: RouteTable) -> None:
    assert table.find("PUT", "/predict") == Route(frozenset(), "/predict")
    assert table.find("POST", "/livez").rules.needs_key


def test_probes_alone_are_open(table: RouteTable) -> None:
    assert {route.endpoint for route in table if not route.rules.needs_key} == set(PROBES)
    assert set(PROBES) == {"/livez", "/healthz", "/readyz"}
    assert Rules().needs_key
