"""Which boards are broken, since when and why, and when each was last used; in the state folder, for all processes.

A board that failed to be prepared or stopped answering is latched broken: whoever wants it next is told so instead of
failing again. `harness boards mend` looks at it and clears that. A board that somebody retired (`harness retire`) is
not broken: it is no board of the rack any more, until that is undone.

Each fact is a file of its own, so that no two processes ever write halves of one: ``health/NAME.broken`` exists while the
board is broken, ``health/NAME.retired`` while it is retired; the time of ``health/NAME.used`` is that of its last use.
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
_BROKEN = ".broken"
_RETIRED = ".retired"
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
    retired: str | None = None
    """Why somebody took it off the bench (perhaps no words); None: nobody did."""
    retired_s: float | None = None
    """Since when, in seconds since 1970."""

    def retired_text(self) -> str:
        """Of a retired board, one sentence for a person."""
        since = (
            f" since {time.strftime(_TIME, time.localtime(self.retired_s))}"
            if self.retired_s is not None
            else ""
        )
        why = f": {self.retired}" if self.retired else ""
        return f"board {self.board} is retired{since}{why}"

    def text(self) -> str:
        """Of a broken board, one sentence for a person."""
        since = "" if self.since_s is None else f" since {time.strftime(_TIME, time.localtime(self.since_s))}"
        by = "" if self.run is None else f" (found by {self.run})"
        return f"board {self.board} is latched broken{since}{by}: {self.broken}"


_TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class _Record:
    """What the file of a broken, or of a retired, board says."""

    reason: str
    since_s: float | None
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


def mend_command(name: str) -> str:
    """What clears it."""
    return f"harness boards mend {name}"


def take_back_command(name: str) -> str:
    """What makes a retired board one of the rack again."""
    return f"harness retire {name} --undo"


class HealthBook:
    """The health of all boards of one state folder, by name."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._folder = home.root / FOLDER

    def of(self, name: str) -> Health:
        """What is known of the board `name`. One whose record is damaged is broken (or retired): why is lost."""
        broken, retired = self._read(name, _BROKEN), self._read(name, _RETIRED)
        return Health(
            name,
            broken.reason if broken is not None else None,
            broken.since_s if broken is not None else None,
            broken.run if broken is not None else None,
            _time_of(self._folder / f"{name}{_USED}"),
            retired.reason if retired is not None else None,
            retired.since_s if retired is not None else None,
        )

    def _read(self, name: str, ending: str) -> _Record | None:
        path = self._folder / f"{name}{ending}"
        try:
            with path.open("rb") as file:
                return _Record.parsed(file.read(_LARGEST_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            return _Record(f"its health record {path} cannot be read: {why}", None, None)

    def all(self) -> dict[str, Health]:
        """Every board of which anything is known, by name."""
        try:
            files = sorted(path.name for path in self._folder.iterdir())
        except OSError:
            return {}
        endings = (_BROKEN, _RETIRED, _USED)
        names = {name.removesuffix(end) for name in files for end in endings if name.endswith(end)}
        return {name: self.of(name) for name in sorted(names)}

    def latch(self, name: str, reason: str, run: str | None = None) -> None:
        """From now on the board is broken, for `reason`. One that was already keeps the time since when it is.

        Raises:
            LabError: that cannot be written.
        """
        before = self.of(name)
        since_s = before.since_s if before.broken is not None and before.since_s is not None else time.time()
        self._write(name, _BROKEN, _Record(reason[:_LONGEST], since_s, run))

    def retire(self, name: str, reason: str, run: str | None = None) -> None:
        """From now on the board is none of the rack, for `reason` (which may be empty). Errors as `latch`."""
        before = self.of(name).retired_s
        self._write(name, _RETIRED, _Record(reason[:_LONGEST], before or time.time(), run))

    def take_back(self, name: str) -> None:
        """From now on the board is not retired; nothing if it was not. Errors as `mend`."""
        self._remove(name, _RETIRED)

    def _write(self, name: str, ending: str, record: _Record) -> None:
        path = self._home.folder(FOLDER) / f"{name}{ending}"
        new = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        try:
            with new.open("xb") as file:
                file.write(record.bytes)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise LabError(
                f"that it is {ending[1:]} cannot be written to {path}: {error.strerror}",
                board=name,
                todo="check space and permissions of HARNESS_HOME",
            ) from error

    def mend(self, name: str) -> None:
        """From now on the board is not known to be broken; nothing if it was not.

        Raises:
            LabError: the record cannot be removed.
        """
        self._remove(name, _BROKEN)

    def _remove(self, name: str, ending: str) -> None:
        path = self._folder / f"{name}{ending}"
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
