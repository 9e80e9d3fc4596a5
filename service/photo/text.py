"""What a stranger wrote, made fit to be repeated."""

from typing import Any

LENGTH = 200  # characters


def short(text: Any) -> str | None:
    """Return the first printable characters of a text; None where there are none."""
    begin = str(text or "")[: 2 * LENGTH]
    return "".join(character for character in begin if character.isprintable()).strip()[:LENGTH] or None
