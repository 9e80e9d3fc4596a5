"""Schemathesis asks the real service whatever its OpenAPI schema allows and forbids, with all its checks on.

The command imports this module for its hooks, too: photos that are really photos where the schema wants some.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import strategies as st

from tests.support.photos import GOOD, encode, photo
from tests.support.server import ROOT, Server, is_ready, serving

MAX_EXAMPLES = 50  # of each operation in the fuzzing phase, and of chains of operations in the stateful one
KEY = "a-key-for-schemathesis"
CHECKS = {
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance"),
    *("response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "missing_required_header"),
    *("unsupported_method", "allow_header_conformance", "use_after_free", "ensure_resource_availability"),
    *("ignored_auth", "object_level_authorization"),
}
CONFIG = """
# Stricter than the tool's own lists, which let 404, 429 and every 5xx pass.
[checks]
positive_data_acceptance.expected-statuses = ["200"]
negative_data_rejection.expected-statuses = ["405", "413", "415", "422"]
"""


# Whatever a form sends for a name is a name, and one that nobody knows.
_OF_A_FORM = 'checks.negative_data_rejection.expected-statuses = ["404", "405", "413", "415", "422"]'


def config(schema: dict[str, Any]) -> str:
    """Return the tool's settings: a made-up id or name may be unknown, and a made-up text no time."""
    parts = [CONFIG]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            queried = any(parameter["in"] == "query" for parameter in operation.get("parameters", []))
            expected = ["200", *(["404"] if "404" in operation["responses"] else []), *(["422"] if queried else [])]
            if len(expected) > 1:
                parts.append(f'[[operations]]\ninclude-name = "{method.upper()} {path}"')
                parts.append(f"checks.positive_data_acceptance.expected-statuses = {json.dumps(expected)}")
                if "404" in expected and "multipart/form-data" in operation.get("requestBody", {}).get("content", {}):
                    parts.append(_OF_A_FORM)
                parts += ["warnings = false"] if method == "get" else []
    return "\n".join(parts)


def photos(kind: str) -> st.SearchStrategy[bytes]:
    """Draw files of this kind that are good photos."""
    return st.builds(
        lambda width, height, seed: encode(photo(width, height, seed), kind),
        st.integers(16, 80),
        st.integers(16, 80),
        st.integers(0, 9),
    ) | st.just(GOOD[kind.lower()])


for _kind in ("JPEG", "PNG", "WEBP"):
    schemathesis.openapi.media_type(f"image/{_kind.lower()}", photos(_kind))


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """Make a batch of the one photo that the tool puts where the schema wants an array of them."""
    files = case.body.get("files") if isinstance(case.body, dict) else None
    if isinstance(files, bytes):
        case.body["files"] = [files] * (1 + len(files) % 20)
    return case


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str], record_property: Callable[..., None]) -> Callable[..., Any]:
    """Runs Schemathesis on a service; returns how often each check passed, and what was answered."""

    def run(server: Server, *options: str) -> tuple[Counter[str], Counter[tuple[str, str, int]]]:
        schema = httpx.get(f"{server.url}/openapi.json", headers={"X-API-Key": KEY}).json()
        (tmp_path / "schemathesis.toml").write_text(config(schema))
        report = tmp_path / "report.ndjson"
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", *options),
                *("--checks", "all", "--max-examples", str(MAX_EXAMPLES), "--seed", "1"),
                # One thread alone: Python 3.11's compiler counts its depth wrongly in several (python/cpython#106905).
                *("--workers", "1"),
                *("--generation-database", "none", "--report-ndjson-path", str(report), "--no-color"),
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": __name__, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "warning" not in ran.stdout.lower(), ran.stdout
        passed, answered = count(report)
        line = f"{sum(answered.values())} cases; passed: {dict(sorted(passed.items()))}"
        record_property("schemathesis", line)
        with capsys.disabled():
            print(f"\nschemathesis: {line}")
        return passed, answered

    return run


def count(report: Path) -> tuple[Counter[str], Counter[tuple[str, str, int]]]:
    """Count the checks that passed by name, and the cases by path, mode and the status of their answer."""
    passed: Counter[str] = Counter()
    answered: Counter[tuple[str, str, int]] = Counter()
    for line in report.read_text(encoding="utf-8").splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for checks in recorder.get("checks", {}).values():
            passed.update(check["name"] for check in checks if check["status"] == "success")
        for name, case in recorder.get("cases", {}).items():
            value, response = case["value"], recorder["interactions"][name]["response"]
            answered[value["path"], value["meta"]["generation"]["mode"], response["status_code"]] += 1
    return passed, answered


@pytest.mark.serve
@pytest.mark.slow
def test_the_service_is_what_its_schema_says(server: Server, ask: Callable[..., Any]) -> None:
    passed, answered = ask(server)
    assert set(passed) >= CHECKS
    for path in ("/predict", "/predict/batch", "/predict/explain", "/feedback"):  # none of it in vain
        assert answered[path, "positive", 200] > 5
        assert answered[path, "negative", 422] > 5


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with a key."""
    settings = {"API_KEYS": f"tester:{KEY}", "MONITOR": "true"}
    with serving(tmp_path_factory.mktemp("guarded"), is_ready, **settings) as server:
        yield server


@pytest.mark.serve
@pytest.mark.slow
def test_with_keys_every_operation_asks_for_one_as_its_schema_says(guarded: Server, ask: Callable[..., Any]) -> None:
    # One request of each kind is enough, for what is new is whether a key is asked for. The warning that is off says
    # that without chains of requests no feedback finds its prediction.
    options = ("--phases", "examples,coverage", "--warnings", "off", "--header", f"X-API-Key: {KEY}")
    passed, answered = ask(guarded, *options)
    assert set(passed) >= CHECKS
    assert answered["/predict", "positive", 200]
    assert KEY not in guarded.printed()
