"""Flash keys that are made elsewhere: in a file, or by a command that asks whoever keeps them (a KMS, an HSM).

The command's standard output is the key, raw or as hexadecimal digits. It gets the chip's MAC and nothing secret: no
argument, no environment of ours, nothing on its standard input. No key ever gets into a message.
"""

from __future__ import annotations

import binascii
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from harness.chips import Chip
from harness.errors import LabError, UsageError
from harness.vault.key_bytes import KeyBytes
from harness.vault.key_ref import plain_mac
from harness.vault.record_file import require_private

TIMEOUT_S = 30.0
"""For a command, unless its entry says otherwise."""

_MOST_BYTES = 4096
"""No key file is longer, as hexadecimal digits with line ends either."""

_LAST_WORDS_S = 1.0
"""For the standard error of a command that has ended: what it started may still hold it."""

_PLACE = re.compile(r"\{(mac|mac_hex|chip)\}")
_ANY_PLACE = re.compile(r"\{[^{}]*\}")
_VERB = re.compile(r"[a-z]{1,12}(-[a-z]{1,12}){0,2}")
_HEX_ONLY = re.compile(rb"[0-9a-fA-F]+")
_LONG_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}[\s:,-]?){8,}")
_LONG_BASE64 = re.compile(rb"(?=\S*[0-9])(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+/_-]{20,}={0,2}")
"""With digits and both cases in it, as 16 random bytes have and a path seldom."""
_NUMBERS = re.compile(rb"(?:\b\d{1,3}\b[\s,;:]*){8,}")
_ESCAPE = rb"\\(?:x[0-9a-fA-F]{2}|u00[0-9a-fA-F]{2}|[0-7]{3})"
_ESCAPED = re.compile(
    rb"(?P<quote>['\"])(?:(?!(?P=quote))[^\\\n]|\\.)*?"
    + _ESCAPE
    + rb"(?:(?!(?P=quote))[^\\\n]|\\.)*(?P=quote)?"
    rb"|\S*" + _ESCAPE + rb"\S*"
)
"""As C, Python and JSON write bytes, in quotation marks or without."""


class KeySource(Protocol):
    """Where a board's new flash key comes from."""

    @property
    def text(self) -> str:
        """What it is, for records; names no secret."""

    def named(self, mac: str, chip: Chip) -> str:
        """What it is for the chip `mac`, for plans; names no secret.

        Raises:
            UsageError: it is named with a word in braces that is not known.
        """

    def check(self, mac: str, chip: Chip) -> None:
        """Finds out what is wrong with it, as far as that can be seen without asking anybody for the key.

        Raises:
            UsageError, UnsafePermissionsError: as `obtain`.
        """

    def obtain(self, mac: str, chip: Chip) -> bytes:
        """The key for the chip `mac`, in the byte order of espsecure's key files."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file per chip."""

    path: str
    """May contain ``{mac}`` (aa:bb:cc:dd:ee:ff), ``{mac_hex}`` (aabbccddeeff) and ``{chip}``."""
    base: Path
    """What a relative path is relative to."""

    @property
    def text(self) -> str:
        return f"file {self.path}"

    def named(self, mac: str, chip: Chip) -> str:
        return f"file {filled_in(self.path, mac, chip)}"

    def check(self, mac: str, chip: Chip) -> None:
        self.obtain(mac, chip)

    def obtain(self, mac: str, chip: Chip) -> bytes:
        """The key in the file of `mac`.

        Raises:
            UsageError: the file is missing, or holds no key for this chip.
            UnsafePermissionsError: others may read it.
        """
        file = self.base / Path(filled_in(self.path, mac, chip)).expanduser()
        return read_key_file(file, chip, private=True)


@dataclass(frozen=True, slots=True)
class CommandSource:
    """A command that prints the key."""

    command: tuple[str, ...]
    """As it is run, without a shell; the same words as in `FileSource.path` are filled in."""
    environment: dict[str, str]
    """All that it sees."""
    folder: Path
    """Where it runs."""
    timeout_s: float = TIMEOUT_S

    @property
    def text(self) -> str:
        return f"command {Path(self.command[0]).name}"

    def named(self, mac: str, chip: Chip) -> str:
        # Of its arguments only what looks like a verb: others may be what somebody opens the KMS with.
        program, *arguments = (filled_in(word, mac, chip) for word in self.command)
        words = [Path(program).name, *(word for word in arguments[:1] if _VERB.fullmatch(word))]
        more = " …" if len(self.command) > len(words) else ""
        return f"command '{' '.join(words)}{more}'"

    def check(self, mac: str, chip: Chip) -> None:
        for word in self.command:
            filled_in(word, mac, chip)

    def obtain(self, mac: str, chip: Chip) -> bytes:
        """The key that the command prints.

        Raises:
            LabError: it cannot be started, fails, takes too long, or prints something else.
        """
        command = [filled_in(word, mac, chip) for word in self.command]
        output = _output_of(command, self, mac)
        return _parsed(output, chip, f"what '{shlex.join(command)}' printed", LabError, board=mac)


def filled_in(text: str, mac: str, chip: Chip) -> str:
    """`text` with the words in braces replaced.

    Raises:
        UsageError: a word in braces is not known.
    """
    mac = plain_mac(mac)
    words = {"mac": mac, "mac_hex": mac.replace(":", ""), "chip": chip.name}
    filled = _PLACE.sub(lambda match: words[match[1]], text)
    left = _ANY_PLACE.search(filled)
    if left is not None:
        raise UsageError(
            f"flash_key: nobody knows what {left[0]} stands for", todo="use {mac}, {mac_hex} or {chip}"
        )
    return filled


def read_key_file(file: Path, chip: Chip, *, private: bool = False) -> bytes:
    """The flash key in `file`: raw, as espsecure writes it, or as hexadecimal digits.

    Args:
        private: refuse a file that others may read.

    Raises:
        UsageError: it cannot be read, or is no key for this chip's cipher.
        UnsafePermissionsError: `private`, and others may read it.
    """
    try:
        if private:
            require_private(file)
        with file.open("rb") as stream:
            data = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"the key file {file} cannot be read: {error.strerror}") from error
    return _parsed(data, chip, f"the key file {file}", UsageError)


def _parsed(
    data: bytes,
    chip: Chip,
    what: str,
    kind: type[UsageError] | type[LabError],
    *,
    board: str | None = None,
) -> bytes:
    size = chip.cipher.key_size_bytes
    key = data
    if len(data) != size:
        try:
            key = binascii.unhexlify(b"".join(data.split()))
        except binascii.Error:
            key = data
    if len(key) != size:
        raise kind(
            f"{what} is no flash key for {chip.title}: it has {len(key)} bytes, {chip.cipher.value} takes {size}",
            board=board,
            todo=f"give the key as espsecure writes it: {size} raw bytes, or {2 * size} hexadecimal digits",
        )
    if key == data and _HEX_ONLY.fullmatch(data):
        # Text of the right length by chance: the digits of a key half as long.
        raise kind(
            f"{what} is no flash key for {chip.title}: it is {len(data)} hexadecimal digits, which are {len(data) // 2} "
            f"bytes; {chip.cipher.value} takes {size}",
            board=board,
            todo=f"give {size} raw bytes, or {2 * size} hexadecimal digits",
        )
    if len(set(key)) == 1:
        raise kind(
            f"{what} is no key: all its bytes are the same",
            board=board,
            todo="make one: espsecure generate-flash-encryption-key",
        )
    return KeyBytes(key)


def _output_of(command: Sequence[str], source: CommandSource, mac: str) -> bytes:
    what = f"getting the flash key of {mac}"
    shown = shlex.join(command)
    until = time.monotonic() + source.timeout_s
    try:
        # From a pipe into memory: the key is in no file but the vault's.
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=source.environment,
            cwd=source.folder,
            # What it starts is to end with it.
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(
            f"{what}: '{command[0]}' cannot be started: {error.strerror}",
            board=mac,
            todo="install it, or correct 'flash_key' in the board's entry",
        ) from error
    assert process.stdout is not None
    assert process.stderr is not None
    key, complaints = _Key(process.stdout), _Complaints(process.stderr)
    try:
        key.join(until - time.monotonic())
        too_much = len(key.data) > _MOST_BYTES
        ended = too_much or (not key.is_alive() and _ended(process, until))
    except BaseException:
        _kill(process)
        raise
    if too_much or not ended:
        _kill(process)
    if too_much:
        raise LabError(
            f"{what}: '{shown}' printed more than {_MOST_BYTES} bytes, which is no key; it was ended",
            board=mac,
            todo="run it by hand; it must print the key and nothing else",
        )
    if not ended:
        raise LabError(
            f"{what}: '{shown}' did not end within {source.timeout_s:g} s",
            board=mac,
            todo="run it by hand, or give 'timeout_s' in flash_key",
        )
    if process.returncode != 0:
        complaints.join(_LAST_WORDS_S)
        said = _without_keys(complaints.last(), key.data).strip().splitlines()
        end = f": {'; '.join(said[-3:])}" if said else ""
        raise LabError(
            f"{what}: '{shown}' ended with status {process.returncode}{end}", board=mac, todo="run it by hand"
        )
    return key.data


class _Key(threading.Thread):
    """Reads what the command prints, but no more than shows that it is no key."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="flash key", daemon=True)
        self.data = b""
        self._stream = stream
        self.start()

    def run(self) -> None:
        with self._stream:
            self.data = self._stream.read(_MOST_BYTES + 1)


class _Complaints(threading.Thread):
    """Reads the command's standard error to its end, and keeps the end of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(name="complaints about a flash key", daemon=True)
        self._stream = stream
        self._kept = b""
        self._cut = False
        self.start()

    def run(self) -> None:
        with self._stream:
            while chunk := os.read(self._stream.fileno(), _MOST_BYTES):
                self._cut = self._cut or len(self._kept) + len(chunk) > _MOST_BYTES
                self._kept = (self._kept + chunk)[-_MOST_BYTES:]

    def last(self) -> bytes:
        """Whole lines only: what is left of one that was cut might be a piece of a key that nobody recognises."""
        return self._kept.partition(b"\n")[2] if self._cut else self._kept


def _ended(process: subprocess.Popen[bytes], until: float) -> bool:
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the command and what it has started."""
    if os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _without_keys(stderr: bytes, stdout: bytes) -> str:
    """What a failing command complained of, without anything that it printed as a key, or that looks like one."""
    text = stderr
    for part in {stdout, stdout.strip(), *stdout.split()}:
        if len(part) >= 8:
            text = text.replace(part, b"<redacted>")
    for pattern in (_ESCAPED, _NUMBERS, _LONG_HEX, _LONG_BASE64):
        text = pattern.sub(b"<redacted>", text)
    return text.decode("utf-8", errors="replace")
