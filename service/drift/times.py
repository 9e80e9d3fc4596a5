"""Times as people write them."""

import re
from datetime import UTC, datetime, timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,6})([smhd])")


def parse_time(text: str, now: datetime) -> datetime:
    """Return a moment as the prediction log keeps it: UTC, without a zone.

    Args:
        text: how long ago (`90s`, `30m`, `24h`, `7d`), or ISO 8601 such as `2026-11-22T18:00:00Z`; UTC where it
            names no zone.
        now: the present, UTC, without a zone.

    Raises:
        ValueError: it is neither.
    """
    if ago := _AGO.fullmatch(text):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text[:50]}' is no time: write 24h, 7d, or 2026-11-22T18:00:00Z") from None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def span(since: str | None, until: str | None, now: datetime) -> tuple[datetime, datetime] | None:
    """Return a time range, or None where none was asked for.

    Raises:
        ValueError: a text is no time, `until` comes without `since`, or the range is empty.
    """
    if since is None:
        if until is not None:
            raise ValueError("until needs since: where does the range begin?")
        return None
    begin, end = parse_time(since, now), now if until is None else parse_time(until, now)
    if begin >= end:
        raise ValueError("since must lie before until, and in the past")
    return begin, end
