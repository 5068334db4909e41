"""QEMU's machine protocol: JSON objects on a stream, one request at a time, events in between."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

REPLY_TIMEOUT_S = 10.0


class QmpError(Exception):
    """QEMU refuses a command, or the stream has ended."""


class Qmp:
    """The client's side of one connection, past the greeting.

    Raises:
        QmpError: what is at the other end does not speak QMP.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(REPLY_TIMEOUT_S)
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._lock = threading.Lock()
        self._events: list[str] = []
        try:
            if "QMP" not in self._next():
                raise QmpError("it does not greet as QEMU does")
            self.execute("qmp_capabilities")
        except QmpError:
            self.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """Runs `command`; gives what it returns.

        Raises:
            QmpError: QEMU refuses it, or is gone.
        """
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        with self._lock:
            self._events.clear()
            try:
                self._connection.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise QmpError(f"'{command}' cannot be sent: {error}") from error
            while True:
                reply = self._next()
                if "return" in reply:
                    return reply["return"]
                if "error" in reply:
                    raise QmpError(f"'{command}' is refused: {reply['error'].get('desc', reply['error'])}")

    def await_event(self, name: str) -> None:
        """Returns when event `name` has come since the last command was sent.

        Raises:
            QmpError: it did not come within `REPLY_TIMEOUT_S`, or QEMU is gone.
        """
        with self._lock:
            while name not in self._events:
                self._next()

    def _next(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
            message = json.loads(line) if line else None
        except (OSError, ValueError) as error:
            raise QmpError(f"no answer: {error or type(error).__name__}") from error
        if not isinstance(message, dict):
            raise QmpError("the connection was closed")
        if "event" in message:
            self._events.append(str(message["event"]))
        return message

    def close(self) -> None:
        """Closes the connection; may be called twice."""
        self._lines.close()
        self._connection.close()
