"""Keeps secrets that the host sends out of the log.

The console logs what it transmits. A command may carry a Wi-Fi password or a key; its value is replaced
before the line is written, and remembered, so that a device which echoes its input does not bring it back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

SECRET_KEYS = ("password", "passphrase", "passwd", "secret", "token", "psk", "key")
REDACTED = "<redacted>"
MIN_ECHO_CHARS = 4
"""Shorter values are not searched for in what comes back: they would blot out ordinary text."""

_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_VALUE = rf"(?:{_QUOTED}|[^\s,;&}}\"']+)"
_WORD = re.compile(
    rf"(?P<key>(?<!\S)[\w.-]*?(?:{'|'.join(SECRET_KEYS)})=)(?P<value>{_QUOTED}|\S+)", re.IGNORECASE
)
"""``key=value`` as a word of its own, as in a command: the value goes on to the next space, whatever is in it."""
_PAIR = re.compile(rf"(?P<key>(?:{'|'.join(SECRET_KEYS)})[\"']?\s*[=:]\s*)(?P<value>{_VALUE})", re.IGNORECASE)
"""``key=value``, ``"key": "value"``, whatever stands before it (``wifi_password=``, ``flash-key=``)."""
_USERINFO = re.compile(r"(?P<key>[a-z0-9+.-]://[^\s/@:]*:)(?P<value>[^\s/@]+)(?=@)", re.IGNORECASE)
_LONE_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Hidden:
    """A value that is sent and never shown: neither as text nor in a traceback that prints its arguments."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return REDACTED


class SecretBytes(bytes):
    """Bytes that are sent as they are, and shown redacted: pytest prints the arguments of every frame."""

    def __repr__(self) -> str:
        return repr(redact(self.decode("utf-8", errors="backslashreplace")).encode())


def redact(text: str) -> str:
    """`text` with the values of secret keys, passwords in URLs and private PEM blocks replaced by
    `REDACTED`."""
    return _redacted(text)[0]


def _redacted(text: str) -> tuple[str, tuple[str, ...]]:
    secrets: list[str] = []

    def hide(match: re.Match[str]) -> str:
        value = match["value"].strip("\"'")
        if value != REDACTED:
            secrets.append(value)
        return match["key"] + REDACTED

    text = _WORD.sub(hide, _PEM.sub(REDACTED, text))
    text = _USERINFO.sub(hide, _PAIR.sub(hide, text))
    return text, tuple(secrets)


class Redactor:
    """Redacts what is sent, and blots out in what is received whatever it has redacted before."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}
        self._tail = b""
        """The last bytes of the stream, which may be the beginning of a secret."""
        self._given = 0
        """How many of them were given already."""

    def sent(self, text: str) -> str:
        """`text` as it may be logged; its secrets are remembered (in memory, for this console's life)."""
        shown, secrets = _redacted(text)
        for secret in secrets:
            self.hide(secret)
        return self.shown(shown)

    def hide(self, secret: str) -> None:
        """Remembers `secret`: from now on it is blotted out, whatever stands before it."""
        for form in {secret, unquote(secret), repr(unquote(secret))[1:-1]}:
            if len(form) >= MIN_ECHO_CHARS:
                value = form.encode("utf-8", errors="surrogateescape")
                self._secrets[value] = b"*" * len(value)

    def received(self, data: bytes) -> bytes:
        """`data`, with each remembered secret overwritten by as many asterisks."""
        for secret, stars in self._secrets.items():
            if secret in data:
                data = data.replace(secret, stars)
        return data

    def take(self, data: bytes) -> bytes:
        """The next bytes of the stream as `received`, wherever it was cut: what may begin a secret is kept back."""
        if not self._secrets:
            return data
        stream = self.received(self._tail + data)
        end = len(stream) - self._beginning_at_end(stream)
        ready = stream[self._given : end]
        self._given, self._tail = max(0, self._given - end), stream[end:]
        return ready

    def settle(self) -> bytes:
        """What was kept back and is too short to tell much, after a silence: a prompt may end with it."""
        return self._rest() if len(self._tail) < MIN_ECHO_CHARS else b""

    def end(self) -> bytes:
        """What was kept back, at the end of the stream; a good part of a secret as asterisks."""
        rest = self._rest()
        known = len(self._tail) >= MIN_ECHO_CHARS
        self._tail, self._given = b"", 0
        return b"*" * len(rest) if known else rest

    def _rest(self) -> bytes:
        rest, self._given = self._tail[self._given :], len(self._tail)
        return rest

    def _beginning_at_end(self, data: bytes) -> int:
        """How many bytes at the end of `data` are the beginning of a secret, and not all of it."""
        return max(
            next((size for size in range(len(secret) - 1, 0, -1) if data.endswith(secret[:size])), 0)
            for secret in self._secrets
        )

    def shown(self, text: str) -> str:
        """`text`, of whatever origin, without the remembered secrets: tracebacks, reports."""
        # Half a pair is what JSON makes of a board's "\\ud800"; only those that stand for a byte have a way back.
        encoded = _LONE_SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text).encode(
            "utf-8", errors="surrogateescape"
        )
        return self.received(encoded).decode("utf-8", errors="surrogateescape")
