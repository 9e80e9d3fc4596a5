"""Times as people write them."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,6})([smhd])")


class TimeRangeError(ValueError):
    """What was written is not a time range; the message says how to write one."""


def parse_time(text: str, now: datetime) -> datetime:
    """Return a moment as the prediction log keeps it: UTC, without a zone.

    Args:
        text: how long ago (`90s`, `30m`, `24h`, `7d`), or ISO 8601 such as `2026-11-22T18:00:00Z`; UTC where it
            names no zone.
        now: the present, UTC, without a zone.

    Raises:
        TimeRangeError: it is neither.
    """
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        raise TimeRangeError(f"'{text[:50]}' is not a time: write 24h, 7d, or 2026-11-22T18:00:00Z") from None


def span(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime] | None:
    """Return a time range, or None where none was asked for.

    Raises:
        TimeRangeError: a text is not a time, `until` comes without `since`, or the range is empty.
    """
    if since is None:
        if until is not None:
            raise TimeRangeError("until needs since: where does the range begin?")
        return None
    begin, end = parse_time(since, now), now if until is None else parse_time(until, now)
    if begin >= end:
        raise TimeRangeError("since must lie before until, and in the past")
    return begin, end
