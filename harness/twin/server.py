"""The UART as a raw TCP port: one client at a time, bytes as they are."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import threading
import time

from harness.twin.uart import Uart

HOST = "127.0.0.1"
_PATIENCE_S = 1.0
"""How long the board waits for a client that does not read; then its bytes are lost, as on a wire."""
_READ_BYTES = 1 << 16
_STOP = b"x"
_SETTLE = b"s"


def listen(port: int = 0) -> socket.socket:
    """A listening socket on the loopback interface; port 0 lets the system choose.

    Raises:
        OSError: the port is taken.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # A twin that is restarted on a fixed port must not wait for the old connection to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(8)
    except OSError:
        listener.close()
        raise
    return listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


class LineWriter:
    """Writes to a socket without ever blocking the board for long."""

    def __init__(self, connection: socket.socket, uart: Uart) -> None:
        self._connection = connection
        self._uart = uart
        self._stalled = False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def write(self, data: bytes) -> None:
        """Send `data`; what a client does not take in time is lost and counted."""
        rest = memoryview(data)
        deadline = time.monotonic() + (0 if self._stalled else _PATIENCE_S)
        while rest:
            try:
                rest = rest[self._connection.send(rest) :]
                self._stalled = False
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left > 0:
                    # A closed descriptor shows at the next send.
                    with contextlib.suppress(OSError, ValueError):
                        select.select([], [self._connection], [], left)
                    continue
                self._stalled = True
                self._uart.note_lost(len(rest))
                return
            except OSError:
                self._uart.note_lost(len(rest))
                return


class UartServer:
    """Lends `uart` to one TCP client at a time; another one is closed at once."""

    def __init__(self, uart: Uart, port: int = 0) -> None:
        self._uart = uart
        self._listener = listen(port)
        self.port = port_of(self._listener)
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        self._client: tuple[socket.socket, LineWriter] | None = None
        self._settling = threading.Lock()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uart", daemon=True)

    def start(self) -> None:
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._thread.start()

    def settle(self) -> None:
        """Return when every client that has connected or gone so far is known.

        Whoever connects and then resets the board through another channel must not miss its first line.
        """
        with self._settling:
            self._settled.clear()
            self._waker.send(_SETTLE)
            self._settled.wait(timeout=1)

    def stop(self) -> None:
        """Close the port and the client."""
        self._waker.send(_STOP)
        self._thread.join(timeout=2)
        self._drop()
        for thing in (self._listener, self._wake, self._waker):
            thing.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            ready = [key.fileobj for key, _ in self._selector.select()]
            if self._client is not None and self._client[0] in ready:
                self._read()
            if self._listener in ready:
                self._accept()
            if self._wake in ready:
                words = self._wake.recv(64)
                if _STOP in words:
                    return
                self._accept()
                self._settled.set()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # A client that has gone was there before this one, even if its end was not read yet.
            while self._read():
                pass
            writer = LineWriter(connection, self._uart)
            if not self._uart.attach(writer.write):
                connection.close()
                continue
            self._client = (connection, writer)
            self._selector.register(connection, selectors.EVENT_READ)

    def _read(self) -> bool:
        """Take what the client has sent; False when there is nothing (more), or no client."""
        if self._client is None:
            return False
        try:
            data = self._client[0].recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop()
            return False
        self._uart.feed(data)
        return True

    def _drop(self) -> None:
        if self._client is None:
            return
        connection, writer = self._client
        self._client = None
        self._uart.detach(writer.write)
        self._selector.unregister(connection)
        connection.close()
