"""The NOR flash of the board: programming clears bits, erasing sets them, and both last.

The content lies in ``flash.bin`` and is written through at every operation, so that it survives the death of
the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.twin.half_done import ERASED, SECTOR_BYTES, Extent, erased, programmed, worn
from harness.twin.operations import FlashFault, Operation, OperationLog, PowerLost

__all__ = ["ERASED", "SECTOR_BYTES", "Flash", "FlashFault", "PowerLost"]

#: ESP_ERR_INVALID_ARG, what ESP-IDF's driver says of a range outside the chip.
_INVALID_ARG = 0x102


class Flash:
    """`size_bytes` of NOR flash in the file `path`, which must exist and have exactly that size.

    `generation` grows with every change, for caches of what was read. All operations go through `operations`
    (numbered, logged, able to fail). Not bound to a thread: one operation at a time holds the log's lock.
    """

    def __init__(self, path: Path, operations: OperationLog | None = None) -> None:
        self.path = path
        self.operations = operations if operations is not None else OperationLog()
        self._file = path.open("r+b", buffering=0)
        self._data = bytearray(self._file.read())
        self.size_bytes = len(self._data)
        self.generation = 0
        self.stuck: Mapping[int, int] = {}
        """Bits that cannot be 1 any more, by address: cells that are worn out."""
        self.on_touch: Callable[[str, int, int], None] | None = None
        """Is told of every ``read``, ``write`` and ``erase``, with address and length, before it happens."""

    @property
    def ops(self) -> list[Operation]:
        """All operations kept, oldest first."""
        return list(self.operations.since(0))

    @property
    def content(self) -> memoryview:
        """All of it, as it is now: for whoever looks at a stored state from outside."""
        return memoryview(self._data).toreadonly()

    def read(self, addr: int, size: int, *, who: str = "") -> bytes:
        """The raw bytes at `addr`.

        Raises:
            FlashFault: outside the chip (0x102), or an injected read fault.
            PowerLost: the supply is gone.
        """
        self._check_range(addr, size)
        self.operations.check_read(who)
        if self.on_touch is not None:
            self.on_touch("read", addr, size)
        return bytes(self._data[addr : addr + size])

    def program(self, addr: int, data: bytes, *, who: str, kind: str = "write") -> None:
        """Clear the bits at `addr` that are 0 in `data`; nothing sets a bit but an erase.

        `kind` is ``write``, or ``write-encrypted`` when `data` came out of the cipher engine.

        Raises:
            FlashFault: outside the chip (0x102), or an injected fault; nothing was changed.
            PowerLost: the supply was cut here.
        """
        self._check_range(addr, len(data))

        def apply(extent: Extent) -> None:
            if self.on_touch is not None:
                self.on_touch("write", addr, len(data))
            self._store(addr, programmed(bytes(self._data[addr : addr + len(data)]), data, addr, extent))

        self.operations.carry_out(kind, addr, len(data), who, apply, data=data)

    def erase(self, addr: int, size: int, *, who: str) -> None:
        """Set the bytes at `addr` to 0xFF; both numbers are multiples of SECTOR_BYTES.

        Raises:
            FlashFault: not aligned or outside the chip (0x102), or an injected fault; nothing was changed.
            PowerLost: the supply was cut here.
        """
        self._check_range(addr, size)
        if addr % SECTOR_BYTES or size % SECTOR_BYTES:
            raise FlashFault(_INVALID_ARG, f"erase of 0x{size:x} bytes at 0x{addr:x} is not on sector bounds")

        def apply(extent: Extent) -> None:
            if self.on_touch is not None:
                self.on_touch("erase", addr, size)
            self._store(addr, erased(bytes(self._data[addr : addr + size]), extent))

        self.operations.carry_out("erase", addr, size, who, apply)

    def replace(self, addr: int, content: bytes) -> None:
        """Put `content` at `addr` as it is, as no flash chip does: for whoever restores a stored state."""
        self._check_range(addr, len(content))
        with self.operations.lock:
            self._store(addr, content)

    def close(self) -> None:
        self._file.close()

    def _store(self, addr: int, data: bytes) -> None:
        if self.stuck:
            data = worn(data, addr, self.stuck)
        self._data[addr : addr + len(data)] = data
        if hasattr(os, "pwrite"):
            os.pwrite(self._file.fileno(), data, addr)
        else:
            self._file.seek(addr)
            self._file.write(data)
        self.generation += 1

    def _check_range(self, addr: int, size: int) -> None:
        if addr < 0 or size < 0 or addr + size > self.size_bytes:
            raise FlashFault(
                _INVALID_ARG, f"0x{size:x} bytes at 0x{addr:x} are outside {self.size_bytes} bytes of flash"
            )
