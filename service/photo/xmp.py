"""XMP packets: properties by namespace and name, whether written as attributes or as elements."""

from collections import defaultdict
from contextlib import suppress
from xml.parsers import expat

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SPACE = "\x1f"  # between namespace and name: stands in neither
_MOST = 10_000  # values that are kept
_LENGTH = 1_000_000  # characters of all values together

Name = tuple[str, str]  # namespace and local name


class _StopError(Exception):
    """Enough is known of this packet."""


def properties(packet: bytes) -> dict[Name, list[str]]:
    """Return the values of each property of an XMP packet, in order.

    Items of lists and fields of structures count as values of the property around them. What stands before a fault in
    the XML counts. A document type ends the reading: XMP has none, and entities could be declared there.

    Args:
        packet: UTF-8, or UTF-16 with a byte order mark.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=_SPACE)
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = reader.text, reader.refuse
    with suppress(expat.ExpatError, _StopError, ValueError):
        parser.Parse(packet.strip(b"\0 \r\n\t"), True)
    return reader.found


class _Reader:
    """Takes what the parser meets; keeps no tree, so that depth costs nothing."""

    def __init__(self) -> None:
        self.found: defaultdict[Name, list[str]] = defaultdict(list)
        self._open: list[tuple[Name, list[str]]] = []  # elements, the outermost first, each with its text so far
        self._values = self._length = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = _name(tag)
        if name[0] == _RDF:  # rdf:li, rdf:value and the like: what is in them is the property's around them
            name = self._open[-1][0] if self._open else name
        self._open.append((name, []))
        for key, value in attributes.items():
            self._keep(_name(key), value)

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1][1].append(data)

    def end(self, _: str) -> None:
        name, parts = self._open.pop()
        self._keep(name, "".join(parts))

    def refuse(self, *_: object) -> None:
        raise _StopError

    def _keep(self, name: Name, text: str) -> None:
        text = text.strip()
        if not text or name[0] in {_RDF, ""}:
            return
        self.found[name].append(text)
        self._values += 1
        self._length += len(text)
        if self._values > _MOST or self._length > _LENGTH:
            raise _StopError


def _name(tag: str) -> Name:
    space, _, name = tag.rpartition(_SPACE)
    return space, name
