"""SLIP framing as the mask ROM and the flasher stub receive it; they differ where the input is wrong."""

from __future__ import annotations

import re
from collections import deque
from enum import Enum

END = 0xC0
ESCAPE = 0xDB
ESCAPED_END = 0xDC
ESCAPED_ESCAPE = 0xDD


def encode(packet: bytes) -> bytes:
    """One frame: END, the escaped packet, END."""
    escaped = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + escaped + b"\xc0"


_SPECIAL = re.compile(b"[\xc0\xdb]")


class Strictness(Enum):
    """What becomes of a frame that is too long or has a bad escape."""

    ROM = "rom"
    """Bytes beyond the buffer are dropped; a bad escape stands for its second byte."""
    STUB = "stub"
    """The whole frame is dropped, and the rest of it up to the next END."""


class SlipReceiver:
    """Collects frames of at most `limit_bytes` out of a byte stream; empty frames do not count.

    Bytes between frames are dropped. The first END of a frame opens it and the next one that follows a byte
    closes it; the frame after that needs an END of its own.
    """

    def __init__(self, limit_bytes: int, strictness: Strictness) -> None:
        self._limit = limit_bytes
        self._strict = strictness is Strictness.STUB
        self._frame = bytearray()
        self._open = False
        self._escaping = False
        self._done: deque[bytes] = deque()

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire."""
        at = 0
        while at < len(data):
            if not self._open and not self._escaping:
                # What lies between frames is dropped.
                start = data.find(END, at)
                if start < 0:
                    return
                at = start
            elif self._open and not self._escaping and data[at] not in (END, ESCAPE):
                at = self._take_run(data, at)
                continue
            self._take(data[at])
            at += 1

    def next(self) -> bytes | None:
        """The oldest complete frame not yet taken, or None."""
        return self._done.popleft() if self._done else None

    def _take_run(self, data: bytes, at: int) -> int:
        """Take all bytes up to the next special one in one go; returns the index behind them."""
        stop = _SPECIAL.search(data, at)
        end = stop.start() if stop is not None else len(data)
        self._append(data[at:end])
        return end

    def _take(self, byte: int) -> None:
        if not self._open:
            self._open = byte == END
            return
        if self._escaping:
            self._escaping = False
            if byte == ESCAPED_END:
                self._append(b"\xc0")
            elif byte == ESCAPED_ESCAPE:
                self._append(b"\xdb")
            elif self._strict:
                self._drop()
            else:
                self._append(bytes((byte,)))
        elif byte == ESCAPE:
            self._escaping = True
        elif self._frame:
            self._done.append(bytes(self._frame))
            self._drop()
        elif self._strict:
            # The stub takes an empty frame for a frame: the next END opens again.
            self._open = False

    def _append(self, data: bytes) -> None:
        room = self._limit - len(self._frame)
        if len(data) > room and self._strict:
            self._drop()
            return
        self._frame += data[:room]

    def _drop(self) -> None:
        self._frame.clear()
        self._open = False
        self._escaping = False
