"""Keeps secrets that the host sends out of the log.

The console logs what it transmits. A command may carry a Wi-Fi password or a key; its value is replaced
before the line is written, and remembered, so that a device which echoes its input does not bring it back.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

SECRET_KEYS = ("password", "passphrase", "passwd", "secret", "token", "psk", "key")
REDACTED = "<redacted>"
MIN_ECHO_CHARS = 4
"""Shorter values are not searched for in what comes back: they would blot out ordinary text."""

_VALUE = r"(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[^\s,;&}\"']+)"
_PAIR = re.compile(
    rf"(?P<key>(?<![A-Za-z0-9])[\w.-]*?(?:{'|'.join(SECRET_KEYS)})[\"']?\s*[=:]\s*)(?P<value>{_VALUE})",
    re.IGNORECASE,
)
"""``key=value``, ``"key": "value"``, also with a prefix (``wifi_password=``, ``flash-key=``)."""
_USERINFO = re.compile(r"(?P<key>[a-z][a-z0-9+.-]*://[^\s/@:]*:)(?P<value>[^\s/@]+)(?=@)", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def redact(text: str) -> str:
    """`text` with the values of secret keys, passwords in URLs and private PEM blocks replaced by
    `REDACTED`."""
    return _redacted(text)[0]


def _redacted(text: str) -> tuple[str, tuple[str, ...]]:
    secrets: list[str] = []

    def hide(match: re.Match[str]) -> str:
        secrets.append(match["value"].strip("\"'"))
        return match["key"] + REDACTED

    text = _PEM.sub(REDACTED, text)
    text = _USERINFO.sub(hide, _PAIR.sub(hide, text))
    return text, tuple(secrets)


class Redactor:
    """Redacts what is sent, and blots out in what is received whatever it has redacted before."""

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    def sent(self, text: str) -> str:
        """`text` as it may be logged; its secrets are remembered (in memory, for this console's life)."""
        shown, secrets = _redacted(text)
        for secret in secrets:
            for form in {secret, unquote(secret)}:
                if len(form) >= MIN_ECHO_CHARS:
                    value = form.encode("utf-8", errors="surrogateescape")
                    self._secrets[value] = b"*" * len(value)
        return shown

    def received(self, data: bytes) -> bytes:
        """`data`, with each remembered secret overwritten by as many asterisks."""
        for secret, stars in self._secrets.items():
            if secret in data:
                data = data.replace(secret, stars)
        return data
