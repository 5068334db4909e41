"""The steps of a plan: frozen data that can be printed, stored, and compared. Doing them is `execute`'s.

``irreversible`` marks what burns eFuses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from harness.errors import FormatError
from harness.provision.profile import Lock, Profile


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done to a board or for it."""

    do: ClassVar[str] = ""
    irreversible: ClassVar[bool] = False

    def text(self) -> str:
        """What it does, for a person."""
        raise NotImplementedError

    @property
    def headline(self) -> str:
        """The first words of `text`, for one that has seen the whole plan."""
        return re.split(r"[;(:]", self.text(), maxsplit=1)[0].strip()

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"do": self.do, **asdict(self)}


@dataclass(frozen=True, slots=True)
class MakeKey(Step):
    """A flash key in the vault, on disk and read back, before any fuse is touched."""

    do: ClassVar[str] = "make-key"
    source: str | None = None
    """Where it comes from, in words; None: it is made here."""

    def text(self) -> str:
        if self.source is not None:
            return f"take the flash key for this chip from {self.source}, store it in the vault, read it back"
        return "make a flash key for this chip, store it in the vault, read it back"

    def to_fields(self) -> dict[str, Any]:
        # Plans that were stored before there was a source keep their ids.
        return {"do": self.do} if self.source is None else {"do": self.do, "source": self.source}


@dataclass(frozen=True, slots=True)
class BurnKey(Step):
    """The flash key, or half of it, into `block`, then its purpose, then read and write protection."""

    do: ClassVar[str] = "burn-key"
    irreversible: ClassVar[bool] = True
    block: str
    burn_as: str
    """The name that espefuse must be given: on ESP32 ``flash_encryption``, else the key lands unreversed."""
    purpose: str | None
    goes_on: bool
    """The block already holds this key, or part of it, from a run that was killed."""
    half: int | None = None
    """0 or 1: the first or second 32 bytes of a key that takes two blocks; None: all of it."""
    digest: str | None = None
    """Hexadecimal digest of the boot key that goes into the other half of the same block (ESP32-C2), in one batch."""
    digest_purpose: str | None = None

    def text(self) -> str:
        purpose = f" with purpose {self.purpose}" if self.purpose else ""
        verb = "finish burning" if self.goes_on else "burn"
        what = (
            "the flash key"
            if self.half is None
            else f"{('the first', 'the second')[self.half]} half of the flash key"
        )
        if self.digest is not None:
            return (
                f"{verb} {what} and the digest {_short(self.digest)} of a boot key into {self.block}, in one go: "
                f"{self.purpose} and {self.digest_purpose}; read-protect the key, write-protect both"
            )
        return f"{verb} {what} into {self.block}{purpose}; read- and write-protect it"


@dataclass(frozen=True, slots=True)
class BurnDigest(Step):
    """The digest of a boot key into `block`, then its purpose, then write protection; it stays readable."""

    do: ClassVar[str] = "burn-digest"
    irreversible: ClassVar[bool] = True
    block: str
    burn_as: str
    purpose: str | None
    slot: int
    digest: str
    """Hexadecimal, all 32 bytes."""
    name: str
    """What the boot key is called."""
    goes_on: bool

    def text(self) -> str:
        purpose = f" with purpose {self.purpose}" if self.purpose else ""
        verb = "finish burning" if self.goes_on else "burn"
        return (
            f"{verb} the digest {_short(self.digest)} of boot key {self.name} into {self.block}{purpose}; write-protect "
            "it, keep it readable"
        )


@dataclass(frozen=True, slots=True)
class ProtectKey(Step):
    """Read and/or write protection of a key block (and of its purpose)."""

    do: ClassVar[str] = "protect-key"
    irreversible: ClassVar[bool] = True
    block: str
    read: bool
    write: bool
    purpose: bool
    why: str

    def text(self) -> str:
        kinds = [
            word
            for word, wanted in (("read", self.read), ("write", self.write), ("purpose-write", self.purpose))
            if wanted
        ]
        return f"{'- and '.join(kinds)}-protect {self.block} ({self.why})"


@dataclass(frozen=True, slots=True)
class BurnFuses(Step):
    """Values of BLOCK0 fields, all in one programming pulse train."""

    do: ClassVar[str] = "burn-fuses"
    irreversible: ClassVar[bool] = True
    fuses: tuple[tuple[str, int], ...]
    why: str

    def text(self) -> str:
        values = ", ".join(f"{name} = {value:#x}" if value > 1 else name for name, value in self.fuses)
        return f"burn {values} ({self.why})"


@dataclass(frozen=True, slots=True)
class WriteProtect(Step):
    """The WR_DIS bit of `fuse`, which others may share."""

    do: ClassVar[str] = "write-protect"
    irreversible: ClassVar[bool] = True
    fuse: str
    shared_with: tuple[str, ...]

    def text(self) -> str:
        others = f"; freezes {', '.join(self.shared_with)}, too" if self.shared_with else ""
        return f"write-protect {self.fuse}{others}"


@dataclass(frozen=True, slots=True)
class Canary(Step):
    """Known bytes enciphered by the chip, read back raw, compared with our own ciphertext."""

    do: ClassVar[str] = "canary"
    address: int

    def text(self) -> str:
        return (
            f"canary: let the chip encipher known bytes at {self.address:#x}, read them back raw, compare them "
            "with our ciphertext"
        )


@dataclass(frozen=True, slots=True)
class DecipherCheck(Step):
    """The bootloader's head as it lies in flash must decipher to an image header with the vault's key."""

    do: ClassVar[str] = "decipher-check"
    address: int

    def text(self) -> str:
        return f"check that the bootloader at {self.address:#x} deciphers with the vault's key"


@dataclass(frozen=True, slots=True)
class WriteFlash(Step):
    """One region; enciphered on the host for its address when `enciphered`, by the chip when `by_chip`."""

    do: ClassVar[str] = "write-flash"
    name: str
    offset: int
    size_bytes: int
    sha256: str
    """Of the plaintext."""
    enciphered: bool
    by_chip: bool = False
    """The ROM enciphers it with a key that only the chip has."""

    def text(self) -> str:
        how = "as ciphertext" if self.enciphered else "as it is"
        how = "through the chip's own encryption" if self.by_chip else how
        return f"write {self.name} at {self.offset:#x} ({self.size_bytes} bytes) {how}"


@dataclass(frozen=True, slots=True)
class ReadBack(Step):
    """MD5 of every region, computed by the chip over what lies in flash."""

    do: ClassVar[str] = "read-back"
    names: tuple[str, ...]

    def text(self) -> str:
        return f"read back and compare: {', '.join(self.names)}"


@dataclass(frozen=True, slots=True)
class ConfirmFuses(Step):
    """All eFuses read again: they must be what the steps before promise, and the chip be recognised as `profile`."""

    do: ClassVar[str] = "confirm-fuses"
    profile: Profile
    fuses: tuple[tuple[str, int], ...] = ()
    """Every number in BLOCK0 as it must be now; protections and purposes apart."""
    write_protected: tuple[str, ...] = ()
    """Fields of BLOCK0 that must take no more bits."""
    blocks: tuple[str, ...] = ()
    """What must be in the key blocks, as `promise.described` words it."""

    def text(self) -> str:
        return (
            f"read all eFuses back and compare them, {len(self.fuses)} one by one, with what these steps promise and "
            f"what {self.profile.value} demands"
        )


@dataclass(frozen=True, slots=True)
class LockDownload(Step):
    """The last burn: what is left of UART download."""

    do: ClassVar[str] = "lock-download"
    irreversible: ClassVar[bool] = True
    lock: Lock
    fuse: str
    final: bool
    """No tool reaches the ROM over the UART ever again."""

    def text(self) -> str:
        if self.final:
            return f"FINAL: burn {self.fuse}; after it only the firmware can ever change this board's flash"
        return f"burn {self.fuse}; from then on the UART takes flash writes only, nothing can be read"


@dataclass(frozen=True, slots=True)
class FirmwareBurns(Step):
    """What the flashed firmware burns by itself when it runs: not done here, and as irreversible as if it were."""

    do: ClassVar[str] = "firmware-burns"
    irreversible: ClassVar[bool] = True
    by: str
    """``bootloader`` or ``app``."""
    when: str
    fuses: tuple[str, ...]
    unknown: bool = False
    """Nobody can tell, because the build's sdkconfig is not there."""

    def text(self) -> str:
        if self.unknown:
            return (
                "UNKNOWN burns by the firmware itself: the build has no sdkconfig, so it may burn any eFuse, a key of "
                "its own and locks among them"
            )
        return f"the {self.by} burns by itself, {self.when}: {', '.join(self.fuses)}"


@dataclass(frozen=True, slots=True)
class FirmwareCommand(Step):
    """What the running firmware is told to burn; done over its console, not through the ROM."""

    do: ClassVar[str] = "firmware-command"
    irreversible: ClassVar[bool] = True
    command: str
    arguments: tuple[tuple[str, str], ...]
    calls: str
    """The function of ESP-IDF that it comes down to."""
    fuses: tuple[str, ...]
    lock: Lock
    """What is left of UART download afterwards."""
    final: bool
    """No tool reaches the ROM over the UART ever again."""

    def text(self) -> str:
        words = " ".join((self.command, *(f"{name}={value}" for name, value in self.arguments)))
        final = "FINAL: " if self.final else ""
        end = "; after it only the firmware can ever change this board's flash" if self.final else ""
        return f"{final}let the firmware run '{words}' ({self.calls}): it burns {', '.join(self.fuses)}{end}"


@dataclass(frozen=True, slots=True)
class WriteRecord(Step):
    """The device record; then the intent is done with."""

    do: ClassVar[str] = "write-record"

    def text(self) -> str:
        return "write the device record"


KINDS: dict[str, type[Step]] = {
    kind.do: kind
    for kind in (
        MakeKey,
        BurnKey,
        BurnDigest,
        ProtectKey,
        BurnFuses,
        WriteProtect,
        Canary,
        DecipherCheck,
        WriteFlash,
        ReadBack,
        ConfirmFuses,
        LockDownload,
        FirmwareBurns,
        FirmwareCommand,
        WriteRecord,
    )
}


def _short(digest: str) -> str:
    return f"{digest[:16]}…"


def step_from_fields(fields: Mapping[str, Any]) -> Step:
    """The inverse of `Step.to_fields`.

    Raises:
        FormatError: no such step, or its fields are wrong.
    """
    try:
        values = {name: _frozen(value) for name, value in fields.items() if name != "do"}
        if "profile" in values:
            values["profile"] = Profile(values["profile"])
        if "lock" in values:
            values["lock"] = Lock(values["lock"])
        return KINDS[fields["do"]](**values)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"a stored plan has a step that cannot be read: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
