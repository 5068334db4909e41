"""A lock that is an open file: the operating system frees it when its holder dies, however it dies.

On POSIX it is ``flock(2)`` on a file that is born locked, with its holder's note already in it, so that no kill comes
between; the kernel tells who holds it where it can (Linux: ``/proc/locks``), and the note says the rest. Made for folders
that everybody may write to: a link that somebody planted is not followed, nobody's file is truncated by another name, and
a file that was deleted or replaced meanwhile counts for nothing. Windows has `filelock` and a note beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.lock_note import NOTE_BYTES, Note, user_name

if sys.platform != "win32":
    import fcntl

NOTE_TIMEOUT_S = 1.0
"""Who locks a file that was there before writes its note right after it has the lock; until then it holds an old one."""

_ATTEMPTS = 50
"""Times that the file may vanish between opening and locking it: each needs another holder that lets go just then."""

_LOOKS_S = 1.0
"""Who only looks whether a lock is held (`holder_of`) may have a share of it for some microseconds, which is nobody's
lock. Whoever wants it tries again so long, in which a hundred looks end on the busiest machine."""


class LockHeldError(Exception):
    """Somebody else holds the lock."""

    def __init__(self, holder: str, note: Note | None = None) -> None:
        super().__init__(holder)
        self.holder = holder
        """Who, in words; "another process" when nothing tells."""
        self.note = note
        """The holder's own words, None when they are missing."""


def advice_for(lock: Path, error: OSError) -> str:
    """What a person does about a lock that could not be taken."""
    if error.errno in (errno.EROFS, errno.ENOSPC, errno.EDQUOT):
        return f"{lock.parent} has to take files: make room there, or use a state folder (HARNESS_HOME) elsewhere"
    return "remove that file if no job of yours or another user's runs"


class LockFile:
    """An exclusive lock on `path`, taken at once or not at all. Not inherited by child processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: _Flock | _Filelock | None = None
        self._note: Note | None = None

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
            self._note = note

    def renew(self, lease_s: int) -> None:
        """Says in the note that the lock is meant to be held for `lease_s` more seconds; nothing if it is not held.

        From any thread. A note that cannot be written (a full disk) leaves the lock as it is.
        """
        held, note = self._file, self._note
        if held is not None and note is not None:
            self._note = note.renewed(lease_s)
            held.tell(self._note)

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
            # Between one thread's look at the descriptor and its use of it another must not close it.
            self._guard = threading.Lock()
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

        def tell(self, note: Note) -> None:
            """Replaces the note."""
            with self._guard, contextlib.suppress(OSError):
                if self._descriptor >= 0:
                    _write_note(self._descriptor, note.bytes)

        def release(self) -> None:
            with self._guard:
                if self._descriptor >= 0:
                    self._let_go()

        def _let_go(self) -> None:
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
            self._close()

        def forget(self) -> None:
            """Closes the descriptor, no more: in a forked child the lock stays with the parent."""
            # A thread that had the old one is not in the child.
            self._guard = threading.Lock()
            self._close()

        def _close(self) -> None:
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
            # A lock without a note is a lock: that the disk is full must keep nobody from a board.
            with contextlib.suppress(OSError):
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
            if not _flocked(descriptor):
                raise _held(descriptor)
            if not _is_at(path, descriptor):
                os.close(descriptor)
                return None
            with contextlib.suppress(OSError):
                _write_note(descriptor, note)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _flocked(descriptor: int) -> bool:
        """Locks the open file, unless somebody has it."""
        deadline = time.monotonic() + _LOOKS_S
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if _is_refused_a_share(descriptor) or time.monotonic() >= deadline:
                return False
            # Those who look, or also want it and found only those who look: not in step with them.
            time.sleep(random.uniform(0.0005, 0.005))

    def _write_note(descriptor: int, note: bytes) -> None:
        """Over the old one, and not after emptying the file: who reads meanwhile reads one of the two."""
        os.pwrite(descriptor, note, 0)
        os.ftruncate(descriptor, len(note))

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
            note = Note.parsed(os.pread(descriptor, NOTE_BYTES, 0))
            if note is not None and (note.pid == pid or (pid is None and note.may_live())):
                return LockHeldError(note.text(), note)
            if time.monotonic() >= deadline:
                return LockHeldError("another process" if pid is None else _process_text(pid))
            time.sleep(0.02)

    def _holder_of(path: Path) -> Holder | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError:
            # Nobody but its owner may read it, or it is a link that somebody planted. Only the kernel can still tell.
            try:
                pid = _flock_pid(path.lstat())
            except OSError:
                return None
            return Holder(pid, None) if pid is not None else None
        try:
            pid = _flock_pid(os.fstat(descriptor))
            if pid is None and not _is_refused_a_share(descriptor):
                return None
            note = Note.parsed(os.pread(descriptor, NOTE_BYTES, 0))
            trusted = note is not None and (note.pid == pid or (pid is None and note.may_live()))
            return Holder(pid, note if trusted else None)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _is_refused_a_share(descriptor: int) -> bool:
        """Where the kernel's list names no holder: it may be in another container, or this is not Linux."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False

    def _flock_pid(status: os.stat_result) -> int | None:
        """The process that the kernel has as holder; None: it does not tell, or the holder is in another container."""
        file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        with contextlib.suppress(OSError, ValueError):
            for line in Path("/proc/locks").read_text().splitlines():
                # "7: FLOCK  ADVISORY  WRITE 2911 fe:00:1234 0 EOF"; one who waits has "->" as second word.
                words = line.split()
                if words[1:2] == ["FLOCK"] and words[3] == "WRITE" and words[5] == file and int(words[4]) > 0:
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
        self._guard = threading.Lock()

    @classmethod
    def taken(cls, path: Path, note: Note) -> _Filelock:
        """As `LockFile.acquire`."""
        lock, note_path = FileLock(path), _note_beside(path)
        try:
            # Not at once: who only looks has it for a moment.
            lock.acquire(timeout=_LOOKS_S / 10, poll_interval=_LOOKS_S / 100)
        except Timeout:
            found = _note_at(note_path)
            raise LockHeldError(found.text() if found else "another process", found) from None
        note_path.write_bytes(note.bytes)
        return cls(lock, note_path)

    @classmethod
    def holder_of(cls, path: Path) -> Holder | None:
        """As the function of this name."""
        if not path.exists():
            return None
        try:
            with FileLock(path, timeout=0):
                return None
        except Timeout:
            return Holder(None, _note_at(_note_beside(path)))
        except OSError:
            return None

    def tell(self, note: Note) -> None:
        """Replaces the note."""
        with self._guard, contextlib.suppress(OSError):
            if self._lock.is_locked:
                self._note_path.write_bytes(note.bytes)

    def release(self) -> None:
        """Lets go."""
        with self._guard:
            self._note_path.unlink(missing_ok=True)
            self._lock.release()


def _note_beside(path: Path) -> Path:
    return path.with_suffix(".holder")


def _note_at(path: Path) -> Note | None:
    try:
        return Note.parsed(path.read_bytes())
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock, as far as that can be told."""

    pid: int | None
    """As the kernel has it; None: it does not tell (not Linux, or the holder is in another container)."""
    note: Note | None
    """The holder's own words; None: there are none that are certainly its own."""


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock on `path`; None: nobody. The lock is not taken, and nobody who wants it is kept from it."""
    return _Filelock.holder_of(path) if os.name == "nt" else _holder_of(path)
