"""What a cut is: its kind, its trigger, and what came of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from harness.errors import UsageError


class CutKind(str, Enum):
    """How a board was stopped. Only the first takes the supply away from chip and flash."""

    POWER = "power"
    """The supply was cut: a hub, a command, the end of an emulator's process, the twin's model of it."""
    RESET = "reset"
    """EN by DTR/RTS. The flash stays supplied, and completes an erase that is under way."""
    RESTART = "restart"
    """``esp_restart`` of the firmware, between two flash operations."""
    PANIC = "panic"
    """``abort`` of the firmware, between two flash operations."""
    WATCHDOG = "watchdog"
    """The task watchdog, after the firmware has stood still between two flash operations."""

    @property
    def by_firmware(self) -> bool:
        """Whether the firmware does it itself, on command."""
        return self in (CutKind.RESTART, CutKind.PANIC, CutKind.WATCHDOG)


@dataclass(frozen=True, slots=True)
class ServedByte:
    """When the server has sent what comes before byte `at_byte` of the transfer; negative counts from its end.

    The device may not have taken all of it by then: what it was doing at that moment is not known.
    """

    at_byte: int

    def __str__(self) -> str:
        return f"at byte {self.at_byte} of the download"


@dataclass(frozen=True, slots=True)
class LogLine:
    """When the board has printed a line like `pattern` (a regular expression).

    The line comes a UART's and a scheduler's delay before the cut: some milliseconds, which are in the result.
    """

    pattern: str

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UsageError(f"'{self.pattern}' is no regular expression: {error}") from error

    def __str__(self) -> str:
        return f"at a line like /{self.pattern}/"


class Counted(str, Enum):
    """What the firmware counts: sectors erased, calls that write, or both."""

    ANY = "any"
    ERASE = "erase"
    WRITE = "write"


class Side(str, Enum):
    """On which side of its operation a cut is."""

    BEFORE = "before"
    INSIDE = "inside"
    """A write is made in two, with the cut between them."""
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class FlashOperation:
    """At the `n`-th change of a slot or of otadata that the firmware makes from now on (``cut-at``).

    Raises:
        UsageError: `n` below 1, or inside something else than a write.
    """

    n: int
    counted: Counted = Counted.ANY
    side: Side = Side.BEFORE
    byte: int | None = None
    """Inside: how many bytes are written before the cut, rounded down to 16 where the write enciphers; None: half."""

    def __post_init__(self) -> None:
        if self.n < 1:
            raise UsageError(f"operations are counted from 1, not from {self.n}")
        if self.side is Side.INSIDE and self.counted is not Counted.WRITE:
            raise UsageError("only a write can be cut inside by the firmware that does it")

    def arguments(self) -> dict[str, Any]:
        """Of the command ``cut-at``, but for the kind."""
        byte: dict[str, Any] = {} if self.byte is None else {"byte": self.byte}
        return {"op": self.counted.value, "n": self.n, "where": self.side.value, **byte}

    def __str__(self) -> str:
        what = "operation" if self.counted is Counted.ANY else self.counted.value
        return f"{self.side.value} {what} {self.n}"


Trigger = ServedByte | LogLine | FlashOperation


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut that is asked for.

    Raises:
        UsageError: a kind that its trigger cannot bring about.
    """

    kind: CutKind
    trigger: Trigger

    def __post_init__(self) -> None:
        if self.kind.by_firmware and not isinstance(self.trigger, FlashOperation):
            raise UsageError(
                f"the firmware does not stop itself {self.trigger}: no {self.kind.value} comes there",
                todo="use power or reset, or a flash operation as the trigger",
            )

    def __str__(self) -> str:
        return f"{self.kind.value} {self.trigger}"


_HOOK_LINE = re.compile(
    r"\bcut: (before|inside|after) operation (\d+), (\w+) of (\d+) bytes at (.+)\+0x([0-9a-f]+): (\w+)$"
)


@dataclass(frozen=True, slots=True)
class Struck:
    """The operation that the firmware's hook named in the log before it stopped."""

    side: Side
    n: int
    function: str
    """``esp_partition_write``, ``esp_partition_write_raw`` or ``esp_partition_erase_range``."""
    partition: str
    offset: int
    """Within the partition; bytes."""
    size_bytes: int
    """Inside a write: of the part that was written."""

    @classmethod
    def of_line(cls, text: str) -> Struck | None:
        """What a line of the log tells; None when it is not the hook's."""
        match = _HOOK_LINE.search(text)
        if match is None:
            return None
        return cls(Side(match[1]), int(match[2]), match[3], match[5], int(match[6], 16), int(match[4]))

    def layer(self, *, ported: bool) -> str:
        """Whose sequence the operation belongs to.

        Args:
            ported: on a twin what stands for ESP-IDF is the port of it.
        """
        if self.function == "esp_partition_write_raw":
            return "shipping C"
        return "port of ESP-IDF" if ported else "ESP-IDF"

    def __str__(self) -> str:
        return f"{self.function} of {self.size_bytes} bytes at {self.partition}+{self.offset:#x}"


UNKNOWN_LAYER = "unknown"
"""Of a cut that came at a byte or a line: what was under way then, nobody saw."""


@dataclass(frozen=True, slots=True)
class CutResult:
    """What came of one cut."""

    board: str
    work: str
    """What was cut: `harness.cuts.guard.Work`'s word."""
    asked: CutKind
    kind: CutKind
    """What it was in truth."""
    how: str
    """By what: ``uhubctl 1-1 port 2``, ``DTR/RTS of /dev/ttyUSB0``, ``esp_restart of the firmware's hook``."""
    trigger: str
    struck: bool
    """False: the work was over before the trigger came, or the cut was left out; nothing was cut."""
    operation: Struck | None = None
    layer: str = UNKNOWN_LAYER
    delay_ms: float | None = None
    """From the trigger, as this host saw it, to the cut; None where the firmware does it itself."""
    booted: str = ""
    """The boot that followed, in one line."""
    slot: str | None = None
    version: str | None = None
    violations: tuple[str, ...] = ()
    """What it broke, of what no cut may break; empty: nothing, or not looked at."""
    left_out: str | None = None
    """Why it was not tried."""

    @property
    def weaker_than_asked(self) -> bool:
        return self.kind is not self.asked

    def to_json(self) -> dict[str, Any]:
        """For the artefacts; ``exhaustive`` is in each, so that nobody reads a list of cuts as more than it is."""
        operation = None
        if self.operation is not None:
            operation = {
                "function": self.operation.function,
                "partition": self.operation.partition,
                "offset": self.operation.offset,
                "size": self.operation.size_bytes,
                "side": self.operation.side.value,
                "n": self.operation.n,
            }
        return {
            "board": self.board,
            "work": self.work,
            "asked": self.asked.value,
            "kind": self.kind.value,
            "how": self.how,
            "trigger": self.trigger,
            "struck": self.struck,
            "operation": operation,
            "layer": self.layer,
            "delay_ms": None if self.delay_ms is None else round(self.delay_ms, 1),
            "booted": self.booted,
            "slot": self.slot,
            "version": self.version,
            "violations": list(self.violations),
            "left_out": self.left_out,
            "exhaustive": False,
        }

    def __str__(self) -> str:
        broken = "".join(f"; VIOLATED: {each}" for each in self.violations)
        if self.left_out is not None:
            return f"{self.work}: left out: {self.left_out}"
        if not self.struck:
            return f"{self.work}: no cut, it was over first ({self.trigger}){broken}"
        kind = (
            f"{self.kind.value} (asked for: {self.asked.value})"
            if self.weaker_than_asked
            else self.kind.value
        )
        where = f" ({self.operation}; {self.layer})" if self.operation is not None else ""
        return f"{self.work}: {kind} by {self.how} {self.trigger}{where}{broken}"


def summary_of(results: list[CutResult]) -> str:
    """One line for a report: how many cuts of which kind, and that they are a sample."""
    struck = [result for result in results if result.struck]
    kinds = ", ".join(
        f"{sum(result.kind is kind for result in struck)} {kind.value}"
        for kind in CutKind
        if any(result.kind is kind for result in struck)
    )
    broken = sum(bool(result.violations) for result in results)
    weaker = sum(result.weaker_than_asked for result in struck)
    less = f", {weaker} of them weaker than asked for" if weaker else ""
    left = sum(result.left_out is not None for result in results)
    out = f", {left} left out" if left else ""
    return f"{len(struck)} cuts ({kinds or 'none'}{less}), {broken} with a violation{out}; a sample, not exhaustive"
