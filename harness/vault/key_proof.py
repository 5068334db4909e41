"""What showing that an imported key is the chip's came to. The ways to show it are those of `provision` and `ota`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ProofResult(str, Enum):
    """What a proof came to."""

    PROVEN = "proven"
    WRONG = "wrong"
    """The chip's key is another one."""
    OPEN = "open"
    """Nothing was shown either way."""


@dataclass(frozen=True, slots=True)
class KeyProof:
    """A result, and what it rests on."""

    result: ProofResult
    how: str
    """In words, for the key's history."""
