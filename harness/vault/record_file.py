"""Small JSON files that must survive a power cut: private, atomic, synced, versioned and checked.

Every file has ``format`` (an integer; newer code reads all older ones, older code refuses newer ones) and
``check``, the SHA-256 over the rest, which tells a damaged file from a wrong secret.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from harness.errors import LabError
from harness.vault.errors import DamagedError, NewerFormatError, UnsafePermissionsError

FILE_MODE = 0o600
FOLDER_MODE = 0o700
TEMPORARY_SUFFIX = ".part"
_LARGEST_FILE_BYTES = 1 << 20
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def canonical(fields: Mapping[str, Any]) -> bytes:
    """The one byte string that stands for `fields`: sorted keys, no spaces, ASCII."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def require_private(path: Path) -> None:
    """Refuses a path that others than its owner may touch. Does nothing on Windows, which has no such modes.

    Raises:
        UnsafePermissionsError: mode or owner are wrong.
    """
    if os.name != "posix":
        return
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise UnsafePermissionsError(
            f"{path} belongs to another user (uid {status.st_uid})",
            todo="give the vault to the user who runs the harness (chown), or use a vault of your own",
        )
    if status.st_mode & _OTHERS:
        wanted = "700" if path.is_dir() else "600"
        raise UnsafePermissionsError(
            f"{path} may be read or written by others (mode {stat.S_IMODE(status.st_mode):o})",
            todo=f"chmod {wanted} {path}; if others may have read it, treat its keys as known to them",
        )


def make_private_folder(path: Path) -> None:
    """Makes `path` and what is missing above it, mode 0700, synced; existing folders are left as they are.

    Raises:
        LabError: it cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            sync_folder(folder.parent)
    except OSError as error:
        raise LabError(
            f"the folder {path} cannot be made: {error.strerror}", todo="choose a place that you may write to"
        ) from error


def sync_folder(path: Path) -> None:
    """Brings a folder's entries to disk, so that a rename in it survives a power cut (POSIX only)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` at `path` in one step: temporary file, fsync, rename, fsync of the folder, re-read.

    A kill at any moment leaves the old file or the new one, never half of one.

    Raises:
        LabError: the file cannot be written.
        DamagedError: what was read back is not what was written.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 -- the test of kills hooks this very call
        sync_folder(path.parent)
        back = path.read_bytes()
    except OSError as error:
        with suppress(OSError):  # whatever is in the way of writing may be in the way of this
            temporary.unlink(missing_ok=True)
        raise LabError(
            f"{path} cannot be written: {error.strerror}", todo="check space and permissions of the folder"
        ) from error
    if back != data:
        raise DamagedError(
            f"{path} does not read back as it was written", todo="do not burn anything; check the disk"
        )


def write_record(path: Path, fields: Mapping[str, Any]) -> None:
    """Writes `fields` (which has ``format``) with its checksum; see `write_bytes`."""
    body = {key: value for key, value in fields.items() if key != "check"}
    body["check"] = _check_of(body)
    write_bytes(path, json.dumps(body, indent=1, ensure_ascii=True).encode("ascii") + b"\n")


def read_record(path: Path, *, newest: int, what: str, private: bool = True) -> dict[str, Any]:
    """Reads a record; `newest` is the highest format this code knows, `what` names the file in errors.

    Raises:
        UnsafePermissionsError: `private`, and others may touch it.
        NewerFormatError: written by a newer harness.
        DamagedError: not JSON, no valid format, or the checksum does not fit.
        LabError: it cannot be read.
    """
    if private:
        require_private(path)
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise _damaged(path, what, "it is far too large")
        data = path.read_bytes()
    except OSError as error:
        raise LabError(f"{what} {path} cannot be read: {error.strerror}") from error
    return parse_record(data, path, newest=newest, what=what)


def parse_record(data: bytes, path: Path, *, newest: int, what: str) -> dict[str, Any]:
    """The checked fields of a record's bytes; errors as `read_record`."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, what, "it is not JSON") from error
    if not isinstance(fields, dict):
        raise _damaged(path, what, "it is not a JSON object")
    version = fields.get("format")
    if type(version) is not int or version < 1:
        raise _damaged(path, what, "it has no format number")
    if version > newest:
        raise NewerFormatError(
            f"{what} {path} has format {version}; this harness knows formats up to {newest}. "
            "Nothing was changed.",
            todo="install the newer harness that wrote it",
        )
    check = fields.pop("check", None)
    if not isinstance(check, str) or check != _check_of(fields):
        raise _damaged(path, what, "its checksum does not fit")
    return fields


@contextmanager
def shredded_after(file: Path) -> Iterator[None]:
    """Overwrites the bytes that `file` had, once the block has put another file in its place.

    The old file is held open, so a kill in between leaves the new one. What a file system or an SSD keeps elsewhere is
    out of reach; those bytes are enciphered.
    """
    if os.name != "posix" or not file.exists():
        # Windows does not let a file be replaced that is open.
        yield
        return
    try:
        descriptor = os.open(file, os.O_RDWR)
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error.strerror}") from error
    try:
        yield
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Deletes temporary files of a killed writer; call only while holding the folder's lock."""
    for path in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def _check_of(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(fields)).hexdigest()


def _damaged(path: Path, what: str, why: str) -> DamagedError:
    return DamagedError(
        f"{what} {path} is damaged: {why}", todo="restore it from the second copy: harness vault restore"
    )


def now_utc() -> str:
    """The time for records: UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
