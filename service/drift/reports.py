"""Kept reports: of each check an HTML page and a JSON answer, in a folder or a bucket."""

import contextlib
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from fsspec.core import url_to_fs
from pydantic import TypeAdapter

from service.drift.files import write
from service.log.tables import FIRST_MODEL

logger = logging.getLogger(__name__)

# Such as 20261122T180000Z-cifake-drift; one of an earlier version names no model.
_NAME = re.compile(r"\d{8}T\d{6}Z(?:-(?P<model>[a-z][a-z0-9-]{0,39}))?-(?:ok|drift|insufficient_data)")


class Reports:
    """What the checks of all models found."""

    def __init__(self, url: str, retention_days: float) -> None:
        """Remember where they lie.

        Args:
            url: `DRIFT_URL`.
            retention_days: older ones are deleted when another is kept; 0 keeps them.
        """
        self._files, root = url_to_fs(url)
        self._folder = f"{root}/reports"
        self._retention_days = retention_days
        self._known: dict[str, dict[str, dict[str, Any]]] = {}  # model -> name -> answer

    def keep(self, answer: dict[str, Any], page: str) -> str:
        """Write an answer, and its HTML page; return the name of both.

        Args:
            answer: fields of `schemas.DriftResponse`; `timestamp`, `model` and `status` give the name.
            page: HTML.
        """
        name = f"{answer['timestamp']:%Y%m%dT%H%M%SZ}-{answer['model']}-{answer['status']}"
        write(self._files, f"{self._folder}/{name}.html", page.encode())
        write(self._files, f"{self._folder}/{name}.json", TypeAdapter(dict[str, Any]).dump_json(answer))
        if self._retention_days:
            oldest = datetime.now(UTC) - timedelta(days=self._retention_days)
            for file in self._list():
                if datetime.strptime(file[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) < oldest:
                    with contextlib.suppress(FileNotFoundError):  # another monitor was faster
                        self._files.rm_file(f"{self._folder}/{file}")
        return name

    def names(self, model: str) -> list[str]:
        """Return the names of a model's, newest first."""
        names = (file[:-5] for file in self._list() if file.endswith(".json"))
        return sorted((name for name in names if model_of(name) == model), reverse=True)

    def _list(self) -> list[str]:
        """Return the names of the files."""
        try:
            paths = self._files.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        found = (str(path).rpartition("/")[2] for path in paths)
        return [file for file in found if model_of(file[:-5]) and file[-5:] in {".json", ".html"}]

    def answers(self, model: str, most: int) -> list[dict[str, Any]]:
        """Return the newest kept answers of a model as JSON has them, newest first, each with its `name`.

        Files never change, so each is read once. One that is damaged is left out, and the log says so.
        """
        found = []
        known = self._known.get(model, {})
        for name in self.names(model)[:most]:
            try:
                found.append(known.get(name) or self.answer(name) | {"name": name})
            except (FileNotFoundError, ValueError, TypeError) as error:
                logger.warning("the drift report %s cannot be read: %s", name, error)
        self._known[model] = {answer["name"]: answer for answer in found}
        return found

    def answer(self, name: str) -> dict[str, Any]:
        """Return a kept answer, as JSON has it; one of an earlier version counts as the first model's.

        Raises:
            FileNotFoundError: there is no such one.
            ValueError: it is damaged.
        """
        answer: dict[str, Any] = json.loads(self._files.cat_file(f"{self._folder}/{name}.json"))
        return {"model": FIRST_MODEL} | answer

    def page(self, name: str) -> str:
        """Return a kept page.

        Raises:
            FileNotFoundError: there is no such one.
        """
        page: bytes = self._files.cat_file(f"{self._folder}/{name}.html")
        return page.decode()


def model_of(name: str) -> str | None:
    """Return whose report has this name; None: it cannot be the name of a report, and may lead to any other file."""
    found = _NAME.fullmatch(name)
    return found and (found["model"] or FIRST_MODEL)
