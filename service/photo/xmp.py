"""XMP packets: properties by namespace and name, whether written as attributes or as elements."""

from contextlib import suppress
from dataclasses import dataclass, field
from xml.parsers import expat

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_META = "adobe:ns:meta/"  # of x:xmpmeta, around all
_SPACE = "\x1f"  # between namespace and name: stands in neither
_MOST = 10_000  # values that are kept
_LENGTH = 1_000_000  # characters of all values together
_DEPTH = 1_000  # elements one in the other
_NAME = 500  # characters of a namespace and a name: a long one would be held once for each open element

Name = tuple[str, str]  # namespace and local name


class _StopError(Exception):
    """Enough is known of this packet."""


@dataclass
class Properties:
    """What an XMP packet says.

    Attributes:
        own: the values of each property of the picture, in order.
        of_parts: those that stand inside another property: of a part of the picture, or of one it was made from.
    """

    own: dict[Name, list[str]] = field(default_factory=dict)
    of_parts: dict[Name, list[str]] = field(default_factory=dict)


def properties(packet: bytes) -> Properties:
    """Read an XMP packet.

    Items of a list count as values of the property that holds the list. What stands before a fault in the XML counts.
    A document type ends the reading: XMP has none, and entities could be declared there.

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
    """Takes what the parser meets; keeps no tree."""

    def __init__(self) -> None:
        self.found = Properties()
        self._open: list[tuple[Name, int, list[str]]] = []  # each element's property, how deep it is, its text so far
        self._values = self._length = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if len(tag) > _NAME or len(self._open) >= _DEPTH:
            raise _StopError
        name, depth = _name(tag), self._open[-1][1] if self._open else 0
        if name[0] == _RDF:  # rdf:li, rdf:value and the like: what is in them is the property's around them
            name = self._open[-1][0] if self._open else name
        elif name[0] != _META:
            depth += 1
        self._open.append((name, depth, []))
        for key, value in attributes.items():
            attribute = _name(key)
            if attribute == (_RDF, "resource"):
                self._keep(name, depth, value)
            else:
                self._keep(attribute, depth + 1, value)

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def end(self, _: str) -> None:
        name, depth, parts = self._open.pop()
        self._keep(name, depth, "".join(parts))

    def refuse(self, *_: object) -> None:
        raise _StopError

    def _keep(self, name: Name, depth: int, text: str) -> None:
        text = text.strip()
        if not text or name[0] in {_RDF, ""}:
            return
        (self.found.own if depth <= 1 else self.found.of_parts).setdefault(name, []).append(text)
        self._values += 1
        self._length += len(text)
        if self._values > _MOST or self._length > _LENGTH:
            raise _StopError


def _name(tag: str) -> Name:
    space, _, name = tag.rpartition(_SPACE)
    return space, name
