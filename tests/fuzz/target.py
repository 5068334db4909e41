"""What a fuzz target is, and how its input is cut into values."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
DATA = TESTS / "data"
REGRESSIONS = Path(__file__).resolve().parent / "regressions"


SCRATCH = "HARNESS_FUZZ_SCRATCH"
"""Environment variable: the folder that a worker works in, which its watcher removes."""


@cache
def scratch_folder() -> Path:
    """A folder of this process's own for files that targets read, in memory where that can be had."""
    if SCRATCH in os.environ:
        return Path(os.environ[SCRATCH])
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory_folder()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def memory_folder() -> str | None:
    """A folder whose files are in memory; None: the system's for temporary files."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass(frozen=True, slots=True)
class Target:
    """One part of the harness that reads what others wrote.

    ``check`` either takes its input or refuses it with the error that the part documents, and returns a word for how it
    went. Whatever it raises is a finding.
    """

    name: str
    what: str
    """What is read, in words."""
    check: Callable[[bytes], str]
    seeds: Callable[[], Iterable[bytes]]
    """Good inputs, small ones first."""
    words: tuple[bytes, ...] = ()
    """What such inputs are made of."""
    max_bytes: int = 4096
    """Of an input that is mutated; repetitions make some up to sixteen times as long."""
    limit_s: float = 1.0
    """CPU time that one input may take."""


class Broken(AssertionError):  # noqa: N818 - a property that does not hold
    """The part took the input, and what it made of it is wrong."""


def require(holds: bool, what: str) -> None:
    """Raises `Broken` with `what`, also where assertions are off."""
    if not holds:
        raise Broken(what)


def refused(error: BaseException) -> str:
    """A word for a refusal: its message without what varies."""
    return re.sub(r"[0-9a-f]{4,}|\d+|'[^']*'", "#", str(error))[:80]


class Cutter:
    """Takes values from the front of an input; an exhausted one gives zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def byte(self) -> int:
        return self.bytes(1)[0] if not self.is_empty else 0

    def number(self, size: int) -> int:
        """`size` bytes, little endian."""
        return int.from_bytes(self.bytes(size), "little")

    def bytes(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def rest(self) -> bytes:
        return self.bytes(len(self._data))


def chunks_of(data: bytes, seed: int) -> list[bytes]:
    """`data` in pieces whose lengths follow from `seed`: 0 gives one piece, 1 single bytes."""
    if seed == 0 or not data:
        return [data] if data else []
    sizes = (1,) if seed == 1 else (seed, seed // 3 + 1, 1, seed * 7)
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces
