"""Speaks the firmware's UART protocol: one command, one acknowledgement, one result.

The protocol is documented in ``firmware/README.md``. The host sends only between acknowledgements, because the
UART of a chip that is writing flash loses bytes; a command that got no acknowledgement is repeated under the same
id, which the device answers without doing it twice.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from harness.console.events import DeviceEvent
from harness.console.reader import Console
from harness.console.redaction import Hidden, SecretBytes
from harness.errors import BoardError, UsageError

MAX_LINE_BYTES = 767
"""CONFIG_COMPANION_LINE_SIZE of the firmware, less the NUL."""
COMMAND = re.compile(r"[a-z][a-z0-9-]*")
MAX_WANTED_BYTES = 1 << 16
"""What a device may ask for at once: the firmware asks for less than a flash sector, and sends it piece by piece."""
MIN_PIECE_BYTES = 16
_SHOWN_CHARACTERS = 120
ACK_TIMEOUT_S = 3.0
ACK_ATTEMPTS = 3
"""A lost line is repeated twice; three losses in a row are a broken link."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to: the ``done`` event, or the refusal in the ``ack``."""

    command: str
    ok: bool
    error: str | None
    """Kebab-case name from ``raw_ota.h``, or ``refused`` words of the console; None when ok."""
    code: int
    """``esp_err_t``; 0 when ok or when no ESP-IDF call was involved."""
    fields: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...] = field(default=())
    """Progress events of this command, in order."""

    def __str__(self) -> str:
        if self.ok:
            return f"{self.command}: ok"
        code = f" (0x{self.code:x})" if self.code else ""
        said = f": {self.fields['msg']}" if self.fields.get("msg") else ""
        return f"{self.command}: {self.error}{code}{said}"


def command_line(command: str, identifier: int, arguments: Mapping[str, object]) -> bytes:
    """One line of the protocol with its CRC-32, newline included. `Hidden` values are sent and never shown.

    Raises:
        UsageError: no firmware would take it: the device drops such a line, and can name no id to refuse it under.
    """
    # With --showlocals pytest would print the words of the line, a password among them.
    __tracebackhide__ = True
    if not COMMAND.fullmatch(command):
        raise UsageError(
            f"'{command}' is not a command",
            todo="commands are lower case words: firmware/README.md lists them",
        )
    words = [command, f"id={identifier}"]
    words += [f"{key}={_encoded(value)}" for key, value in arguments.items()]
    text = " ".join(words)
    line = f"{text} crc={binascii.crc32(text.encode()):08x}\n".encode()
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(
            f"the line for '{command}' has {len(line)} bytes, the firmware takes {MAX_LINE_BYTES}",
            todo="shorten its arguments, such as the URL",
        )
    return SecretBytes(line)


def _number(event: Mapping[str, Any], name: str) -> int:
    """A number of 32 bits in an event of the device; -1 where it says something else."""
    value = event.get(name)
    return value if type(value) is int and 0 <= value <= 0xFFFFFFFF else -1


def _code_of(event: Mapping[str, Any]) -> int:
    """``esp_err_t`` of an answer; 0 where the device says none, or something that is none."""
    value = event.get("code", 0)
    return value if type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF else 0


def _encoded(value: object) -> str:
    """Percent-encoded; a hidden value altogether, so that nothing in it can be taken for the end of it."""
    if isinstance(value, Hidden):
        return quote(value.value, safe="")
    return quote(str(value), safe=":/?&=._-~+,@")


class DeviceClient:
    """Sends commands over a `Console`; ids never repeat within one harness run."""

    _ids = itertools.count(1)

    def __init__(self, console: Console, board: str) -> None:
        self._console = console
        self._board = board

    def send(
        self,
        command: str,
        arguments: Mapping[str, object],
        *,
        timeout_s: float = 10.0,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Answer:
        """Sends `command` and waits for its end, at most `timeout_s` seconds after the acknowledgement.

        Raises:
            BoardError: no acknowledgement after three attempts, no result in time, or the board restarted.
        """
        identifier = next(self._ids)
        mark = self._console.mark()
        line = command_line(command, identifier, arguments)
        ack = self._acknowledged(line, identifier, mark, command)
        if not ack.get("ok"):
            return Answer(command, False, str(ack.get("err", "refused")), _code_of(ack), ack)
        events: list[Mapping[str, Any]] = []

        def finished(event: DeviceEvent) -> bool:
            data = event.data
            if data.get("id") != identifier or data.get("ev") == "ack":
                return data.get("ev") == "boot"
            if data.get("ev") == "done":
                return True
            if data.get("ev") != "want":
                events.append(data)
            if on_event is not None:
                on_event(data)
            return False

        done = self._console.wait_for_event(
            finished, timeout_s=timeout_s, since=mark, what=f"the result of '{command}' (id {identifier})"
        ).data
        if done.get("ev") == "boot":
            raise BoardError(f"restarted while it worked on '{command}'", board=self._board)
        ok = bool(done.get("ok"))
        error = None if ok else str(done.get("err", "unknown"))
        return Answer(command, ok, error, _code_of(done), done, tuple(events))

    def send_with_data(
        self, command: str, arguments: Mapping[str, object], data: bytes, *, timeout_s: float
    ) -> Answer:
        """As `send`, for a command that asks for the bytes of `data` by ``want`` events (``ota-uart``).

        Whatever it asks for is sent, in its order, and nothing else: between two questions the device writes
        flash, and its UART would lose what came then.
        """

        def serve(event: Mapping[str, Any]) -> None:
            if event.get("ev") == "want":
                self._send_wanted(event, data)

        return self.send(command, {**arguments, "size": len(data)}, timeout_s=timeout_s, on_event=serve)

    def _send_wanted(self, event: Mapping[str, Any], data: bytes) -> None:
        """Answers one ``want``; a question about bytes that there are not ends the transfer."""
        identifier = int(event["id"])
        at, length, piece = (_number(event, name) for name in ("at", "len", "piece"))
        end = at + length
        answerable = 0 < length <= MAX_WANTED_BYTES and piece >= MIN_PIECE_BYTES and at >= 0
        if not answerable or end > len(data):
            asked = f"bytes {at} to {end} of {len(data)} in pieces of {piece}"
            self._console.note(f"the device asks for {asked[:_SHOWN_CHARACTERS]}: giving up")
            self._console.write(command_line("data", identifier, {"end": 1}))
            return
        lines = []
        for start in range(at, end, piece):
            text = base64.b64encode(data[start : min(start + piece, end)]).decode()
            lines.append(command_line("data", identifier, {"at": start, "b64": text}))
        self._console.write(b"".join(lines), shown=f"data id={identifier} at={at} ({length} bytes)")

    def _acknowledged(self, line: bytes, identifier: int, mark: int, command: str) -> Mapping[str, Any]:
        for attempt in range(1, ACK_ATTEMPTS + 1):
            self._console.write(line)
            event = self._console.poll_event(
                lambda e: e.data.get("ev") == "ack" and e.data.get("id") in (identifier, None, 0),
                timeout_s=ACK_TIMEOUT_S,
                since=mark,
            )
            if event is None:
                self._console.note(f"no acknowledgement of '{command}' (attempt {attempt} of {ACK_ATTEMPTS})")
                continue
            if event.data.get("err") == "bad-crc":
                self._console.note(f"'{command}' arrived damaged (attempt {attempt} of {ACK_ATTEMPTS})")
                mark = self._console.mark()
                continue
            return event.data
        raise BoardError(
            f"does not acknowledge '{command}' ({ACK_ATTEMPTS} attempts); log: {self._console.log_path}",
            board=self._board,
            todo="see the end of the log: is the companion firmware running, at this baud rate?",
        )
