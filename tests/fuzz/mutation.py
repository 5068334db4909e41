"""Inputs made of other inputs, by a seeded generator: what the fuzzers use where atheris is not installed."""

from __future__ import annotations

import random
from collections.abc import Sequence

_INTERESTING = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFFFF0,
)
_GROWTH = 16
"""How much longer than the bound a repetition may make an input: what is quadratic shows only there."""


class Mutator:
    """Makes inputs out of a corpus; the same seed and corpus make the same ones."""

    def __init__(self, seed: int, words: Sequence[bytes], max_bytes: int) -> None:
        self._random = random.Random(seed)
        self._words = words
        self._max_bytes = max_bytes

    def next(self, corpus: Sequence[bytes]) -> bytes:
        """One more input."""
        pick = self._random
        data = bytearray(pick.choice(corpus) if corpus and pick.random() < 0.97 else b"")
        for _ in range(pick.choice((1, 1, 1, 2, 2, 3, 4, 8))):
            self._change(data, corpus)
        del data[self._max_bytes :]
        if pick.random() < 0.01:
            self._repeat(data)
        return bytes(data)

    def _change(self, data: bytearray, corpus: Sequence[bytes]) -> None:
        pick = self._random
        at = pick.randrange(len(data) + 1)
        size = min(len(data) - at, 1 << pick.randrange(8))
        kind = pick.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << pick.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = pick.randrange(256)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = pick.randbytes(size or 1)
        elif kind == 4:
            there = pick.randrange(len(data) + 1)
            data[there:there] = data[at : at + size]
        elif kind == 5:
            width = pick.choice((1, 2, 4))
            number = pick.choice(_INTERESTING) + pick.choice((-1, 0, 0, 1))
            data[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 6 and self._words:
            word = pick.choice(self._words)
            data[at : at + (len(word) if pick.random() < 0.5 else 0)] = word
        elif kind == 7 and corpus:
            other = pick.choice(corpus)
            start = pick.randrange(len(other) + 1)
            data[at : at + size] = other[start : start + pick.choice((8, 64, 512))]
        else:
            data[at : at + size] = bytes((pick.choice((0, 0x20, 0x30, 0x41, 0xFF)),)) * (size or 1)

    def _repeat(self, data: bytearray) -> None:
        """Repeats a stretch, often a word alone, until the input is long."""
        pick = self._random
        at = pick.randrange(len(data) + 1)
        part = bytes(data[at : at + 1 + pick.randrange(16)])
        if self._words and pick.random() < 0.5:
            part = pick.choice(self._words)
        if part:
            data[at:at] = part * (self._max_bytes * _GROWTH // len(part))
