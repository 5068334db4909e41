"""What the holder of a lock says of itself, in the lock's own file or beside it."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sys
import time
from dataclasses import asdict, dataclass, replace

if sys.platform != "win32":
    import pwd

NOTE_BYTES = 4096
"""More than any note has."""

_TEXT_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Note:
    """What a holder says of itself. `user` and `pid` are believed only as far as the kernel does not know better.

    Its times are of the wall clock and for people: nothing is decided by them. Whether a lock is held, the kernel knows.
    """

    user: str
    host: str
    pid: int
    board: str
    purpose: str
    since: str
    """Local time, ``YYYY-MM-DD HH:MM:SS``."""
    reason: str = ""
    """More than the purpose: ``pytest tests/ota -k switch in CI job 4711``."""
    since_s: int = 0
    """Seconds since 1970; 0: not said."""
    until_s: int = 0
    """When the lease ends unless it is renewed; 0: this lock is not renewed, it is held for a moment only."""

    @classmethod
    def of_this_process(cls, board: str, purpose: str, *, reason: str = "", lease_s: int = 0) -> Note:
        """`lease_s`: how long it is for, unless it is renewed; 0: not said."""
        began = int(time.time())
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))
        until = began + lease_s if lease_s else 0
        host = socket.gethostname()
        return cls(user_name(), host, os.getpid(), board, purpose, now, _plain(reason), began, until)

    @classmethod
    def parsed(cls, data: bytes) -> Note | None:
        """The note in a file that others may write to; None: there is none, or not a whole one."""
        try:
            # What follows the first line is the end of a longer one before it.
            fields = json.loads(data.partition(b"\n")[0])
            user, host, board, purpose, since = (
                _plain(fields[key]) for key in ("user", "host", "board", "purpose", "since")
            )
            # Not in the notes of an earlier version, which may hold the board.
            reason = _plain(fields.get("reason", ""))
            began, until = (_seconds(fields.get(key, 0)) for key in ("since_s", "until_s"))
            pid = fields["pid"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        if type(pid) is not int or pid <= 0:
            return None
        return cls(user, host, pid, board, purpose, since, reason, began, until)

    @property
    def bytes(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def renewed(self, lease_s: int) -> Note:
        """The same, for `lease_s` more seconds from now. As long as before, so it replaces that in one write."""
        return replace(self, until_s=int(time.time()) + lease_s)

    def text(self) -> str:
        """For a person."""
        user = self.user if self.host == socket.gethostname() else f"{self.user} on {self.host}"
        what = self.reason or self.purpose
        return f"{user} (process {self.pid}, {what}, since {self.since}{self._end()})"

    def _end(self) -> str:
        if not self.until_s:
            return ""
        over = self.until_s < time.time()
        return f", overdue since {clock(self.until_s)}" if over else f", lease until {clock(self.until_s)}"

    def may_live(self) -> bool:
        """Whether its process can still be there; a killed one leaves its note behind."""
        if os.name != "posix" or self.host != socket.gethostname():
            return True
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # another user's
        return True


def clock(seconds: float) -> str:
    """Local time of `seconds` since 1970: of today ``HH:MM:SS``, else with the date before it."""
    then = time.localtime(seconds)
    today = time.strftime("%Y-%m-%d", then) == time.strftime("%Y-%m-%d")
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def user_name(uid: int | None = None) -> str:
    """The name of user `uid` (default: of this process), by its number where it has none, as in many containers.

    Not from LOGNAME, which whoever called sudo, or anybody, has set.
    """
    if sys.platform == "win32":
        return getpass.getuser()
    number = os.geteuid() if uid is None else uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


_LAST_SECOND = 1 << 34
"""Of the year 2514: what another user wrote is to be a time that can be shown."""


def _seconds(value: object) -> int:
    if type(value) is not int or not 0 <= value < _LAST_SECOND:
        raise TypeError(value)
    return value


def _plain(text: object) -> str:
    """What another user wrote, fit for a terminal."""
    if not isinstance(text, str):
        raise TypeError(text)
    return re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", text)[:_TEXT_LENGTH]
