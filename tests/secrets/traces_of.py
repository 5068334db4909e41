"""Finds a secret in any byte stream, in whatever form a program may have printed it.

Not the secret is turned into all its forms, but the stream is read in every way in which bytes are written down: as they
are, hexadecimal with and without separators, base64 at each alignment, decimal numbers, Python's and JSON's escapes. In
what comes out, any eight consecutive bytes of the secret count, forwards, backwards, and with the bytes of each 32-bit
word swapped, as eFuse registers are shown.
"""

from __future__ import annotations

import base64
import bisect
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LEAST = 8
"""Consecutive bytes of a secret that count as a trace of it: fewer happen by chance."""

_ANCHOR = LEAST // 2
"""Any eight consecutive bytes hold one whole group of four, counted from the secret's start."""

_VARIED = 5
"""Different bytes that every eight of a planted secret have: zeros and words of a language are found everywhere."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One place where a secret shows."""

    secret: str
    form: str
    position: int
    """Offset in the stream where the written form begins, or near it."""
    size_bytes: int
    """How much of the secret."""

    def text(self) -> str:
        return f"{self.size_bytes} bytes of {self.secret}, {self.form}, near offset {self.position}"


class Secret:
    """Bytes that must show nowhere, under a name for reports."""

    def __init__(self, name: str, content: bytes) -> None:
        """Raises:
        ValueError: parts of it are too ordinary to be told from anything else.
        """
        for start in range(max(1, len(content) - LEAST + 1)):
            if len(set(content[start : start + LEAST])) < _VARIED:
                raise ValueError(f"{name} is no secret that could be found: bytes {start} to {start + LEAST}")
        self.name = name
        self.content = content

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    @property
    def orders(self) -> Iterator[tuple[str, bytes]]:
        """(name, content) of every order in which its bytes are written."""
        swapped = b"".join(self.content[at : at + 4][::-1] for at in range(0, len(self.content), 4))
        yield "", self.content
        yield "reversed", self.content[::-1]
        yield "words swapped", swapped
        yield "words swapped and reversed", swapped[::-1]

    @property
    def numbers(self) -> Iterator[tuple[str, str]]:
        """(order, decimal digits) of the whole as one number."""
        yield "big endian", str(int.from_bytes(self.content, "big"))
        yield "little endian", str(int.from_bytes(self.content, "little"))


class Detector:
    """Looks for many secrets at once: the time that a stream takes does not depend on how many there are."""

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._places: dict[int, list[tuple[str, str, bytes, int]]] = {}
        self._digits: dict[str, tuple[str, str]] = {}
        for secret in secrets:
            for order, content in secret.orders:
                for at in range(0, len(content) - _ANCHOR + 1, _ANCHOR):
                    anchor = int.from_bytes(content[at : at + _ANCHOR], sys.byteorder)
                    self._places.setdefault(anchor, []).append((secret.name, order, content, at))
            for order, number in secret.numbers:
                # Twenty digits are as much as eight bytes.
                for at in range(0, max(1, len(number) - 19), 10):
                    self._digits[number[at : at + 20]] = (secret.name, order)
        self._anchors = frozenset(self._places)

    def traces(self, data: bytes) -> list[Trace]:
        """Every trace in `data`; one per form and place."""
        found: dict[tuple[str, str, int], Trace] = {}
        for form, pieces in _readings(data):
            # All pieces of a form in one stream: a trace across two of them is as good as impossible.
            starts = list(itertools.accumulate((len(piece) + 1 for _, piece in pieces), initial=0))
            for name, order, offset, size in self._in_bytes(b"\0".join(piece for _, piece in pieces)):
                position = pieces[bisect.bisect_right(starts, offset) - 1][0] if form != "raw" else offset
                trace = Trace(name, ", ".join(filter(None, (form, order))), position, size)
                found.setdefault((trace.secret, trace.form, trace.position), trace)
        for position, digits in _long_numbers(data):
            for part, (name, order) in self._digits.items():
                if part in digits:
                    trace = Trace(name, f"one decimal number, {order}", position, LEAST)
                    found.setdefault((trace.secret, trace.form, trace.position), trace)
        return list(found.values())

    def _in_bytes(self, data: bytes) -> Iterator[tuple[str, str, int, int]]:
        """(secret, order, offset, size) of each part of at least `LEAST` bytes in `data`, read as bytes."""
        for shift in range(_ANCHOR):
            words = memoryview(data)[shift : shift + (len(data) - shift) // _ANCHOR * _ANCHOR]
            for anchor in self._anchors.intersection(words.cast("I")):
                pattern = anchor.to_bytes(_ANCHOR, sys.byteorder)
                found = data.find(pattern)
                while found >= 0:
                    for name, order, content, at in self._places[anchor]:
                        start, size = _grown(content, at, data, found)
                        if size >= LEAST:
                            yield name, order, start, size
                    found = data.find(pattern, found + 1)


def _grown(content: bytes, at: int, data: bytes, found: int) -> tuple[int, int]:
    """Where the match around an anchor begins in `data`, and how long it is."""
    before = 0
    while before < at and before < found and content[at - before - 1] == data[found - before - 1]:
        before += 1
    size = _ANCHOR
    most = min(len(content) - at, len(data) - found)
    while size < most and content[at + size] == data[found + size]:
        size += 1
    return found - before, before + size


def traces_of(secrets: Iterable[Secret], data: bytes) -> list[Trace]:
    """As `Detector.traces`."""
    return Detector(secrets).traces(data)


def _readings(data: bytes) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """(form, [(position, bytes)]) of all that is written down in `data`."""
    yield "raw", [(0, data)]
    yield "hexadecimal", list(_hexadecimal(data))
    yield "base64", list(_base64(data))
    yield "decimal numbers", list(_decimals(data))
    yield "escaped", list(_escaped(data))
    # Bytes that went through a text as latin-1.
    if not data.isascii():
        plain = data.decode("utf-8", "replace").encode("latin-1", "replace")
        yield "latin-1 as UTF-8", [(0, plain), *_escaped(plain)]


_SEPARATOR = rb"(?:[\s:,;.|_\"'\[\](){}-]|0[xX]|\\x|\\n|%){0,8}"
_HEX_RUN = re.compile(rb"[0-9A-Fa-f](?:" + _SEPARATOR + rb"[0-9A-Fa-f]){15,}")
_NOT_HEX = re.compile(rb"0[xX]|\\x|\\n|[^0-9A-Fa-f]")


def _hexadecimal(data: bytes) -> Iterator[tuple[int, bytes]]:
    for run in _HEX_RUN.finditer(data):
        digits = _NOT_HEX.sub(b"", run.group())
        for start in (0, 1):
            even = digits[start : len(digits) - (len(digits) - start) % 2]
            yield run.start(), bytes.fromhex(even.decode())


_BASE64_RUN = re.compile(rb"[A-Za-z0-9+/_-](?:(?:[\r\n]+[ \t]*|\\n|\\r)?[A-Za-z0-9+/_-]){9,}")
_LINE_ENDS = re.compile(rb"\\n|\\r|\s")


def _base64(data: bytes) -> Iterator[tuple[int, bytes]]:
    for run in _BASE64_RUN.finditer(data):
        # With lines joined (PEM), and as it stands: "\n" may also be what base64 wrote.
        for text in {_LINE_ENDS.sub(b"", run.group()), re.sub(rb"[\\\s]", b"", run.group())}:
            plain = text.translate(bytes.maketrans(b"-_", b"+/"))
            for start in range(4):
                piece = plain[start:]
                piece = piece[: len(piece) - len(piece) % 4] if len(piece) % 4 == 1 else piece
                yield run.start(), base64.b64decode(piece + b"=" * (-len(piece) % 4))


_DECIMAL_RUN = re.compile(rb"\d{1,3}(?:[\s,;:|\[\](){}]{1,6}\d{1,3}){7,}")


def _decimals(data: bytes) -> Iterator[tuple[int, bytes]]:
    for run in _DECIMAL_RUN.finditer(data):
        numbers = [int(word) for word in re.findall(rb"\d+", run.group())]
        yield run.start(), bytes(number if number < 256 else 0 for number in numbers)


_LONG_NUMBER = re.compile(rb"\d{20,}")


def _long_numbers(data: bytes) -> Iterator[tuple[int, str]]:
    for run in _LONG_NUMBER.finditer(data):
        yield run.start(), run.group().decode()


_ESCAPE = re.compile(
    rb"\\+(?:x([0-9a-fA-F]{2})|u00([0-9a-fA-F]{2})|([0-7]{3})|([abfnrtv0'\"\\]))|%([0-9a-fA-F]{2})|&#(\d{1,3});"
)
_BETWEEN_LITERALS = re.compile(rb"['\"](?:\s|\\n)+b?['\"]")
_LETTERS = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"0": b"\0",
}


def _escaped(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Python's ``b'\\x01'``, JSON's, C's and URLs' escapes; also twice escaped, as in a repr within a repr."""
    if b"\\" not in data and b"%" not in data and b"&#" not in data:
        return
    yield 0, _ESCAPE.sub(_unescaped, data)
    joined = _BETWEEN_LITERALS.sub(b"", data)
    if joined != data:
        yield 0, _ESCAPE.sub(_unescaped, joined)


def _unescaped(match: re.Match[bytes]) -> bytes:
    two, four, octal, letter, percent, entity = match.groups()
    if digits := two or four or percent:
        return bytes([int(digits, 16)])
    if octal is not None:
        return bytes([int(octal, 8) & 0xFF])
    if entity is not None:
        return bytes([int(entity) & 0xFF])
    return _LETTERS.get(letter, letter)
