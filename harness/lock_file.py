"""A lock that is an open file: the operating system frees it when its holder dies, however it dies.

On POSIX it is ``flock(2)`` on a file that is born locked, with its holder's note already in it, so that no kill comes
between; the kernel tells who holds it where it can (Linux: ``/proc/locks``), and the note says the rest. Made for folders
that everybody may write to: a link that somebody planted is not followed, nobody's file is truncated by another name, and
a file that was deleted or replaced meanwhile counts for nothing. Windows has `filelock` and a note beside it.
"""

from __future__ import annotations

import contextlib
import errno
import getpass
import json
import os
import re
import socket
import stat
import sys
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

if sys.platform != "win32":
    import fcntl
    import pwd

NOTE_TIMEOUT_S = 1.0
"""Who locks a file that was there before writes its note right after it has the lock; until then it holds an old one."""

_ATTEMPTS = 50
"""Times that the file may vanish between opening and locking it: each needs another holder that lets go just then."""

_NOTE_BYTES = 4096
_TEXT_LENGTH = 120


@dataclass(frozen=True, slots=True)
class Note:
    """What a holder says of itself. `user` and `pid` are believed only as far as the kernel does not know better."""

    user: str
    host: str
    pid: int
    board: str
    purpose: str
    since: str
    """Local time, ``YYYY-MM-DD HH:MM:SS``."""

    @classmethod
    def of_this_process(cls, board: str, purpose: str) -> Note:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(user_name(), socket.gethostname(), os.getpid(), board, purpose, now)

    @classmethod
    def parsed(cls, data: bytes) -> Note | None:
        """The note in a file that others may write to; None: there is none, or not a whole one."""
        try:
            fields = json.loads(data)
            texts = {key: _plain(fields[key]) for key in ("user", "host", "board", "purpose", "since")}
            pid = fields["pid"]
        except (ValueError, KeyError, TypeError):
            return None
        return cls(pid=pid, **texts) if type(pid) is int and pid > 0 else None

    @property
    def bytes(self) -> bytes:
        """One line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def text(self) -> str:
        """For a person."""
        user = self.user if self.host == socket.gethostname() else f"{self.user} on {self.host}"
        return f"{user} (process {self.pid}, {self.purpose}, since {self.since})"

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


class LockHeldError(Exception):
    """Somebody else holds the lock."""

    def __init__(self, holder: str, note: Note | None = None) -> None:
        super().__init__(holder)
        self.holder = holder
        """Who, in words; "another process" when nothing tells."""
        self.note = note
        """The holder's own words, None when they are missing."""


class LockFile:
    """An exclusive lock on `path`, taken at once or not at all. Not inherited by child processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: _Flock | _Filelock | None = None

    @property
    def is_held(self) -> bool:
        """By this object."""
        return self._file is not None

    def acquire(self, note: Note) -> None:
        """Takes the lock and leaves `note` for those who come too late.

        Raises:
            LockHeldError: somebody else has it. OSError: the file cannot be made or opened, or is no plain file.
        """
        if self._file is None:
            self._file = (
                _Filelock.taken(self.path, note) if os.name == "nt" else _Flock.taken(self.path, note)
            )

    def release(self) -> None:
        """Lets go; may be called twice."""
        held, self._file = self._file, None
        if held is not None:
            held.release()


if sys.platform != "win32":

    class _Flock:
        """A locked descriptor."""

        def __init__(self, path: Path, descriptor: int) -> None:
            self._path = path
            self._descriptor = descriptor
            _OPEN.add(self)

        @classmethod
        def taken(cls, path: Path, note: Note) -> _Flock:
            """As `LockFile.acquire`."""
            for _ in range(_ATTEMPTS):
                descriptor = _born_locked(path, note.bytes)
                if descriptor is None:
                    descriptor = _locked_existing(path, note.bytes)
                if descriptor is not None:
                    return cls(path, descriptor)
            raise LockHeldError("others, one after the other")

        def release(self) -> None:
            if self._descriptor < 0:
                return
            with contextlib.suppress(OSError):
                if _is_at(self._path, self._descriptor):
                    # In a sticky folder only its owner may; then the note goes, and the file waits for the next.
                    try:
                        self._path.unlink()
                    except OSError:
                        os.ftruncate(self._descriptor, 0)
            with contextlib.suppress(OSError):
                # A child between fork and exec has the descriptor, too: closing ours would not free the lock.
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.forget()

        def forget(self) -> None:
            """Closes the descriptor, no more: in a forked child the lock stays with the parent."""
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)

    _OPEN: weakref.WeakSet[_Flock] = weakref.WeakSet()

    def _forget_all() -> None:
        for lock in list(_OPEN):
            lock.forget()

    # A started program loses the descriptors at exec (PEP 446); a forked child that execs nothing, here.
    os.register_at_fork(after_in_child=_forget_all)

    def _born_locked(path: Path, note: bytes) -> int | None:
        """A new file that appears locked and with its note; None: there is one already."""
        try:
            descriptor = _nameless(path.parent)
        except OSError:
            # Not Linux, or a file system without nameless files.
            return _created(path, note)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Other users must be able to lock it after us. In a shared folder its name stays ours (sticky bit).
            os.fchmod(descriptor, 0o666)
            os.write(descriptor, note)
            if _give_name(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _nameless(folder: Path) -> int:
        flags: int = getattr(os, "O_TMPFILE", 0)
        if not flags or not Path("/proc/self/fd").is_dir():
            raise OSError(errno.EOPNOTSUPP, "no nameless files here")
        return os.open(folder, flags | os.O_RDWR, 0o600)

    def _give_name(descriptor: int, path: Path) -> bool:
        """False: the name is taken."""
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # With a folder's descriptor Python calls linkat(2), which can follow the link in /proc.
            os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True

    def _created(path: Path, note: bytes) -> int | None:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            return None
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o666)
        return _locked(path, descriptor, note)

    def _locked_existing(path: Path, note: bytes) -> int | None:
        """None: the file has gone since, or is another one now."""
        # Without O_CREAT: with it, fs.protected_regular refuses another user's file in a sticky folder.
        flags = os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            try:
                descriptor = os.open(path, os.O_RDWR | flags)
            except PermissionError:
                # Enough for a lock; only the note is then missing.
                descriptor = os.open(path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return None
        return _locked(path, descriptor, note)

    def _locked(path: Path, descriptor: int, note: bytes) -> int | None:
        """Locks what was opened at `path`; closes it otherwise."""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no plain file", str(path))
            if status.st_nlink > 1:
                # A note in it would overwrite what has another name.
                raise OSError(errno.EMLINK, "it is a hard link to another file", str(path))
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _held(descriptor) from None
            if not _is_at(path, descriptor):
                os.close(descriptor)
                return None
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, note, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_at(path: Path, descriptor: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            there = path.lstat()
        except OSError:
            return False
        ours = os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _held(descriptor: int) -> LockHeldError:
        deadline = time.monotonic() + NOTE_TIMEOUT_S
        while True:
            pid = _flock_pid(os.fstat(descriptor))
            note = Note.parsed(os.pread(descriptor, _NOTE_BYTES, 0))
            if note is not None and (note.pid == pid or (pid is None and note.may_live())):
                return LockHeldError(note.text(), note)
            if time.monotonic() >= deadline:
                return LockHeldError("another process" if pid is None else _process_text(pid))
            time.sleep(0.02)

    def _flock_pid(status: os.stat_result) -> int | None:
        """The process that the kernel has as holder; None: it does not tell, or the holder is in another container."""
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/locks").read_text().splitlines():
                # "7: FLOCK  ADVISORY  WRITE 2911 fe:00:1234 0 EOF"; one who waits has "->" as second word.
                words = line.split()
                if words[1:2] == ["FLOCK"] and words[5] == file and int(words[4]) > 0:
                    return int(words[4])
        return None

    def _process_text(pid: int) -> str:
        try:
            return f"{user_name(Path(f'/proc/{pid}').stat().st_uid)} (process {pid})"
        except OSError:
            return f"process {pid}"


class _Filelock:
    """Windows: a locked file cannot be read there, so the note lies beside it."""

    def __init__(self, lock: FileLock, note_path: Path) -> None:
        self._lock = lock
        self._note_path = note_path

    @classmethod
    def taken(cls, path: Path, note: Note) -> _Filelock:
        """As `LockFile.acquire`."""
        lock, note_path = FileLock(path), path.with_suffix(".holder")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            found = Note.parsed(note_path.read_bytes()) if note_path.exists() else None
            raise LockHeldError(found.text() if found else "another process", found) from None
        note_path.write_bytes(note.bytes)
        return cls(lock, note_path)

    def release(self) -> None:
        self._note_path.unlink(missing_ok=True)
        self._lock.release()


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


def _plain(text: object) -> str:
    """What another user wrote, fit for a terminal."""
    if not isinstance(text, str):
        raise TypeError(text)
    return re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", text)[:_TEXT_LENGTH]
