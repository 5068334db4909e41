"""The Wi-Fi network that a board joins, and where its password is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from harness.console.redaction import Hidden
from harness.errors import UsageError

_PASSWORD_BYTES = range(8, 65)
"""WPA: a passphrase of 8 to 63 characters, or a key of 64 hexadecimal digits."""

_MAX_FILE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class WifiNetwork:
    """An SSID, and a file or an environment variable with the password; neither: an open network."""

    ssid: str
    password_file: Path | None = None
    password_env: str | None = None

    @property
    def password_source(self) -> str:
        """Where the password is, for a person."""
        if self.password_file is not None:
            return f"the file {self.password_file}"
        return f"the environment variable {self.password_env}" if self.password_env else "nowhere: open"

    def password(self, *, board: str | None = None) -> Hidden | None:
        """Read anew each time, so that it is nowhere longer than needed; None for an open network.

        Raises:
            UsageError: it is not there, or is no Wi-Fi password. The message names its place and never the password.
        """
        __tracebackhide__ = True
        if self.password_file is None and self.password_env is None:
            return None
        text = self._text(board)
        size = len(text.encode())
        if size not in _PASSWORD_BYTES or not text.isprintable():
            fault = f"{size} bytes" if text.isprintable() else f"{size} bytes, not all of them printable"
            if len(text.splitlines()) > 1:
                fault = "more than one line"
            raise UsageError(
                f"the password of Wi-Fi network '{self.ssid}' cannot be what is in {self.password_source}: {fault}",
                board=board,
                todo="it has 8 to 63 characters and nothing else may stand there; for an open network name no password",
            )
        return Hidden(text)

    def _text(self, board: str | None) -> str:
        __tracebackhide__ = True
        if self.password_file is None:
            text = os.environ.get(str(self.password_env))
            if text is None:
                raise UsageError(
                    f"the password of Wi-Fi network '{self.ssid}': {self.password_source} is not set",
                    board=board,
                    todo=f"set {self.password_env}, or name a file with 'password_file' in its network entry",
                )
            return text
        try:
            with self.password_file.open("rb") as file:
                return file.read(_MAX_FILE_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            # Not "from": the error of a decoder holds the bytes.
            raise UsageError(
                f"the password of Wi-Fi network '{self.ssid}': {self.password_source} cannot be read: {why}",
                board=board,
                todo="write the password into it, alone on one line, readable by you only (chmod 600)",
            ) from None
