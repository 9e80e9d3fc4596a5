"""Kept reports: of each check an HTML page and a JSON answer, in a folder or a bucket."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from fsspec.core import url_to_fs

from service.drift.store import write

_NAME = re.compile(r"\d{8}T\d{6}Z-(ok|drift|insufficient_data)")


class Reports:
    """What the monitor saw at its checks."""

    def __init__(self, url: str, retention_days: float) -> None:
        """Remember where they lie.

        Args:
            url: `DRIFT_URL`.
            retention_days: older ones are deleted when another is kept; 0 keeps them.
        """
        self._files, root = url_to_fs(url)
        self._folder = f"{root}/reports"
        self._retention_days = retention_days

    def keep(self, answer: dict[str, Any], page: str) -> str:
        """Write an answer, and its HTML page; return the name of both.

        Args:
            answer: fields of `schemas.DriftResponse`; `timestamp` and `status` give the name.
            page: HTML.
        """
        name = f"{answer['timestamp']:%Y%m%dT%H%M%SZ}-{answer['status']}"
        write(self._files, f"{self._folder}/{name}.html", page.encode())
        write(self._files, f"{self._folder}/{name}.json", json.dumps(answer, default=str).encode())
        if self._retention_days:
            oldest = datetime.now(UTC) - timedelta(days=self._retention_days)
            for old in self.names():
                if datetime.strptime(old[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) < oldest:
                    self._files.rm([f"{self._folder}/{old}.html", f"{self._folder}/{old}.json"])
        return name

    def names(self) -> list[str]:
        """Return the names of the kept ones, newest first."""
        try:
            paths = self._files.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        found = (str(path).rpartition("/")[2] for path in paths)
        return sorted((name[:-5] for name in found if name.endswith(".json") and is_name(name[:-5])), reverse=True)

    def answer(self, name: str) -> dict[str, Any]:
        """Return a kept answer, as JSON has it.

        Raises:
            FileNotFoundError: there is no such one.
        """
        answer: dict[str, Any] = json.loads(self._files.cat_file(f"{self._folder}/{name}.json"))
        return answer

    def page(self, name: str) -> str:
        """Return a kept page.

        Raises:
            FileNotFoundError: there is no such one.
        """
        page: bytes = self._files.cat_file(f"{self._folder}/{name}.html")
        return page.decode()


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of a kept report: one that leads to no other file."""
    return _NAME.fullmatch(text) is not None
