"""What the service prints: JSON, one line for each request and each other event."""

import logging.config
import sys
from typing import Any

import structlog
from structlog.typing import Processor

_FIELDS: list[Processor] = [
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

_LEVELS = {"bentoml": "INFO", "service": "INFO", "uvicorn.error": "WARNING", "circus": "WARNING"}

_LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": [*_FIELDS, structlog.stdlib.add_logger_name],
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        }
    },
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
    "root": {"handlers": ["stdout"], "level": "WARNING"},
    # BentoML gave these handlers of their own, with lines for people.
    "loggers": {name: {"handlers": [], "level": level, "propagate": True} for name, level in _LEVELS.items()},
}


def configure() -> None:
    """Make every line that this process prints from now on JSON."""
    logging.captureWarnings(True)  # Pillow warns of some photos
    logging.config.dictConfig(_LOGGING)
    structlog.configure(
        processors=[*_FIELDS, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )


def log_request(**fields: Any) -> None:
    """Print one request's line; `fields` must hold neither keys nor content of photos."""
    structlog.get_logger().info("request", **fields)
