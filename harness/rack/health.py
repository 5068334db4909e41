"""Which boards are broken, since when and why, and when each was last used; in the state folder, for all processes.

A board that failed to be prepared or stopped answering is latched broken: whoever wants it next is told so instead of
failing again. `harness boards mend` looks at it and clears that.

Each fact is a file of its own, so that no two processes ever write halves of one: ``health/NAME.broken`` exists while the
board is broken, and the time of ``health/NAME.used`` is when it was last used.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.errors import AppDownError, BoardError, LabError, LinkError
from harness.home import Home
from harness.vault.record_file import TEMPORARY_SUFFIX

FORMAT = 1

FOLDER = "health"
RETIRED = "retired"
"""The reason of a board that was taken out of service begins with it; a colon and more may follow."""
_BROKEN = ".broken"
_USED = ".used"
_LONGEST = 2000
"""Characters of a reason."""
_LARGEST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a board."""

    board: str
    broken: str | None
    """Why it is broken; None: it is not known to be."""
    since_s: float | None
    """Since when it is, in seconds since 1970; None: it is not, or that cannot be told."""
    run: str | None
    """The run that found it broken: ``pytest tests/ota (process 4711)``."""
    last_used_s: float | None
    """When a run last opened it or let go of it; None: never."""

    @property
    def retired(self) -> bool:
        """It is not broken: somebody has taken it out of service (``harness retire``)."""
        return self.broken is not None and self.broken.partition(":")[0] == RETIRED

    def text(self) -> str:
        """Of a board that is broken or retired, one sentence for a person."""
        since = "" if self.since_s is None else f" since {time.strftime(_TIME, time.localtime(self.since_s))}"
        if self.retired:
            assert self.broken is not None
            return f"board {self.board} is retired{since}{self.broken.removeprefix(RETIRED)}"
        by = "" if self.run is None else f" (found by {self.run})"
        return f"board {self.board} is latched broken{since}{by}: {self.broken}"


_TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file of a broken board says."""

    reason: str
    since_s: float
    run: str | None

    @classmethod
    def parsed(cls, data: bytes) -> _Record:
        """Raises ValueError: it is damaged, or of a newer harness; says which."""
        try:
            fields = json.loads(data)
            version, reason, run = fields["format"], fields["reason"], fields["run"]
            since_s = float(fields["since_s"])
            time.localtime(since_s)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError):
            raise ValueError("it is damaged") from None
        if type(version) is int and version > FORMAT:
            raise ValueError(f"it is of a newer harness (format {version})")
        if version != FORMAT or not isinstance(reason, str) or not (run is None or isinstance(run, str)):
            raise ValueError("it is damaged")
        return cls(reason, since_s, run)

    @property
    def bytes(self) -> bytes:
        fields = {"format": FORMAT, "reason": self.reason, "since_s": self.since_s, "run": self.run}
        return json.dumps(fields, indent=1).encode() + b"\n"


def mend_command(name: str, *, retired: bool = False) -> str:
    """What clears it."""
    return f"harness boards mend {name}{' --bring-back' if retired else ''}"


class HealthBook:
    """The health of all boards of one state folder, by name."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / FOLDER

    def of(self, name: str) -> Health:
        """What is known of the board `name`. A damaged record is a broken board: what it was is not known any more."""
        last_used_s = _time_of(self._folder / f"{name}{_USED}")
        path = self._folder / f"{name}{_BROKEN}"
        try:
            with path.open("rb") as file:
                record = _Record.parsed(file.read(_LARGEST_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return Health(name, None, None, None, last_used_s)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return Health(name, f"its health record {path} cannot be read: {why}", None, None, last_used_s)
        return Health(name, record.reason, record.since_s, record.run, last_used_s)

    def all(self) -> dict[str, Health]:
        """Every board of which anything is known, by name."""
        try:
            files = sorted(path.name for path in self._folder.iterdir())
        except OSError:
            return {}
        names = {name.removesuffix(end) for name in files for end in (_BROKEN, _USED) if name.endswith(end)}
        return {name: self.of(name) for name in sorted(names)}

    def latch(self, name: str, reason: str, run: str | None = None) -> None:
        """From now on the board is broken, for `reason`. One that was already keeps the time since when it is.

        Raises:
            LabError: that cannot be written.
        """
        before = self.of(name)
        since_s = before.since_s if before.broken is not None and before.since_s is not None else time.time()
        path = self._home.folder(FOLDER) / f"{name}{_BROKEN}"
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        try:
            with new.open("xb") as file:
                file.write(_Record(reason[:_LONGEST], since_s, run).bytes)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise LabError(
                f"that it is broken cannot be written to {path}: {error.strerror}",
                board=name,
                todo="check space and permissions of HARNESS_HOME",
            ) from error

    def mend(self, name: str) -> None:
        """From now on the board is not known to be broken; nothing if it was not.

        Raises:
            LabError: the record cannot be removed.
        """
        path = self._folder / f"{name}{_BROKEN}"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise LabError(
                f"the health record {path} cannot be removed: {error.strerror}",
                board=name,
                todo="set HARNESS_HOME to a folder that you may write to",
            ) from error

    def used(self, name: str) -> None:
        """A run uses the board now. That this cannot be written (a read-only folder) stops no work."""
        with suppress(LabError, OSError):
            (self._home.folder(FOLDER) / f"{name}{_USED}").touch()


def latches(error: BaseException) -> bool:
    """Whether a board for which preparing it, or talking to it, ended with `error` is broken from then on.

    It is when the board did not do what a board does (`BoardError`: no answer, no boot, no such chip), or the way to it
    failed (`LinkError`: its port is gone, its twin has died). It is not when somebody else has it, when consent is
    missing or its state cannot reach the profile, when the input is wrong, when a check of a test failed, or when
    this machine failed: a compiler, a vault, a full disk. Those say nothing of the board, and the next one would
    fail alike. Nor does an app that somebody gave and that does not come up (`AppDownError`).
    """
    return isinstance(error, (BoardError, LinkError)) and not isinstance(error, AppDownError)


def order(names: Iterable[str], book: HealthBook) -> list[str]:
    """`names` in the order in which they are best taken: healthy before broken, then never used, then least recently."""

    def rank(name: str) -> tuple[bool, float]:
        health = book.of(name)
        return health.broken is not None, health.last_used_s if health.last_used_s is not None else -1.0

    return sorted(names, key=rank)


def _time_of(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
