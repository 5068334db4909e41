"""What `execute` needs of a chip in download mode. `rom.RomSession` is the real one; tests have theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from harness.provision.chip_state import ChipState


@dataclass(frozen=True, slots=True)
class KeyToBurn:
    """What goes into one eFuse block, or one half of it."""

    burn_as: str
    """espefuse's name for the block."""
    purpose: str | None
    """espefuse's word; None on ESP32."""
    data: bytes = field(repr=False)
    """In the byte order of a key file."""


class Session(Protocol):
    """One chip in UART download mode, from its reset to the next."""

    on_progress: Callable[[int, int], None] | None
    """Told (bytes done, bytes in all) while flash is written or read."""

    @property
    def burned(self) -> bool:
        """eFuses were burned since the reset: the chip may not use them all yet."""

    @property
    def stub_running(self) -> bool:
        """The flasher stub runs instead of the ROM."""

    def state(self) -> ChipState:
        """eFuses and download mode, as they are now."""

    def burn_keys(self, keys: Sequence[KeyToBurn]) -> None:
        """Keys or digests in one batch: blocks, then purposes, then protections."""

    def protect_key(self, block: str, *, read: bool, write: bool, purpose: bool) -> None:
        """Protections of a key block."""

    def burn_fuses(self, fuses: Mapping[str, int]) -> None:
        """Values of BLOCK0 fields."""

    def write_protect(self, fuse: str) -> None:
        """The write-protection bit of a field."""

    def burn_lock(self, fuse: str) -> None:
        """A download-mode lock; returns although the chip may have fallen silent."""

    def write_flash(
        self,
        pieces: Sequence[tuple[int, bytes]],
        *,
        encrypt: bool = False,
        force: bool = False,
        skip_identical: bool = False,
    ) -> None:
        """Bytes into flash; erases the sectors they touch. `skip_identical`: not those that are there already."""

    def read_flash(self, offset: int, size_bytes: int) -> bytes:
        """Raw bytes of flash."""

    def flash_md5(self, offset: int, size_bytes: int) -> str:
        """MD5 over raw flash, computed by the chip; 32 hexadecimal digits."""


SessionFactory = Callable[[], AbstractContextManager[Session]]
"""Resets the board into download mode and lends its port for one session."""
