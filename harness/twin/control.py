"""The control channel: one JSON object per line each way, several clients.

``{"op": ...}`` is answered by ``{"ok": true, ...}`` or ``{"ok": false, "error": "..."}``. It does what a lab
does to a board from outside: reset and straps, power, injected faults, and it tells what happened inside.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from harness.errors import HarnessError, UsageError
from harness.twin.machine import Boot, Machine
from harness.twin.operations import FAULT_KINDS, CutPoint, PowerCut
from harness.twin.server import listen, port_of

VERSION = 1
MAX_LINE_BYTES = 1 << 16

_LARGEST_ERROR = 0x7FFFFFFF
"""``esp_err_t`` is a signed number of 32 bits."""
_LARGEST_NUMBER = (1 << 63) - 1
_SHOWN_CHARACTERS = 80
"""Of what was sent in a refusal."""

Answer = dict[str, Any]


class Control:
    """The operations, apart from how they travel.

    `settle` is called before every operation: clients of the UART that connected before are then known.
    """

    def __init__(self, machine: Machine, settle: Callable[[], None], on_stop: Callable[[], None]) -> None:
        self._machine = machine
        self._settle = settle
        self._on_stop = on_stop
        self._ops: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "status": self._status,
            "reset": self._reset,
            "power": self._power,
            "fault": self._fault,
            "cut": self._cut,
            "flash-log": self._flash_log,
            "account": self._account,
            "stop": self._stop,
        }

    def answer(self, line: bytes) -> Answer:
        """Carry out the request in `line`; errors become an answer."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _refusal(f"not JSON: {error}")
        if not isinstance(request, dict):
            return _refusal("a request is a JSON object")
        handler = self._ops.get(str(request.get("op")))
        if handler is None:
            return _refusal(f"unknown op {_shown(request.get('op'))}; known: {', '.join(self._ops)}")
        self._settle()
        try:
            return {"ok": True, **handler(request)}
        except HarnessError as error:
            return _refusal(error.message)

    def _status(self, _request: dict[str, Any]) -> Answer:
        status = self._machine.status
        return {
            "version": VERSION,
            "state": status.state.value,
            "boot": status.strap.value,
            "boots": status.boots,
            "app_pid": status.app_pid,
            "halted": status.halted_because,
            "client": self._machine.uart.client_connected,
            **self._account(_request),
        }

    def _account(self, _request: dict[str, Any]) -> Answer:
        account = self._machine.uart.account
        return {
            "baud": self._machine.uart.baud,
            "rx_bytes": account.rx_bytes,
            "tx_bytes": account.tx_bytes,
            "tx_lost_bytes": account.tx_lost_bytes,
            "wire_seconds": round(account.wire_seconds, 6),
        }

    def _reset(self, request: dict[str, Any]) -> Answer:
        word = request.get("boot", Boot.RUN.value)
        if word not in (Boot.RUN.value, Boot.DOWNLOAD.value):
            raise UsageError(f"boot is 'run' or 'download', not {_shown(word)}")
        self._machine.reset(Boot(word), power_cycle=_flag(request, "power", default=False))
        return {}

    def _power(self, request: dict[str, Any]) -> Answer:
        self._machine.set_power(_flag(request, "on"))
        return {}

    def _fault(self, request: dict[str, Any]) -> Answer:
        kind = request.get("kind")
        operations = self._machine.operations
        if kind == "clear":
            operations.clear_faults()
            return {}
        if not isinstance(kind, str) or kind not in FAULT_KINDS:
            raise UsageError(
                f"fault kind {_shown(kind)} is unknown; known: {', '.join((*FAULT_KINDS, 'clear'))}"
            )
        who = request.get("who")
        if who is not None and not isinstance(who, str):
            raise UsageError("who is a word: rom, stub, host, bootloader or app")
        operations.add_fault(
            kind,
            _number(request, "error", most=_LARGEST_ERROR),
            after=_number(request, "after", default=0),
            count=_number(request, "count", default=1),
            who=who,
        )
        return {}

    def _cut(self, request: dict[str, Any]) -> Answer:
        operations = self._machine.operations
        if request.get("kind") == "clear":
            operations.set_cut(None)
            return {}
        where = request.get("where", CutPoint.BEFORE.value)
        if where not in [point.value for point in CutPoint]:
            raise UsageError(f"where is before, inside or after, not {_shown(where)}")
        at_op = _number(request, "at_op")
        mixture = _number(request, "mixture") if request.get("mixture") is not None else None
        byte, stays = _number(request, "byte", default=0), _flag(request, "stays", default=False)
        operations.set_cut(PowerCut(at_op, CutPoint(where), byte, mixture, stays))
        return {"next": operations.next_number}

    def _flash_log(self, request: dict[str, Any]) -> Answer:
        operations = self._machine.operations
        since = _number(request, "since", default=0)
        ops = operations.since(since)
        rows = [[op.number, op.kind, op.offset, op.length, op.who, op.boot] for op in ops]
        moments = [round(op.at_s, 4) for op in ops]
        return {"ops": rows, "at": moments, "next": ops[-1].number + 1 if ops else operations.next_number}

    def _stop(self, _request: dict[str, Any]) -> Answer:
        # A moment later, so that the answer gets out before the process ends.
        threading.Timer(0.02, self._on_stop).start()
        return {}


class ControlServer:
    """Serves a `Control` on a TCP port, one thread per client."""

    def __init__(self, control: Control, port: int = 0) -> None:
        self._control = control
        self._listener = listen(port)
        self.port = port_of(self._listener)
        self._clients: set[socket.socket] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all clients."""
        self._closing = True
        # Closing alone does not end an accept that is under way.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=1)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), client.makefile("rb") as lines:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while line := lines.readline(MAX_LINE_BYTES):
                if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
                    client.sendall(_encode(_refusal(f"a line has at most {MAX_LINE_BYTES} bytes")))
                    break
                if line.strip():
                    client.sendall(_encode(self._control.answer(line)))
        self._clients.discard(client)


def _encode(answer: Answer) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def _refusal(error: str) -> Answer:
    return {"ok": False, "error": error}


def _number(
    request: dict[str, Any], name: str, *, default: int | None = None, most: int = _LARGEST_NUMBER
) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UsageError(f"{name} is a number from 0 to {most}, not {_shown(value)}")
    return value


def _flag(request: dict[str, Any], name: str, *, default: bool | None = None) -> bool:
    value = request.get(name, default)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is true or false, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """As it was sent, but not at any length."""
    return json.dumps(value)[:_SHOWN_CHARACTERS]
