"""The service without its log, metrics, request lines and keys, for `bench/overhead.py` alone; never serve it.

bentoml serve bench.bare:PhotoDetector
"""

import contextlib
import os
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from service.http import request_log
from service.log.prediction_log import PredictionLog


def _nothing(*_: Any, **__: Any) -> None:
    pass


# Before the service is imported: it takes some of these by their names.
MetricWrapperBase.labels = lambda self, *_, **__: self  # type: ignore[method-assign]
for kind, methods in {Counter: ["inc"], Gauge: ["inc", "dec", "set"], Histogram: ["observe"]}.items():
    for method in methods:
        setattr(kind, method, _nothing)
Histogram.time = lambda _: contextlib.nullcontext()  # type: ignore[assignment, method-assign, return-value]
PredictionLog.add = _nothing  # type: ignore[method-assign]
request_log.log_request = _nothing
for name in ("API_KEYS", "API_KEYS_FILE", "REQUIRE_AUTH"):
    os.environ.pop(name, None)

from service.service import PhotoDetector  # noqa: E402 - now that everything is off

__all__ = ["PhotoDetector"]
