"""What becomes of a board that leaves the bench: what of it is for good, what runs on it, and where its key is.

Nothing is burned, written or destroyed here; the board is marked as retired, so that no run chooses it any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.chips import Chip
from harness.provision.chip_state import ChipState
from harness.provision.consumables import Stocks
from harness.provision.consumption_ledger import Use
from harness.provision.device_record import DeviceRecord
from harness.provision.profile import Lock, Profile
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import KeyState


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where the flash key of a board is."""

    vault: str
    key_id: str | None
    state: str | None
    """`KeyState`'s word; None: nothing is known of a key."""
    copies: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    not_looked: str | None = None
    """Why the vault was not opened."""

    @classmethod
    def of(cls, vault: str, record: KeyRecord | None, copies: tuple[str, ...]) -> KeyPlace:
        """As the opened vault has it."""
        if record is None:
            return cls(vault, None, None, copies)
        history = tuple(change.text() for change in record.history)
        return cls(vault, record.key_id or None, record.state.value, copies, history)

    def text(self) -> str:
        """One sentence."""
        looked = f" (the vault was not opened: {self.not_looked})" if self.not_looked else ""
        if self.state is None:
            return f"no flash key of it is known in {self.vault}{looked}"
        name = f"key {self.key_id}" if self.key_id else "its key"
        where = {
            KeyState.TEST_ONLY: f"only here, in {self.vault}",
            KeyState.UNPROVEN: f"in {self.vault}, and nothing shows that it is the chip's",
            KeyState.HANDED_OVER: f"in {self.vault}, and with the receiver who proved theirs",
            KeyState.FORGOTTEN: "destroyed here; its receiver may have it",
            KeyState.DEVICE_MADE: "in the chip alone: the device made it",
            KeyState.ELSEWHERE: "in the chip, and elsewhere: it never was here",
        }[KeyState(self.state)]
        return f"{name} ({self.state}): {where}{looked}"


@dataclass(frozen=True, slots=True)
class Retirement:
    """All that is said of one board."""

    board: str
    chip: str
    mac: str | None
    profile: str | None
    lock: str | None
    irreversible: tuple[str, ...]
    fuses_by: str
    runs: tuple[str, ...]
    key: KeyPlace
    used: tuple[str, ...]
    left: str | None
    possible: tuple[str, ...]
    forget: str | None
    """The command that destroys the key here; None: there is none here."""
    not_read: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """For a person."""
        rows = [
            f"{self.board}: {self.chip} {self.mac or '(MAC unknown)'}, "
            f"profile {self.profile or 'unknown'}, lock {self.lock or 'unknown'}",
            "",
            f"For good ({self.fuses_by}):",
            *_listed(self.irreversible, "nothing is known to be burned"),
            "What runs on it:",
            *_listed(self.runs, "nobody knows"),
            "Its key:",
            f"  {self.key.text()}",
            *(f"    copy: {place}" for place in self.key.copies),
            *(f"    {line}" for line in self.key.history),
            "Used up:",
            *_listed(self.used, "nothing was noted"),
            *((f"  left: {self.left}",) if self.left else ()),
            "What can still be done with it:",
            *_listed(self.possible, "nothing"),
        ]
        if self.forget:
            rows += ["To destroy its key here, for good:", f"  {self.forget}"]
        return rows

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "format": 1,
            "board": self.board,
            "chip": self.chip,
            "mac": self.mac,
            "profile": self.profile,
            "lock": self.lock,
            "irreversible": list(self.irreversible),
            "fuses_by": self.fuses_by,
            "runs": list(self.runs),
            "key": {
                "vault": self.key.vault,
                "key_id": self.key.key_id,
                "state": self.key.state,
                "copies": list(self.key.copies),
                "history": list(self.key.history),
                "not_looked": self.key.not_looked,
            },
            "used": list(self.used),
            "left": self.left,
            "possible": list(self.possible),
            "forget": self.forget,
            "not_read": self.not_read,
        }


def _listed(rows: tuple[str, ...], nothing: str) -> list[str]:
    return [f"  - {row}" for row in rows] or [f"  - {nothing}"]


def irreversible_of(chip: Chip, fuses: Mapping[str, int], record: DeviceRecord | None) -> tuple[str, ...]:
    """Burned fuses in words, those of security first; a fuse that nobody has words for by its name.

    Args:
        fuses: BLOCK0 by espefuse's names.
    """
    names, boot = chip.fuses, chip.secure_boot
    found: list[str] = []
    counter = fuses.get(names.counter, 0)
    if counter:
        bits = bin(counter).count("1")
        on = "on" if bits % 2 else "off"
        left = names.counter_bits - bits
        more = (
            "for good: no bit of the counter is left" if not left else f"{left} bits of the counter are left"
        )
        found.append(f"flash encryption is {on} ({names.counter} {counter:#x}; {more})")
    words = _words(chip)
    found += [f"{words[name]} ({name})" for name in words if fuses.get(name)]
    if record is not None and record.key_block is not None:
        found.append(f"{record.key_block} holds a flash key that nobody can read back")
    for place, digest in sorted((record.digests if record is not None else {}).items()):
        found.append(f"digest slot {place} trusts the boot key {digest[:16]}…")
    for slot, fuse in enumerate(boot.revoke):
        if fuses.get(fuse):
            found.append(f"digest slot {slot} is revoked: no key in it is trusted ({fuse})")
    version = fuses.get("SECURE_VERSION", 0)
    if version:
        found.append(
            f"apps with a secure version below {bin(version).count('1')} do not start (SECURE_VERSION)"
        )
    named = {names.counter, *words, *boot.revoke, "SECURE_VERSION", "WR_DIS", "RD_DIS"}
    rest = [name for name, value in sorted(fuses.items()) if value and name not in named and _counts(name)]
    if rest:
        found.append(f"also burned: {', '.join(f'{name}={fuses[name]:#x}' for name in rest)}")
    if fuses.get("WR_DIS"):
        found.append(f"some fuses take no more bits (WR_DIS {fuses['WR_DIS']:#x})")
    return tuple(found)


def _counts(name: str) -> bool:
    """Factory data is burned, too, and nobody's decision."""
    return name.startswith(
        ("DIS_", "KEY_PURPOSE", "SECURE_", "SOFT_DIS", "JTAG", "ENABLE_", "XTS", "CRYPT", "FLASH_CRYPT")
    )


def _words(chip: Chip) -> dict[str, str]:
    names, boot = chip.fuses, chip.secure_boot
    said = {
        names.download_off: "UART download is off: nothing but its firmware can change its flash",
        names.manual_encrypt_disable: "the ROM enciphers nothing: only ciphertext can be written over the UART",
        boot.enable: "secure boot v2 is on: only what a trusted key signed starts",
        "DIS_DIRECT_BOOT": "direct boot is off",
        "DIS_LEGACY_SPI_BOOT": "legacy SPI boot is off",
        "DIS_USB_JTAG": "JTAG over USB is off",
        "DIS_PAD_JTAG": "JTAG over pins is off",
        "HARD_DIS_JTAG": "JTAG is off",
        "JTAG_DISABLE": "JTAG is off",
        "SOFT_DIS_JTAG": "JTAG is off until its firmware turns it on with a key",
        "DIS_DOWNLOAD_ICACHE": "the instruction cache is off in download mode",
        "DIS_DOWNLOAD_DCACHE": "the data cache is off in download mode",
        "DISABLE_DL_DECRYPT": "download mode deciphers nothing",
        "DISABLE_DL_CACHE": "the cache is off in download mode",
        "CONSOLE_DEBUG_DISABLE": "the ROM's BASIC console is off",
        "FLASH_CRYPT_CONFIG": "the flash key is tweaked by address",
        "DIS_FORCE_DOWNLOAD": "software cannot force download mode",
    }
    if names.secure_download is not None:
        said[names.secure_download] = (
            "Secure Download Mode: flash can be written over the UART, nothing can be read"
        )
    if boot.aggressive_revoke is not None:
        said[boot.aggressive_revoke] = "one failed verification revokes a boot key"
    return said


def possible_with(profile: Profile | None, lock: Lock | None, key: KeyPlace) -> tuple[str, ...]:
    """What can still be done with a board in that state."""
    has_key = key.state is not None and KeyState(key.state).has_key
    ciphertext = (
        "write ciphertext that is enciphered with its key here"
        if has_key
        else "write ciphertext that whoever has its key made"
    )
    if lock is Lock.DOWNLOAD_OFF:
        return (
            "its firmware can update itself; nothing else ever changes its flash",
            "if its firmware takes no update any more, it is waste",
        )
    if lock is Lock.SECURE_DOWNLOAD:
        return (
            f"{ciphertext}: harness provision --reflash, or harness rescue if it does not boot",
            "its firmware can update itself",
            *(() if has_key else ("without its key nothing that starts can be written over the UART",)),
        )
    if profile is None:
        return ("not known: no device record, and its eFuses were not read",)
    if profile.encryption is Profile.OPEN:
        return (
            "anything: no flash key is burned and UART download is open",
            "any profile can still be reached",
        )
    if profile.encryption is Profile.DEVELOPMENT:
        return (
            "write plaintext that the ROM enciphers (write-flash --encrypt), or ciphertext",
            "turn encryption off as long as the counter has bits, and go on to release",
        )
    return (f"{ciphertext} over the UART: download is open", "its firmware can update itself")


def forget_command(mac: str | None, key: KeyPlace, board: str, *, virtual: bool) -> str | None:
    """The command that destroys the key here, for good."""
    if key.state is None or mac is None or not KeyState(key.state).has_key:
        return None
    lose = " --lose-updates" if KeyState(key.state) in (KeyState.TEST_ONLY, KeyState.UNPROVEN) else ""
    who = f"--board {board}" if virtual else mac
    return f"harness keys forget {who}{lose}"


def used_lines(uses: tuple[Use, ...]) -> tuple[str, ...]:
    """What scenarios have used up, one line each."""
    return tuple(
        f"{use.at}  {', '.join(f'{resource.value} {amount}' for resource, amount in use.uses.items())}: {use.scenario}"
        for use in uses
    )


def runs_lines(record: DeviceRecord | None, boot: str | None) -> tuple[str, ...]:
    """What runs on it: its boot just now, what was flashed, and what it was last seen to do."""
    found = [f"just now: {boot}"] if boot else []
    if record is None:
        return tuple(found)
    found += [
        f"flashed over the UART: {name}, SHA-256 {digest[:16]}…"
        for name, digest in sorted(record.flashed.items())
    ]
    found += [f"{each.what} passed with version {each.version} at {each.when}" for each in record.proven]
    return tuple(found)


def stocks_text(stocks: Stocks | None) -> str | None:
    """What it has left of what it has once."""
    return stocks.text() if stocks is not None else None


@dataclass(frozen=True, slots=True)
class Look:
    """What the board itself told just now."""

    state: ChipState | None
    boot: str | None
    not_read: str | None


def retirement_of(
    board: str,
    chip: Chip,
    mac: str | None,
    record: DeviceRecord | None,
    look: Look,
    key: KeyPlace,
    *,
    uses: tuple[Use, ...],
    stocks: Stocks | None,
    profile: Profile | None,
    lock: Lock | None,
    virtual: bool,
) -> Retirement:
    """Everything together. Pure."""
    fuses: Mapping[str, int] = {}
    by = "nothing tells: neither eFuses nor a device record"
    if look.state is not None and look.state.fuses:
        fuses, by = look.state.fuses, "eFuses, read just now"
    elif record is not None:
        fuses, by = record.fuses, f"as its device record of {record.updated} has it"
    return Retirement(
        board,
        chip.name,
        mac,
        profile.value if profile else None,
        lock.value if lock else None,
        irreversible_of(chip, fuses, record),
        by,
        runs_lines(record, look.boot),
        key,
        used_lines(uses),
        stocks_text(stocks),
        possible_with(profile, lock, key),
        forget_command(mac, key, board, virtual=virtual),
        look.not_read,
    )
