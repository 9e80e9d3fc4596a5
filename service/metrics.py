"""Prometheus metrics, right with several workers.

BentoML names a folder (PROMETHEUS_MULTIPROC_DIR) in each worker's environment; prometheus_client keeps every
process's values there, and any worker's `/metrics` adds them up.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

# Labels come from such sets alone, so that no client can make new time series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

PREDICTIONS = Counter("aidetect_predictions", "Photos answered", ["status", "prediction", "confidence", "model"])
LATENCY = Histogram(
    "aidetect_prediction_latency_seconds",
    "Decoding and scoring of one photo, without its wait",
    buckets=_SECONDS,
)
BATCH_LATENCY = Histogram(
    "aidetect_batch_latency_seconds", "Decoding and scoring of one batch, without its wait", buckets=_SECONDS
)
PROBABILITY = Histogram(
    "aidetect_prediction_probability", "P(AI-generated) answered", ["model"], buckets=[i / 10 for i in range(1, 11)]
)
DECISIONS = Counter("aidetect_decisions", "Decisions answered", ["decision", "in_domain", "model"])
CREDENTIALS = Counter("aidetect_credentials", "Photos by what their Content Credentials come to", ["status"])
LISTINGS = Counter("aidetect_listings", "Listings answered", ["decision"])
BATCH_SIZE = Histogram("aidetect_batch_size", "Photos in a batch or listing", buckets=(1, 2, 5, 10, 15, 20))
INVALID = Counter("aidetect_image_validation_errors", "Photos refused", ["error_type"])
IMAGE_SIZE = Histogram("aidetect_image_size_bytes", "Size of the photo files", buckets=[1000 * 4**i for i in range(8)])
ACTIVE = Gauge("aidetect_active_requests", "Requests being answered", multiprocess_mode="livesum")
REQUESTS = Counter("aidetect_http_requests", "Requests answered", ["method", "endpoint", "status"])
DURATION = Histogram("aidetect_http_request_duration_seconds", "Time to answer a request", ["method", "endpoint"])
RATE_LIMITED = Counter("aidetect_rate_limit_exceeded", "Requests refused as too many of one client", ["endpoint"])
RATE_LIMIT_ERRORS = Counter("aidetect_rate_limit_errors", "Failures of the rate limits' storage")
AUTH_FAILURES = Counter("aidetect_auth_failures", "Requests refused for their API key", ["reason"])
KEY_REQUESTS = Counter("aidetect_api_key_requests", "Requests with a known API key, by its name", ["key"])
SHED = Counter("aidetect_requests_shed", "Requests refused as too busy", ["reason"])
FEEDBACK = Counter("aidetect_feedback", "What moderators said of predictions", ["prediction", "label"])
MODEL = Gauge(
    "aidetect_model_info", "1 for a model in service", ["model", "version", "sha256"], multiprocess_mode="livemax"
)
SWAPS = Counter("aidetect_model_swaps", "Models put in place while serving", ["model", "result"])
LOADED = Gauge("aidetect_model_loaded", "1 where every worker has the model", ["model"], multiprocess_mode="livemin")
LOG_WRITTEN = Counter("aidetect_prediction_log_rows", "Predictions written to the log")
LOG_ERRORS = Counter("aidetect_prediction_log_errors", "Failed writes to the log; each is tried again")
LOG_LOST = Counter("aidetect_prediction_log_lost", "Predictions that never reached the log")
DRIFT_SCORE = Gauge(
    "aidetect_drift_score",
    "Largest difference between window and reference, 0 to 1",
    ["model"],
    multiprocess_mode="mostrecent",
)
DRIFT = Gauge("aidetect_drift_detected", "1 while the newest window drifts", ["model"], multiprocess_mode="mostrecent")
DRIFT_WINDOW = Gauge(
    "aidetect_drift_window_size", "Predictions in the newest window", ["model"], multiprocess_mode="mostrecent"
)
DRIFT_ACCURACY = Gauge(
    "aidetect_drift_estimated_accuracy",
    "Accuracy of the newest window, without labels",
    ["model"],
    multiprocess_mode="mostrecent",
)
DRIFT_CHECKS = Gauge(
    "aidetect_drift_checks_in_a_row",
    "Disjoint windows that drifted one after the other",
    ["model"],
    multiprocess_mode="mostrecent",
)
PROMISE = Gauge(
    "aidetect_promise_broken",
    "1 where more real photos are flagged than was promised, by feedback",
    ["model"],
    multiprocess_mode="mostrecent",
)
DRIFT_LOOKED = Gauge(
    "aidetect_drift_looked_timestamp_seconds",
    "When the monitor last compared the newest window",
    ["model"],
    multiprocess_mode="mostrecent",
)
DRIFT_ERRORS = Counter("aidetect_drift_errors", "Failures of the monitor; each is tried again", ["model"])
MONITORED = Gauge("aidetect_drift_monitored", "1 where a drift monitor should be", multiprocess_mode="livemax")


@dataclass
class Observed:
    """What is known of a request when it ends: its status, and the seconds it took."""

    status: int = 500
    seconds: float = 0.0


@contextmanager
def request(method: str, endpoint: str) -> Iterator[Observed]:
    """Count and time one request; `endpoint` is a route's path as declared, and the caller sets the status."""
    observed = Observed()
    verb = method if method in _METHODS else "other"
    started = time.perf_counter()
    ACTIVE.inc()
    try:
        yield observed
    finally:
        observed.seconds = time.perf_counter() - started
        ACTIVE.dec()
        REQUESTS.labels(verb, endpoint, str(observed.status)).inc()
        DURATION.labels(verb, endpoint).observe(observed.seconds)


def exposition() -> bytes:
    """Return the metrics of all workers in Prometheus' text format."""
    return generate_latest(_all_workers())


def total(sample: str, **labels: str) -> float:
    """Return the sum over all workers of the samples named `sample` that carry `labels`."""
    return sum(
        found.value
        for family in _all_workers().collect()
        for found in family.samples
        if found.name == sample and labels.items() <= found.labels.items()
    )


def _all_workers() -> CollectorRegistry:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # untyped there
    return registry


def forget_dead_workers() -> None:
    """Drop the gauges of killed workers, which nobody else does; a worker calls it when it starts."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        return
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(folder).glob("gauge_live*_*.db")}:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]  # untyped there
        except PermissionError:
            pass  # alive, under another user
