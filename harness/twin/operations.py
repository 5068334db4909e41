"""The one place that every change of flash and eFuses passes: numbering, log, injected faults, power cuts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from harness.twin.half_done import Extent


class PowerLost(Exception):  # noqa: N818 - not an error: the supply is gone
    """The supply went away during (or just before, or just after) an operation.

    It must travel up to the machine: whoever runs on the board catches neither it nor a base class of it.
    """


class FlashFault(Exception):  # noqa: N818 - the flash driver's failure, not the twin's
    """A flash operation failed; `code` is the ``esp_err_t`` that the driver on the board returns."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message or f"flash operation failed with 0x{code:x}")
        self.code = code


class CutPoint(str, Enum):
    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of flash or eFuses, or one failed attempt.

    `kind` is ``write``, ``write-encrypted``, ``erase`` or ``burn``; `offset` is a flash address, for ``burn``
    the block number; `who` is ``rom``, ``stub``, ``bootloader`` or ``app``; `boot` counts the board's boots.
    """

    number: int
    kind: str
    offset: int
    length: int
    who: str
    boot: int = 0
    at_s: float = field(default=0.0, compare=False)
    """When it began, Unix seconds by the clock of this host."""


@dataclass(frozen=True, slots=True)
class Change:
    """One operation with what it wrote: enough to do it again on the same stored state.

    `data` are the bytes that a write programs (ciphertext if it went through the cipher engine), or those that a burn
    blows in its block, check bytes behind them; nothing for an erase.
    """

    operation: Operation
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class PowerCut:
    """Cut the supply at operation `at_op` (the number that the log gives it).

    Only for INSIDE: `byte`, how many bytes were done, and `mixture`, see `harness.twin.half_done.Extent`.
    """

    at_op: int
    where: CutPoint
    byte: int = 0
    mixture: int | None = None
    stays: bool = False
    """No reset brings the supply back, only somebody who switches it on."""

    def extent(self, length: int) -> Extent | None:
        """How much of an operation of `length` bytes it leaves done; None: the operation did not begin."""
        if self.where is CutPoint.BEFORE:
            return None
        return (
            Extent(min(self.byte, length), self.mixture) if self.where is CutPoint.INSIDE else Extent(length)
        )


@dataclass(slots=True)
class _Fault:
    kind: str
    code: int
    after: int
    count: int
    who: str | None


#: Fault words of the control channel, and the operation kind that each strikes.
FAULT_KINDS = {"write-encrypted": "write-encrypted", "write-raw": "write", "erase": "erase", "read": "read"}


class OperationLog:
    """Numbers operations, lets faults strike and cuts the supply.

    `on_power_lost` is called once, from the thread that does the operation, before `PowerLost` is
    raised. From then on every operation raises `PowerLost` until `restore_power`, so that nothing changes
    afterwards.
    """

    def __init__(self, keep: int = 200_000) -> None:
        self._lock = threading.RLock()
        self._log: deque[Operation] = deque(maxlen=keep)
        self._next = 0
        self._faults: list[_Fault] = []
        self._cut: PowerCut | None = None
        self._dead = False
        self.boot = 0
        """The boot that operations are logged under; the machine counts it."""
        self.on_power_lost: Callable[[PowerCut], None] = lambda _: None
        self.journal: list[Change] | None = None
        """Takes every operation with its data, in order, while it is a list."""

    @property
    def next_number(self) -> int:
        """The number that the next operation gets."""
        return self._next

    @property
    def lock(self) -> threading.RLock:
        """Held while one operation is carried out."""
        return self._lock

    def since(self, number: int) -> tuple[Operation, ...]:
        """All operations kept from `number` on, oldest first."""
        with self._lock:
            if not self._log:
                return ()
            skip = max(0, number - self._log[0].number)
            return tuple(op for i, op in enumerate(self._log) if i >= skip)

    def add_fault(
        self, kind: str, code: int, *, after: int = 0, count: int = 1, who: str | None = None
    ) -> None:
        """Let `count` operations of `kind` (a key of FAULT_KINDS) fail with `code`, `after` good ones."""
        with self._lock:
            self._faults.append(_Fault(FAULT_KINDS[kind], code, after, count, who))

    def clear_faults(self) -> None:
        with self._lock:
            self._faults.clear()

    def set_cut(self, cut: PowerCut | None) -> None:
        """Arm one cut, or disarm."""
        with self._lock:
            self._cut = cut

    def restore_power(self) -> None:
        with self._lock:
            self._dead = False

    def check_read(self, who: str) -> None:
        """Let a read fault strike; reads are neither numbered nor logged.

        Raises:
            FlashFault, PowerLost
        """
        if self._dead:
            raise PowerLost
        if self._faults:
            self._strike("read", who)

    def carry_out(
        self,
        kind: str,
        offset: int,
        length: int,
        who: str,
        apply: Callable[[Extent], None],
        *,
        data: bytes = b"",
    ) -> None:
        """Do one operation: ``apply(extent)`` changes as much as that says. `data` is for the journal.

        Raises:
            FlashFault: an injected fault struck; nothing was changed.
            PowerLost: the supply was cut at this operation, or is already gone.
        """
        with self._lock:
            if self._dead:
                raise PowerLost
            number = self._next
            self._next += 1
            operation = Operation(number, kind, offset, length, who, self.boot, time.time())
            self._log.append(operation)
            self._strike(kind, who)
            if self.journal is not None:
                self.journal.append(Change(operation, data))
            cut = self._cut if self._cut is not None and self._cut.at_op == number else None
            if cut is None:
                apply(Extent(length))
                return
            self._cut = None
            extent = cut.extent(length)
            if extent is not None:
                apply(extent)
            self._dead = True
        self.on_power_lost(cut)
        raise PowerLost

    def _strike(self, kind: str, who: str) -> None:
        with self._lock:
            for fault in self._faults:
                if fault.kind != kind or (fault.who is not None and fault.who != who):
                    continue
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.count > 0:
                    fault.count -= 1
                    raise FlashFault(fault.code)
