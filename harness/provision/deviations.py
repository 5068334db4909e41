"""Where a plan differs from Espressif's page, on purpose, and why. Pure: data, and what of it a plan contains.

The page is "Security Features Enablement Workflows" of ESP-IDF v5.5.5, as it reads for each chip. docs/security-states.md
has the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.chips import CHIPS, Chip
from harness.provision.steps import BurnFuses, BurnKey, Canary, LockDownload, Step, WriteProtect


@dataclass(frozen=True, slots=True)
class Deviation:
    """One difference."""

    name: str
    """Short, for tables and tests."""
    what: str
    """What the plan does, as its note begins."""
    why: str
    contained: Callable[[Chip, Sequence[Step]], bool]
    """Whether these steps on that chip differ so."""
    chips: tuple[str, ...] = tuple(CHIPS)
    told_with_the_step: bool = False
    """The part of the planner that leaves the step out says so itself, with what it knows besides."""

    @property
    def note(self) -> str:
        """For a plan."""
        return f"unlike Espressif's page: {self.what}, because {self.why}"

    def is_in(self, chip: Chip, steps: Sequence[Step]) -> bool:
        return chip.name in self.chips and self.contained(chip, steps)


def deviation_notes(chip: Chip, steps: Sequence[Step]) -> tuple[str, ...]:
    """A note for each deviation that a plan of these steps contains and that nothing else tells."""
    return tuple(each.note for each in DEVIATIONS if not each.told_with_the_step and each.is_in(chip, steps))


def _burned(steps: Sequence[Step]) -> Iterator[tuple[int, str]]:
    """Position and name of every fuse that is burned as such."""
    for position, step in enumerate(steps):
        if isinstance(step, BurnFuses):
            yield from ((position, name) for name, _ in step.fuses)


def _frozen(steps: Sequence[Step]) -> dict[str, int]:
    """Position of every write protection, by fuse."""
    return {step.fuse: position for position, step in enumerate(steps) if isinstance(step, WriteProtect)}


def _burns(fuse: str) -> Callable[[Chip, Sequence[Step]], bool]:
    return lambda _chip, steps: any(name == fuse for _, name in _burned(steps))


def _turns_secure_boot_on(chip: Chip, steps: Sequence[Step]) -> bool:
    return any(name == chip.secure_boot.enable for _, name in _burned(steps))


def _leaves_aggressive_revoke_out(chip: Chip, steps: Sequence[Step]) -> bool:
    fuse = chip.secure_boot.aggressive_revoke
    return fuse is not None and _turns_secure_boot_on(chip, steps) and not _burns(fuse)(chip, steps)


def _locks_after_secure_boot(chip: Chip, steps: Sequence[Step]) -> bool:
    locks = any(isinstance(step, LockDownload) for step in steps)
    burns_key = any(isinstance(step, BurnKey) for step in steps)
    return locks and burns_key and _turns_secure_boot_on(chip, steps)


def _guards_after_soft_jtag(_chip: Chip, steps: Sequence[Step]) -> bool:
    guard = _frozen(steps).get("DIS_ICACHE")
    return guard is not None and any(
        name == "SOFT_DIS_JTAG" and position < guard for position, name in _burned(steps)
    )


def _leaves_sha384_open(chip: Chip, steps: Sequence[Step]) -> bool:
    return _turns_secure_boot_on(chip, steps) and "SECURE_BOOT_SHA384_EN" not in _frozen(steps)


DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "key kept",
        "the key is not deleted",
        "its owner enciphers updates with it",
        lambda _chip, steps: any(isinstance(step, BurnKey) for step in steps),
        told_with_the_step=True,
    ),
    Deviation(
        "canary",
        "the chip enciphers known bytes before the counter is burned",
        "a wrong key is found while the board is still of use",
        lambda _chip, steps: any(isinstance(step, Canary) for step in steps),
    ),
    Deviation(
        "lock last",
        "the lock comes once, at the end",
        "in the middle, where the page has it, it makes every burn of secure boot impossible",
        _locks_after_secure_boot,
    ),
    Deviation(
        "no aggressive revocation",
        "SECURE_BOOT_AGGRESSIVE_REVOKE is not burned",
        "one damaged read of flash would then revoke the boot key for good; --aggressive-revoke burns it",
        _leaves_aggressive_revoke_out,
        chips=tuple(name for name, chip in CHIPS.items() if chip.secure_boot.aggressive_revoke is not None),
        told_with_the_step=True,
    ),
    Deviation(
        "config before counter",
        "FLASH_CRYPT_CONFIG is burned before FLASH_CRYPT_CNT",
        "the counter alone turns encryption on with another use of the key",
        _burns("FLASH_CRYPT_CONFIG"),
        chips=("esp32",),
    ),
    Deviation(
        "console off",
        "CONSOLE_DEBUG_DISABLE is burned, too",
        "ESP-IDF's own release check fails without it, where the factory left it open",
        _burns("CONSOLE_DEBUG_DISABLE"),
        chips=("esp32",),
    ),
    Deviation(
        "guard behind secure boot",
        "DIS_ICACHE is write-protected behind the fuses of secure boot",
        "its bit of WR_DIS also freezes SOFT_DIS_JTAG, which secure boot burns",
        _guards_after_soft_jtag,
        chips=("esp32s2",),
    ),
    Deviation(
        "key and digest together",
        "digest and flash key are burned in one batch, before the counter",
        "they share one block, which takes one burn",
        lambda _chip, steps: any(isinstance(step, BurnKey) and step.digest is not None for step in steps),
        chips=("esp32c2",),
    ),
    Deviation(
        "counter frozen",
        "SPI_BOOT_CRYPT_CNT is write-protected, too",
        "without it ESP-IDF calls the mode development; its bit also freezes SECURE_BOOT_EN, so it comes behind that",
        lambda _chip, steps: "SPI_BOOT_CRYPT_CNT" in _frozen(steps),
        chips=("esp32c2",),
    ),
    Deviation(
        "download cache off",
        "SPI_DOWNLOAD_MSPI_DIS is burned, too",
        "ESP-IDF's bootloader burns it for release; a program in download mode could else read flash deciphered",
        _burns("SPI_DOWNLOAD_MSPI_DIS"),
        chips=("esp32c5",),
    ),
    Deviation(
        "curves on",
        "ECDSA_CURVE_MODE is burned before it is frozen, when a boot key is of P-192",
        "the hardware does P-256 only until then; ESP-IDF's bootloader burns it at its first start, and then cannot",
        _burns("ECDSA_CURVE_MODE"),
        chips=("esp32h2",),
    ),
    Deviation(
        "SHA-384 open until release",
        "SECURE_BOOT_SHA384_EN is not write-protected before release",
        "its bit of WR_DIS also freezes XTS_DPA_PSEUDO_LEVEL, which release burns",
        _leaves_sha384_open,
        chips=("esp32c5",),
        told_with_the_step=True,
    ),
    Deviation(
        "SHA-384 not frozen",
        "SECURE_BOOT_SHA384_EN is not write-protected",
        "the chip has no such bit of WR_DIS",
        _turns_secure_boot_on,
        chips=("esp32p4",),
    ),
)
