"""REQUIRE_ALL turns skips into failures, but for tests that need ../shared where it is missing."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MODULE = """
import pytest

def test_passes(): pass
def test_no_tool(): pytest.skip("no podman here")
@pytest.mark.skipif(True, reason="no chromium here")
def test_no_chromium(): pass
@pytest.mark.xfail(strict=True)
def test_expected_failure(): assert False
def test_data(shared_dir): assert shared_dir.is_dir()
@pytest.mark.shared
def test_no_tool_for_data(shared_dir): pytest.skip("no podman here")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repo of its own in a folder of its own: <tmp>/repo/tests, with or without <tmp>/shared."""
    tests = pytester.mkdir("repo") / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    (tests / "test_it.py").write_text(MODULE)
    (tests / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module_anywhere')\n")
    (pytester.path / "repo" / "pytest.ini").write_text("[pytest]\nmarkers =\n    shared: x\n")
    return pytester


@pytest.mark.parametrize(
    ("require_all", "shared", "expected"),
    [
        ("", False, {"passed": 1, "skipped": 5, "xfailed": 1}),
        ("", True, {"passed": 2, "skipped": 4, "xfailed": 1}),
        ("0", True, {"passed": 2, "skipped": 4, "xfailed": 1}),
        ("1", False, {"passed": 1, "failed": 1, "errors": 2, "skipped": 2, "xfailed": 1}),
        ("1", True, {"passed": 2, "failed": 2, "errors": 2, "xfailed": 1}),
    ],
)
def test_require_all(
    project: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    require_all: str,
    shared: bool,
    expected: dict[str, int],
) -> None:
    monkeypatch.setenv("REQUIRE_ALL", require_all)
    if shared:
        project.mkdir("shared")
    result = project.runpytest_inprocess("--continue-on-collection-errors", "-p", "no:cacheprovider", "repo")
    assert result.parseoutcomes() == expected
    if require_all == "1":
        result.stdout.fnmatch_lines(["*REQUIRE_ALL is set*no podman here*"])
