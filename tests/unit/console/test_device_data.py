"""Commands whose device asks for data: what the client sends, and what it does not send."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from harness.board import Board
from harness.console.device import MAX_LINE_BYTES, DeviceClient
from harness.console.events import DeviceEvent
from harness.errors import UsageError


class ScriptedConsole:
    """A device whose answers follow from what it was sent."""

    def __init__(self, answer: Callable[[bytes], list[dict[str, Any]]]) -> None:
        self._answer = answer
        self._events: list[DeviceEvent] = []
        self.sent: list[bytes] = []
        self.log: list[str] = []

    def mark(self) -> int:
        return 0

    def note(self, text: str) -> None:
        self.log.append(text)

    def write(self, data: bytes, *, shown: str | None = None) -> None:
        self.sent.append(data)
        self.log.append(shown or data.decode())
        for fields in self._answer(data):
            self._events.append(DeviceEvent(len(self._events), fields["ev"], fields))

    def poll_event(self, wanted: Callable[[DeviceEvent], bool], **_: object) -> DeviceEvent | None:
        # The list grows while `wanted` answers, as a console's does.
        return next((event for event in iter(self._next(), None) if wanted(event)), None)

    def wait_for_event(self, wanted: Callable[[DeviceEvent], bool], **_: object) -> DeviceEvent:
        found = self.poll_event(wanted)
        assert found is not None, "no more events"
        return found

    def _next(self) -> Callable[[], DeviceEvent | None]:
        position = 0

        def give() -> DeviceEvent | None:
            nonlocal position
            position += 1
            return self._events[position - 1] if position <= len(self._events) else None

        return give


def device(*questions: Mapping[str, int]) -> Callable[[bytes], list[dict[str, Any]]]:
    """Asks `questions` one after the other, and is done then."""
    left = list(questions)

    def answer(data: bytes) -> list[dict[str, Any]]:
        identifier = int(re.findall(rb" id=(\d+)", data)[0])
        begun = [{"ev": "ack", "id": identifier, "ok": True}] if data.startswith(b"ota-uart") else []
        if left:
            return [*begun, {"ev": "want", "id": identifier, **left.pop(0)}]
        return [*begun, {"ev": "done", "id": identifier, "ok": True}]

    return answer


DATA = bytes(range(256)) * 40


def test_each_question_is_answered_with_the_lines_it_asks_for() -> None:
    wants = [{"at": 0, "len": 256, "piece": 528}, {"at": 256, "len": 4096, "piece": 528}]
    console = ScriptedConsole(device(*wants))
    client = DeviceClient(console, "desk")  # type: ignore[arg-type]
    answer = client.send_with_data("ota-uart", {"bare": 1}, DATA, timeout_s=60)
    assert answer.ok
    assert answer.events == ()
    assert f"size={len(DATA)}".encode() in console.sent[0]
    for want, sent in zip(wants, console.sent[1:], strict=True):
        lines = sent.splitlines(keepends=True)
        assert max(map(len, lines)) <= MAX_LINE_BYTES
        pieces = [re.search(rb" at=(\d+) b64=(\S+) crc=", line) for line in lines]
        assert all(pieces)
        assert int(pieces[0][1]) == want["at"]  # type: ignore[index]
        joined = b"".join(base64.b64decode(piece[2]) for piece in pieces if piece)
        assert joined == DATA[want["at"] : want["at"] + want["len"]]


def test_the_log_names_what_was_sent_and_does_not_repeat_it() -> None:
    console = ScriptedConsole(device({"at": 256, "len": 4096, "piece": 528}))
    DeviceClient(console, "desk").send_with_data("ota-uart", {}, DATA, timeout_s=60)  # type: ignore[arg-type]
    assert re.fullmatch(r"data id=\d+ at=256 \(4096 bytes\)", console.log[-1])


@pytest.mark.parametrize(
    "want",
    [
        {"at": len(DATA), "len": 16, "piece": 528},
        {"at": len(DATA) - 16, "len": 32, "piece": 528},
        {"at": -1, "len": 16, "piece": 528},
        {"at": 0, "len": 0, "piece": 528},
        {"at": 0, "len": 16, "piece": 0},
    ],
)
def test_a_question_for_bytes_that_there_are_not_ends_the_transfer(want: dict[str, int]) -> None:
    console = ScriptedConsole(device(want))
    DeviceClient(console, "desk").send_with_data("ota-uart", {}, DATA, timeout_s=60)  # type: ignore[arg-type]
    assert re.match(rb"data id=\d+ end=1 crc=", console.sent[-1])
    assert any("giving up" in line for line in console.log)


@pytest.mark.parametrize(
    ("net", "command", "over", "uart"),
    [
        ("wifi", "ota", None, False),
        ("none", "ota", None, True),
        ("none", "ota", "network", False),
        ("wifi", "ota", "uart", True),
        ("none", "ota-stock", None, False),
    ],
)
def test_a_firmware_without_a_network_is_updated_over_the_uart(
    net: str, command: str, over: Any, uart: bool
) -> None:
    notes: list[str] = []
    console = SimpleNamespace(boot_records=[SimpleNamespace(evt_boot={"net": net})], note=notes.append)
    board: Any = SimpleNamespace(name="desk", console=console)
    assert Board._goes_over_uart(board, command, over) is uart
    assert bool(notes) is (uart and over is None)


def test_the_stock_handler_takes_nothing_over_the_uart() -> None:
    board: Any = SimpleNamespace(name="desk")
    with pytest.raises(UsageError, match="ota-stock"):
        Board._goes_over_uart(board, "ota-stock", "uart")
