"""API keys: how they are written, how they are asked for, and that nothing answers without one."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from service import metrics
from service.api_keys import find_key, parse_keys
from service.http.app import create_app
from service.http.routing import RouteTable
from service.settings import Settings, load_settings
from tests.support.http import in_process, is_error
from tests.support.server import ROOT

PLAIN, HASHED, FILED = "a-plain-key-of-the-shop", "a-key-known-by-its-hash", "a-key-in-a-file"


def hashed(key: str) -> str:
    """Return the entry that accepts a key by its hash."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def test_every_form_of_a_key_is_found_by_its_name() -> None:
    keys = parse_keys(["shop:plain", f"ops:{hashed('secret')}", "nameless", hashed("quiet"), "shop:next"])
    found = {key: find_key(keys, key.encode()) for key in ("plain", "secret", "nameless", "quiet", "next")}
    assert {key: value.name for key, value in found.items() if value} == {
        "plain": "shop",
        "secret": "ops",
        "nameless": "key-3",
        "quiet": "key-4",
        "next": "shop",
    }
    for wrong in (b"", b"Plain", b"plain ", b"shop:plain", hashed("secret").encode(), b"\xff"):
        assert find_key(keys, wrong) is None
    assert find_key((), b"") is None


@pytest.mark.parametrize(
    "entry", ["", "a:hush:c", "na me:hush", ":hush", "hush:", "x" * 41 + ":hush", "ops:sha256:12hush"]
)
def test_a_wrong_entry_is_refused_without_being_shown(entry: str) -> None:
    with pytest.raises(ValueError, match="key 1 is not") as caught:
        parse_keys([entry])
    assert "hush" not in str(caught.value)


def test_a_new_key_fits_its_entry() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "service.api_keys", "shop"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    key, entry = re.findall(r"  (\S+)$", made, re.MULTILINE)
    found = find_key(parse_keys([entry]), key.encode())
    assert found is not None
    assert found.name == "shop"
    assert len(key) >= 40


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The service with three keys and one page that may ask."""
    folder = tmp_path_factory.mktemp("guarded")
    file = folder / "keys"
    file.write_text(f"# who asks at night\nnight:{FILED}  # until spring\n\n")
    keys = {"api_keys": f"shop:{PLAIN}, ops:{hashed(HASHED)}", "api_keys_file": file, "require_auth": True}
    with in_process(folder, **keys, cors_origins="https://shop.example") as client:
        yield client


ROUTES = [
    (method, re.sub("{.*}", "a", route.endpoint))
    for route in RouteTable(create_app(Settings()).routes)
    for method in sorted(route.methods)
    if route.endpoint not in {"/livez", "/healthz", "/readyz"}
]
OTHERS = [  # unknown paths and methods, and ways of writing a path that might slip past
    *[("GET", path) for path in ("/docs.json", "/schema.json", "/nothing", "//livez", "/livez/", "/livez/../model")],
    *[("GET", path) for path in ("/%2e%2e/model", "/LIVEZ", "/model?path=/livez")],
    *[("DELETE", "/predict"), ("OPTIONS", "/predict"), ("HEAD", "/model"), ("POST", "/livez")],
]


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *OTHERS])
def test_no_route_answers_without_a_key(guarded: TestClient, method: str, path: str) -> None:
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic " + PLAIN}, {"X-API-Key": ""}):
        answer = guarded.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert method == "HEAD" or is_error(answer, 401, "unauthorized")


def test_probes_need_no_key(guarded: TestClient) -> None:
    for path in ("/livez", "/healthz", "/readyz"):
        assert guarded.get(path).status_code == 404  # BentoML answers them, and it is not here


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("shop", {"X-API-Key": PLAIN}),
        ("ops", {"X-API-Key": HASHED}),
        ("night", {"X-API-Key": FILED}),
        ("ops", {"Authorization": f"Bearer {HASHED}"}),
        ("shop", {"X-API-Key": PLAIN, "Authorization": "Bearer something-else"}),
    ],
)
def test_a_known_key_is_let_in_and_named(guarded: TestClient, name: str, headers: dict[str, str]) -> None:
    before = metrics.total("aidetect_api_key_requests_total", key=name)
    with capture_logs() as lines:
        assert guarded.get("/model", headers=headers).status_code == 200
    assert [line["key"] for line in lines] == [name]
    assert metrics.total("aidetect_api_key_requests_total", key=name) == before + 1


def test_refusals_are_counted_by_their_reason(guarded: TestClient) -> None:
    before = {reason: metrics.total("aidetect_auth_failures_total", reason=reason) for reason in ("missing", "wrong")}
    guarded.get("/model")
    guarded.get("/model", headers={"X-API-Key": "nobody's"})
    for reason, count in before.items():
        assert metrics.total("aidetect_auth_failures_total", reason=reason) == count + 1


def test_a_page_of_the_shop_may_ask_and_can_read_refusals(guarded: TestClient) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    wanted = {"Access-Control-Request-Headers": "x-api-key"}
    leave = guarded.options("/predict", headers=asked | wanted)
    assert leave.status_code == 200
    assert leave.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert "x-api-key" in leave.headers["Access-Control-Allow-Headers"].lower()
    refused = guarded.post("/predict", headers={"Origin": "https://shop.example"})
    assert is_error(refused, 401)
    assert refused.headers["Access-Control-Allow-Origin"] == "https://shop.example"
    stranger = guarded.options("/predict", headers=asked | {"Origin": "https://other.example"})
    assert is_error(stranger, 400)
    assert "Access-Control-Allow-Origin" not in stranger.headers


def test_no_key_is_ever_printed(guarded: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
    guarded.get(f"/model?key={PLAIN}", headers={"X-API-Key": PLAIN})
    printed = "".join(capfd.readouterr())
    assert "/model" in printed
    for secret in (PLAIN, HASHED, FILED, hashed(HASHED)[7:]):
        assert secret not in printed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"REQUIRE_AUTH": "true"}, "REQUIRE_AUTH is set, but neither"),
        ({"REQUIRE_AUTH": "true", "API_KEYS": " , "}, "REQUIRE_AUTH is set, but neither"),
        ({"API_KEYS": "shop:hush:hush"}, "key 1 is not"),
        ({"API_KEYS_FILE": "/no/such/file"}, "cannot be read"),
        ({"API_KEYS_FILE": "/dev/null"}, "holds no key"),
        ({"LOG_URL": "postgres://me:hush@host/db"}, "Can't load plugin"),
        ({"LOG_URL": "hush"}, "Could not parse"),
        ({"RATE_LIMIT_URL": "http://me:hush@host"}, "redis://host:port/db"),
        ({"RATE_LIMIT_PREDICT": "often"}, "couldn't parse"),
        ({"TRUSTED_PROXIES": "10.0.0.1,proxy"}, "'proxy' does not appear to be an IPv4 or IPv6 network"),
        ({"CORS_ORIGINS": "shop.example"}, "not an origin such as"),
        ({"MAX_IMAGES_IN_FLIGHT": "5"}, "MAX_BATCH_IMAGES"),
        ({"MAX_BUFFERED_BYTES": "1000"}, "must hold one batch"),
        ({"ALPHA": "2"}, "ALPHA=2"),
        ({"ALPHA": "none"}, "ALPHA=none"),
        ({"AI_PRIOR": "1"}, "AI_PRIOR=1"),
    ],
)
def test_a_wrong_setting_ends_the_start_with_one_line(
    settings: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load_settings()
    line = str(caught.value)
    assert line.startswith("error: ")
    assert says in line
    assert "hush" not in line
    assert "\n" not in line


def test_keys_of_the_environment_and_the_file_both_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("night:in-the-file\n")
    monkeypatch.setenv("API_KEYS", "shop:in-the-environment")
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "keys"))
    assert [key.name for key in Settings().accepted_keys()] == ["shop", "night"]
