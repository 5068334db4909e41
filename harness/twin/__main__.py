"""``python -m harness.twin``: start a virtual board and serve until stopped."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.chips import CHIPS, TWINS, Chip
from harness.errors import HarnessError, LabError
from harness.twin.control import Control, ControlServer
from harness.twin.machine import Boot, Machine
from harness.twin.server import HOST, UartServer
from harness.twin.state import FLASH_SIZES, StateFolder, parse_mac

EXIT_CANNOT_START = 3
EXIT_FAULT = 1
"""The twin itself is at fault; the report is on standard error."""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m harness.twin",
        description="A virtual board. Prints one line of JSON that says where its UART and its control "
        "channel listen, then serves until it is stopped.",
    )
    parser.add_argument("--chip", required=True, choices=sorted(TWINS))
    parser.add_argument("--state", required=True, type=Path, metavar="DIR", help="flash.bin and efuse.bin")
    parser.add_argument(
        "--build-store", required=True, type=Path, metavar="DIR", help="programs that the board may run"
    )
    parser.add_argument("--boot", choices=("run", "download", "off"), default="run", help="default: run")
    parser.add_argument("--mac", help="MAC of new eFuses (default: generated)")
    parser.add_argument("--flash-size", choices=sorted(FLASH_SIZES), help="size of a new flash (default 4MB)")
    parser.add_argument("--rfc2217", action="store_true", help="also listen for RFC 2217 clients")
    parser.add_argument("--port", type=int, default=0, help="TCP port of the UART (default: any free one)")
    parser.add_argument("--tie-to-stdin", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a twin; returns the exit code: 0, 3 when it cannot start, 1 for a fault of its own."""
    arguments = _arguments(argv)
    chip = CHIPS[arguments.chip]
    try:
        mac = parse_mac(arguments.mac) if arguments.mac else None
        size = FLASH_SIZES[arguments.flash_size] if arguments.flash_size else None
        folder = StateFolder.open(arguments.state, chip, flash_bytes=size, mac=mac)
    except HarnessError as error:
        return _complain(error)
    try:
        return _serve(arguments, chip, folder)
    except HarnessError as error:
        return _complain(error)
    finally:
        folder.close()


def _serve(arguments: argparse.Namespace, chip: Chip, folder: StateFolder) -> int:
    end = _End()
    end.ask_on(signal.SIGTERM, signal.SIGINT)
    machine = Machine(chip, folder, arguments.build_store, on_failure=end.ask_after_fault)
    servers: list[Any] = []
    try:
        try:
            uart = UartServer(machine.uart, arguments.port)
        except (OSError, OverflowError) as error:
            raise LabError(
                f"port {arguments.port} cannot be used: {error}", todo="use another --port, or none"
            ) from error
        servers.append(uart)
        control = ControlServer(Control(machine, uart.settle, end.ask))
        servers.append(control)
        rfc2217_url = None
        if arguments.rfc2217:
            from harness.twin.rfc2217 import Rfc2217Server

            rfc2217 = Rfc2217Server(machine)
            servers.append(rfc2217)
            rfc2217_url = f"rfc2217://{HOST}:{rfc2217.port}"
        for server in servers:
            server.start()
        started = {
            "twin": 1,
            "chip": chip.name,
            "mac": machine.efuses.mac.hex(":").upper(),
            "uart": f"socket://{HOST}:{uart.port}",
            "control": f"{HOST}:{control.port}",
            "rfc2217": rfc2217_url,
            "pid": os.getpid(),
        }
        folder.announce(started)
        machine.start(None if arguments.boot == "off" else Boot(arguments.boot))
        print(json.dumps(started), flush=True)  # noqa: T201 - the one line that a link reads
        if arguments.tie_to_stdin:
            threading.Thread(target=_watch_stdin, args=(end.ask,), daemon=True).start()
        end.wait()
    finally:
        for server in servers:
            server.stop()
        machine.stop()
    return EXIT_FAULT if end.by_fault else 0


class _End:
    """The wish to end, which a signal may utter too.

    A socket, not a threading.Event: a signal that comes just before the wait begins must end it as well, and
    only the interpreter's wake-up descriptor promises that.
    """

    def __init__(self) -> None:
        self._heard, self._said = socket.socketpair()
        self._said.setblocking(False)
        self.by_fault = False

    def ask_on(self, *signals: signal.Signals) -> None:
        for number in signals:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._said.fileno(), warn_on_full_buffer=False)

    def ask(self) -> None:
        # A full buffer has been asked often enough; a closed one has ended.
        with contextlib.suppress(OSError):
            self._said.send(b"x")

    def ask_after_fault(self) -> None:
        self.by_fault = True
        self.ask()

    def wait(self) -> None:
        self._heard.recv(1)


def _watch_stdin(ask: Callable[[], None]) -> None:
    # Not through sys.stdin: its lock would be held by this thread at exit.
    while os.read(0, 4096):
        pass
    ask()


def _complain(error: HarnessError) -> int:
    todo = f"; {error.todo}" if error.todo else ""
    print(f"twin: {error.message}{todo}", file=sys.stderr)  # noqa: T201
    return EXIT_CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
