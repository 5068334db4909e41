"""Hands a board's bytes to whoever reads the other end of a socket pair, such as pexpect.

The console's reader must never wait for a test that is busy elsewhere. So a thread of its own does the
sending, and what it cannot send yet is kept, up to a bound; beyond it the oldest bytes go, and a line in
the stream says so.
"""

from __future__ import annotations

import socket
import threading
from collections import deque

KEPT_BYTES = 8 * 1024 * 1024
"""Twelve minutes of a UART at 115200 baud that nobody reads."""

STOP_TIMEOUT_S = 1.0


class ExpectFeed:
    """One consumer. `put` never blocks."""

    def __init__(self, sink: socket.socket, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._sink = sink
        self._kept_bytes = kept_bytes
        self._waiting: deque[bytes] = deque()
        self._size_bytes = 0
        self._dropped_bytes = 0
        self._ended = False
        self._broken = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._send, name="expect-feed", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether anybody still takes what is put."""
        return not self._broken and not self._ended

    def put(self, data: bytes) -> None:
        """Queues `data`; without effect once the consumer has gone."""
        if not data:
            return
        with self._changed:
            if self._ended or self._broken:
                return
            self._waiting.append(data)
            self._size_bytes += len(data)
            while self._size_bytes > self._kept_bytes and len(self._waiting) > 1:
                oldest = self._waiting.popleft()
                self._size_bytes -= len(oldest)
                self._dropped_bytes += len(oldest)
            self._changed.notify()

    def end(self) -> None:
        """No more will come: the consumer gets what is queued, then the end of the stream. Does not wait."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def stop(self) -> None:
        """Ends the feed; the consumer has `STOP_TIMEOUT_S` to take what is queued. May be called twice."""
        self.end()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            # The consumer reads no more: free the thread from its send.
            _shut(self._sink, socket.SHUT_RDWR)
            self._thread.join(STOP_TIMEOUT_S)

    def _send(self) -> None:
        reported = 0
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    break
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._size_bytes = 0
                lost, reported = self._dropped_bytes - reported, self._dropped_bytes
            if lost:
                data = b"\r\n>>> note: %d bytes were not kept for expect\r\n" % lost + data
            try:
                self._sink.sendall(data)
            except OSError:
                # The other end has been closed: a test that is over, or has what it wanted.
                self._broken = True
                return
        _shut(self._sink, socket.SHUT_WR)


def _shut(sink: socket.socket, how: int) -> None:
    try:
        sink.shutdown(how)
    except OSError:
        return
