"""A signing key in a token or HSM, over PKCS#11: espsecure's own support, with the PIN from where nobody else reads it.

The token's file is espsecure's (``--hsm-config``)::

    [hsm_config]
    pkcs11_lib = /usr/lib/softhsm/libsofthsm2.so
    slot = 1234
    label = boot key
    label_pubkey = boot key      ; optional
    pin_file = ./pin             ; ours, relative to this file; /dev/fd/N is a descriptor

Without ``pin_file`` (or espsecure's ``credentials``, in a file that only its owner can read) a person at a terminal is
asked once.
"""

from __future__ import annotations

import configparser
import getpass
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import espsecure

from harness.build.boot_key import BootKey, espsecure_does, signed_by_espsecure
from harness.errors import LabError, UsageError
from harness.formats.signature_block import SECTOR_BYTES, read_public_key, unsigned_length
from harness.vault.record_file import require_private

SECTION = "hsm_config"
_LARGEST_PIN_BYTES = 1024
_KNOWN = ("pkcs11_lib", "slot", "label", "label_pubkey", "pin_file", "credentials")


@dataclass(slots=True)
class _Token:
    """One key in one token; the PIN is read when it is first needed, and kept for this process alone."""

    file: Path
    library: Path
    slot: int
    label: str
    public_label: str
    pin_file: str | None
    _pin: str | None = field(default=None, repr=False)

    def config(self) -> io.StringIO:
        """What espsecure reads, with the PIN in it: never a file."""
        if self._pin is None:
            self._pin = self._read_pin()
        parser = configparser.ConfigParser()
        parser[SECTION] = {
            "pkcs11_lib": _escaped(str(self.library)),
            "slot": str(self.slot),
            "label": _escaped(self.label),
            "label_pubkey": _escaped(self.public_label),
            "credentials": _escaped(self._pin),
        }
        text = io.StringIO()
        parser.write(text)
        text.seek(0)
        return text

    def _read_pin(self) -> str:
        if self.pin_file is None:
            if not sys.stdin.isatty():
                raise UsageError(
                    f"{self.file} does not say where the PIN of {self.label} comes from",
                    todo="add 'pin_file = FILE' (readable by you alone), or run it at a terminal",
                )
            return getpass.getpass(f"PIN of the token with {self.label}: ")
        path = self.file.parent / Path(self.pin_file).expanduser()
        try:
            require_private(path)
            with path.open("rb") as stream:
                pin = stream.read(_LARGEST_PIN_BYTES).rstrip(b"\r\n").decode("utf-8")
        except OSError as error:
            raise UsageError(f"the PIN file {path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise UsageError(f"the PIN file {path} is not text") from None
        if not pin or "\n" in pin or "\0" in pin:
            raise UsageError(f"the PIN file {path} does not hold one line", todo="put the PIN into it, alone")
        return pin

    def require_there(self) -> None:
        """espsecure takes another slot when it does not find the one that is named.

        Raises:
            UsageError: python-pkcs11 is not installed. LabError: no library, or no such slot.
        """
        try:
            import pkcs11
        except ImportError as error:
            raise UsageError(
                f"{self.file}: a key in a token needs python-pkcs11, which is not installed",
                todo="pip install 'esp32-secure-ota-harness[hsm]'",
            ) from error
        if not self.library.exists():
            raise LabError(
                f"{self.file}: there is no PKCS#11 library {self.library}", todo="correct pkcs11_lib"
            )
        try:
            slots: list[Any] = pkcs11.lib(str(self.library)).get_slots(token_present=True)
        except RuntimeError as error:  # what python-pkcs11 raises, whatever it is
            raise LabError(
                f"{self.file}: the PKCS#11 library {self.library} does not work: {type(error).__name__} {error}",
                todo="see whether its own tools find the token",
            ) from error
        numbers = [int(slot.slot_id) for slot in slots]
        if self.slot not in numbers:
            raise LabError(
                f"{self.file}: there is no token in slot {self.slot}; there is one in: "
                f"{', '.join(map(str, numbers)) or 'none'}",
                todo="plug it in, or correct 'slot'",
            )


def from_token(file: Path) -> BootKey:
    """The key that the token's `file` names. Asks the token for the public half.

    Raises:
        UsageError: the file or the PIN cannot be used, or python-pkcs11 is not installed.
        LabError: the token refuses; says what it says. FormatError: no key of secure boot v2.
    """
    token = _read(file)
    token.require_there()
    pem = _ask(token, "reading the public key", espsecure.extract_pubkey_from_hsm)
    key = read_public_key(pem, name=f"{token.label} in {file}")

    def add_signature(image: bytes) -> bytes:
        # What has a signature already is whole sectors with one more behind them.
        content = image[: unsigned_length(image)]
        content += b"\xff" * (-len(content) % SECTOR_BYTES)
        signature = _ask(
            token, "signing", lambda config: espsecure.generate_signature_using_hsm(config, content)
        )
        return signed_by_espsecure(
            f"signing with token {token.label}",
            image if len(image) > len(content) else content,
            pub_key=[io.BytesIO(pem)],
            signature=[io.BytesIO(signature)],
        )

    return BootKey(f"token {token.label}", key, add_signature)


def _ask(token: _Token, what: str, act: Callable[[configparser.SectionProxy], list[IO[bytes]]]) -> bytes:
    """The bytes in the file that `act`, which talks to the token, makes; with errors that name the token."""
    # The package is only there with the optional dependency.
    from espsecure.esp_hsm_sign import read_hsm_config

    got: list[bytes] = []
    config = read_hsm_config(token.config())

    def asked() -> None:
        (file,) = act(config)
        with file:
            got.append(file.read())

    try:
        espsecure_does(what, asked)
    except LabError as error:
        _end_sessions(token)
        raise LabError(
            f"token {token.label} ({token.file}): {error.message}",
            todo="see whether label and PIN are right; most tokens lock themselves after a few wrong PINs",
        ) from error
    except RuntimeError as error:  # python-pkcs11's, where espsecure does not catch them
        _end_sessions(token)
        raise LabError(
            f"token {token.label} ({token.file}): {what} failed: {type(error).__name__} {error}"
        ) from error
    return got[0]


def _end_sessions(token: _Token) -> None:
    """espsecure leaves its session open when it fails, and the next one could not log in."""
    import pkcs11

    pkcs11.lib(str(token.library)).reinitialize()


def _read(file: Path) -> _Token:
    """The token's file.

    Raises:
        UsageError: it cannot be read, or says too little or too much.
    """
    # No interpolation: what espsecure would make of a % in it is not what was written.
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    try:
        text = file.read_text(encoding="utf-8")
        parser.read_string(text)
        fields = dict(parser[SECTION])
    except OSError as error:
        raise UsageError(
            f"the token's file {file} cannot be read: {error.strerror}", todo="correct secure_boot: keys:"
        ) from error
    except (UnicodeDecodeError, configparser.Error, KeyError):
        # What the parser says quotes lines of it, and one may be the PIN.
        raise UsageError(
            f"{file} is not a token's file",
            todo=f"write it as espsecure's --hsm-config: a section [{SECTION}]",
        ) from None
    unknown = sorted(set(fields) - set(_KNOWN))
    missing = [name for name in ("pkcs11_lib", "slot", "label") if not fields.get(name)]
    if unknown or missing:
        raise UsageError(
            f"{file}: " + (f"there is no '{missing[0]}'" if missing else f"'{unknown[0]}' is unknown"),
            todo=f"[{SECTION}] takes: {', '.join(_KNOWN)}",
        )
    if not fields["slot"].isdecimal():
        raise UsageError(f"{file}: slot is '{fields['slot']}', not a number", todo="give the slot's number")
    if "credentials" in fields and "pin_file" in fields:
        raise UsageError(f"{file}: the PIN is given twice", todo="leave 'credentials' out")
    pin = fields.get("credentials")
    if pin is not None:
        require_private(file)
    return _Token(
        file=file,
        library=file.parent / Path(fields["pkcs11_lib"]).expanduser(),
        slot=int(fields["slot"]),
        label=fields["label"],
        public_label=fields.get("label_pubkey") or fields["label"],
        pin_file=fields.get("pin_file"),
        _pin=pin,
    )


def _escaped(text: str) -> str:
    """espsecure's parser interpolates."""
    return text.replace("%", "%%")
