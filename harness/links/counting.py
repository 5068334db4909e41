"""Counts what goes over a port, for the person who wonders where the time went."""

from __future__ import annotations

from typing import Any


class CountingPort:
    """A pyserial port that counts bytes; everything else is the port's own."""

    _OWN = frozenset({"_port", "bytes_read", "bytes_written"})

    def __init__(self, port: Any) -> None:
        object.__setattr__(self, "_port", port)
        object.__setattr__(self, "bytes_read", 0)
        object.__setattr__(self, "bytes_written", 0)

    def read(self, size: int = 1) -> bytes:
        data: bytes = self._port.read(size)
        self.bytes_read += len(data)
        return data

    def write(self, data: Any) -> int | None:
        self.bytes_written += len(data)
        written: int | None = self._port.write(data)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CountingPort._OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._port, name, value)
