"""What all tests share: REQUIRE_ALL, which lets no skip pass, the folder ../shared, and CIFAKE out of it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it: what a shell runs with `&` ignores it otherwise."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _require_all() -> bool:
    """REQUIRE_ALL=1 says: this machine is meant to have every tool, so a skip is a failure."""
    return os.environ.get("REQUIRE_ALL", "") not in ("", "0")


def _skip_to_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skipped report into a failed one that keeps the skip's reason."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"REQUIRE_ALL is set, so this skip is a failure. {reason}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "shared_dir" in getattr(item, "fixturenames", ()):
            item.add_marker("shared")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # Excused: an expected failure (it too reports "skipped") and a missing ../shared, which nothing installs.
    excused = hasattr(report, "wasxfail") or (item.get_closest_marker("shared") and not SHARED.is_dir())
    if report.skipped and _require_all() and not excused:
        _skip_to_failure(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, pytest.CollectReport]:
    """The same for a module that skips itself while it is imported (pytest.importorskip)."""
    report: pytest.CollectReport = yield
    if report.skipped and _require_all():
        _skip_to_failure(report)
    return report


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repo (large data); tests that use it get the marker `shared`."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared beside the repository, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def cifake(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the stages download and preprocess have run on the real CIFAKE with the repository's params."""
    folder = tmp_path_factory.mktemp("cifake")
    shutil.copy(REPO / "params.yaml", folder)
    environment = os.environ | {"PYTHONPATH": str(REPO), "CIFAKE_ARCHIVE": str(shared_dir / "data/cifake.tar.xz")}
    for stage in ("download", "preprocess"):
        subprocess.run([sys.executable, "-m", f"stages.{stage}", "cifake"], cwd=folder, env=environment, check=True)
    return folder
