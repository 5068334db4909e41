"""A board for tests of the firmware: a `FakeChip`, a bootloader of twenty lines, and the UART protocol by hand."""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fake_chip import LARGEST_IMAGE, FakeChip, in_thread

from harness.build.artefacts import Artefacts
from harness.errors import FormatError
from harness.formats.app_image import parse_app_image
from harness.formats.native_payload import native_program
from harness.formats.otadata import OtaData, OtaRecord, OtaState, Verdict
from harness.formats.partition_table import Partition, PartitionTable

DEADLINE_S = 120.0


@dataclass
class FakeBoard:
    """Boots the firmware that lies in its flash, and talks to it."""

    chip: FakeChip
    table: PartitionTable
    store: Path
    lines: list[str] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    running: Partition | None = None
    process: subprocess.Popen[bytes] | None = None
    _stderr: Any = None
    _queue: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    _next_id: int = 100
    _ended: Any = None
    _reader: Any = None

    @classmethod
    def provisioned(cls, artefacts: Artefacts, store: Path, **facts: Any) -> FakeBoard:
        """A board as the harness provisions it: table, enciphered blank otadata, the app in the first slot."""
        chip = FakeChip(artefacts.chip, table_offset=artefacts.table_offset, **facts)
        table = artefacts.partition_table
        assert table.otadata is not None
        chip.put(artefacts.table_offset, table.to_binary())
        chip.put(table.otadata.offset, OtaData.blank().to_bytes())
        chip.put(table.ota_slots[0].offset, artefacts.app.read_bytes())
        return cls(chip, table, store)

    # Bootloader

    @property
    def otadata(self) -> OtaData:
        assert self.table.otadata is not None
        return OtaData.from_bytes(self.chip.read_plain(self.table.otadata.offset, 0x2000))

    def write_otadata(self, data: OtaData) -> None:
        assert self.table.otadata is not None
        self.chip.put(self.table.otadata.offset, data.to_bytes())

    def _set_record(self, index: int, record: OtaRecord) -> None:
        records = list(self.otadata.records)
        records[index] = record
        self.write_otadata(OtaData((records[0], records[1])))

    def _mark(self, index: int, state: OtaState) -> None:
        self._set_record(index, OtaRecord.make(self.otadata.records[index].seq, state))

    def _select(self) -> Partition:
        """What ESP-IDF's bootloader boots, rollback included."""
        for index, record in enumerate(self.otadata.records):
            if record.crc_ok and record.state == OtaState.PENDING_VERIFY:
                self._mark(index, OtaState.ABORTED)
        slots, data = self.table.ota_slots, self.otadata
        selection = data.select(len(slots))
        wanted = selection.slot_index or 0
        for number in [*range(wanted, -1, -1), *range(wanted + 1, len(slots))]:
            if self._boots(slots[number]):
                break
        if selection.verdict is Verdict.INITIAL and data.is_initial_or_damaged:
            self._set_record(0, OtaRecord.make(number + 1, OtaState.VALID))
        elif selection.record_index is not None:
            record = data.records[selection.record_index]
            if record.state == OtaState.NEW:
                self._mark(selection.record_index, OtaState.PENDING_VERIFY)
        return slots[number]

    def _boots(self, slot: Partition) -> bool:
        try:
            image = parse_app_image(self.chip.read_plain(slot.offset, LARGEST_IMAGE))
        except FormatError:
            return False
        return image.checksum_ok and image.hash_ok is True

    def boot(self, reason: int = 1, hint: int = 0) -> dict[str, Any]:
        """Resets the board; the firmware's `boot` event."""
        self.reset(reason, hint)
        return self.wait_event("boot")

    def reset(self, reason: int = 1, hint: int = 0) -> None:
        """Resets the board and starts what the bootloader chooses."""
        self.stop()
        self.lines.clear()
        self.running = self._select()
        self.chip.boot_offset = self.running.offset
        self.chip.reset_reason, self.chip.restart_hint = reason, hint
        program = native_program(parse_app_image(self.chip.read_plain(self.running.offset, LARGEST_IMAGE)))
        assert program is not None
        path = self.store / hashlib.sha256(program).hexdigest()
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        with theirs:
            self.process = subprocess.Popen(
                [str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=(theirs.fileno(),),
                env={"ESP_TWIN_FD": str(theirs.fileno()), "PATH": os.defpath},
            )
        process = self.process
        self._queue = queue.Queue()
        self._reader = in_thread(lambda: self._read_lines(process))
        self._ended = in_thread(lambda: self._serve(ours, process))

    def _serve(self, connection: socket.socket, process: subprocess.Popen[bytes]) -> None:
        with connection:
            self.chip.serve(connection)
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait()

    def _read_lines(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout:
            self._take_lines(process.stdout)

    def _take_lines(self, output: IO[bytes]) -> None:
        for raw in output:
            assert raw.endswith(b"\r\n"), raw
            line = raw[:-2].decode()
            self.lines.append(line)
            if line.startswith("@evt "):
                event = checked_event(line)
                self.events.append(event)
                self._queue.put(event)

    def stop(self) -> None:
        """Power off."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self._ended.join(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process = None
        with self._stderr:
            self._stderr.seek(0)
            said = self._stderr.read().decode(errors="replace")
        assert not said, f"the program says what no firmware says (a sanitizer?): {said}"

    def wait_restart(self) -> int:
        """Waits until the firmware has asked for a reset; the reason it gave."""
        self._ended.join(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        assert self.chip.restarts, "no restart was asked for"
        return self.chip.restarts[-1]

    # UART

    def write(self, data: bytes) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(
        self, command: str, *, identifier: int | None = None, crc: bool = True, **arguments: object
    ) -> int:
        """Sends one line; its id."""
        if identifier is None:
            self._next_id += 1
            identifier = self._next_id
        text = " ".join([command, f"id={identifier}", *(f"{k}={v}" for k, v in arguments.items())])
        tail = f" crc={binascii.crc32(text.encode()):08x}" if crc else ""
        self.write(f"{text}{tail}\n".encode())
        return identifier

    def wait_event(self, kind: str, **wanted: object) -> dict[str, Any]:
        """The next event of this kind whose fields have these values."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                event = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no event {kind} {wanted}; log:\n" + "\n".join(self.lines)) from None
            if event["ev"] == kind and all(event.get(key) == value for key, value in wanted.items()):
                return event

    def command(self, command: str, **arguments: object) -> dict[str, Any]:
        """Sends a command, demands its acknowledgement, and gives its `done`."""
        identifier = self.send(command, **arguments)
        ack = self.wait_event("ack", id=identifier)
        assert ack["ok"], ack
        return self.wait_event("done", id=identifier)

    def logged(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def checked_event(line: str) -> dict[str, Any]:
    """The event of a line, its CRC checked."""
    body = line.removeprefix("@evt ")
    event: dict[str, Any] = json.loads(body)
    text = body[: body.rindex(',"crc":')]
    assert event["crc"] == f"{binascii.crc32(text.encode()):08x}", line
    return event
