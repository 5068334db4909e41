"""Plans for release with secure boot, fuse by fuse and in order, held against Espressif's page for each chip.

The page is "Security Features Enablement Workflows" of ESP-IDF v5.5.5 (docs/en/security), read for each target: what
its conditions (``SOC_EFUSE_…``) leave standing. Every difference is listed here with its reason; a plan that differs in
any other way fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from fuse_bench import Bench

from harness.chips import CHIPS
from harness.provision import Lock, Plan, Profile
from harness.provision.steps import BurnDigest, BurnFuses, BurnKey, LockDownload, WriteProtect

Burn = str | frozenset[str]
"""One command of the page: a key, a digest, a protection, or fuses that it burns together."""


def fuses(*names: str) -> frozenset[str]:
    return frozenset(names)


LOCK = "lock"
DIGEST = "digest 0"
REVOKE = fuses("SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2")
XTS_256 = ("key half 0", "key half 1")
RD_DIS = "write-protect RD_DIS"
AGGRESSIVE = "SECURE_BOOT_AGGRESSIVE_REVOKE"
ENABLE = fuses("SECURE_BOOT_EN")
COUNTER = fuses("SPI_BOOT_CRYPT_CNT")
ICACHE = "write-protect DIS_ICACHE"
MANUAL = "DIS_DOWNLOAD_MANUAL_ENCRYPT"
C3_BOOT = fuses("SOFT_DIS_JTAG", "DIS_DIRECT_BOOT", "DIS_USB_JTAG", "DIS_PAD_JTAG", AGGRESSIVE)

ENCRYPTION: dict[str, tuple[Burn, ...]] = {
    "esp32": (
        "key",
        fuses("FLASH_CRYPT_CNT"),
        fuses("FLASH_CRYPT_CONFIG"),
        fuses("DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT", "DISABLE_DL_CACHE", "JTAG_DISABLE"),
        "write-protect DIS_CACHE",
        LOCK,
    ),
    "esp32s2": (
        *XTS_256,
        COUNTER,
        fuses(
            "DIS_BOOT_REMAP",
            "DIS_DOWNLOAD_ICACHE",
            "DIS_DOWNLOAD_DCACHE",
            "HARD_DIS_JTAG",
            "DIS_LEGACY_SPI_BOOT",
            MANUAL,
        ),
        ICACHE,
        LOCK,
    ),
    "esp32s3": (
        *XTS_256,
        COUNTER,
        # The page's HARD_DIS_JTAG; espefuse's name for the fuse is DIS_PAD_JTAG.
        fuses(
            "DIS_DOWNLOAD_ICACHE",
            "DIS_DOWNLOAD_DCACHE",
            "DIS_PAD_JTAG",
            "DIS_DIRECT_BOOT",
            "DIS_USB_JTAG",
            MANUAL,
        ),
        ICACHE,
        LOCK,
    ),
    "esp32c2": (
        "key",
        COUNTER,
        fuses("DIS_DOWNLOAD_ICACHE", "DIS_DIRECT_BOOT", "DIS_PAD_JTAG", MANUAL),
        LOCK,
    ),
    **{
        name: (
            "key",
            COUNTER,
            fuses("DIS_DOWNLOAD_ICACHE", "DIS_DIRECT_BOOT", "DIS_USB_JTAG", "DIS_PAD_JTAG", MANUAL),
            ICACHE,
            LOCK,
        )
        for name in ("esp32c3", "esp32c6")
    },
    **{
        name: (
            "key",
            COUNTER,
            fuses("DIS_DIRECT_BOOT", "DIS_USB_JTAG", "DIS_PAD_JTAG", MANUAL, "XTS_DPA_PSEUDO_LEVEL"),
            ICACHE,
            LOCK,
        )
        for name in ("esp32c5", "esp32h2")
    },
    "esp32p4": (
        *XTS_256,
        COUNTER,
        # The page's DIS_DOWNLOAD_MSPI; espefuse's name for the fuse is SPI_DOWNLOAD_MSPI_DIS.
        fuses(
            "DIS_DIRECT_BOOT",
            "DIS_USB_JTAG",
            "DIS_PAD_JTAG",
            MANUAL,
            "SPI_DOWNLOAD_MSPI_DIS",
            "XTS_DPA_PSEUDO_LEVEL",
        ),
        LOCK,
    ),
}

SECURE_BOOT: dict[str, tuple[Burn, ...]] = {
    "esp32": (DIGEST, fuses("ABS_DONE_1"), fuses("JTAG_DISABLE"), RD_DIS, LOCK),
    "esp32s2": (
        DIGEST,
        ENABLE,
        fuses("DIS_BOOT_REMAP", "HARD_DIS_JTAG", "SOFT_DIS_JTAG", "DIS_LEGACY_SPI_BOOT", AGGRESSIVE),
        RD_DIS,
        REVOKE,
        LOCK,
    ),
    "esp32s3": (DIGEST, ENABLE, C3_BOOT, RD_DIS, REVOKE, LOCK),
    "esp32c2": (DIGEST, ENABLE, fuses("DIS_DIRECT_BOOT", "DIS_PAD_JTAG"), RD_DIS, LOCK),
    "esp32c3": (DIGEST, ENABLE, C3_BOOT, RD_DIS, REVOKE, LOCK),
    "esp32c6": (DIGEST, ENABLE, C3_BOOT, RD_DIS, REVOKE, LOCK),
    # WR_DIS_SECURE_BOOT_SHA384_EN and WR_DIS_ECDSA_CURVE_MODE stand in the page's list of fuses.
    "esp32c5": (DIGEST, ENABLE, C3_BOOT, "write-protect SECURE_BOOT_SHA384_EN", RD_DIS, REVOKE, LOCK),
    "esp32h2": (DIGEST, ENABLE, C3_BOOT, "write-protect ECDSA_CURVE_MODE", RD_DIS, REVOKE, LOCK),
    "esp32p4": (DIGEST, ENABLE, C3_BOOT, "write-protect SECURE_BOOT_SHA384_EN", RD_DIS, REVOKE, LOCK),
}


class Deviation:
    """What a plan does otherwise than the page, on purpose."""

    def __init__(
        self, why: str, *, drop: Burn | None = None, add: Burn | None = None, after: Burn | None = None
    ):
        self.why, self.drop, self.add, self.after = why, drop, add, after

    def applied(self, burns: list[Burn]) -> list[Burn]:
        """The page's burns, changed; fails when there is nothing to change."""
        left = list(burns)
        if self.drop is not None:
            index = next(i for i, each in enumerate(left) if each == self.drop or self.drop in _names(each))
            if isinstance(self.drop, str) and self.drop in _names(left[index]):
                left[index] = frozenset(_names(left[index])) - {self.drop}
            else:
                del left[index]
        if self.add is not None:
            at = next(i for i, each in enumerate(left) if each == self.after)
            if isinstance(self.add, frozenset) and self.add & _names(left[at]) == frozenset() and self.merges:
                left[at] = frozenset(_names(left[at])) | self.add
            else:
                left.insert(at + 1, self.add)
        return [each for each in left if each != frozenset()]

    merges = False


class Also(Deviation):
    """A fuse that is burned together with those of one command."""

    merges = True


LOCK_LAST = Deviation(
    "taken literally the lock of the first list makes every burn of the second impossible; it comes last",
    drop=LOCK,
)
NOT_AGGRESSIVE = Deviation(
    "one damaged read of flash would revoke the boot key for good; --aggressive-revoke burns it",
    drop=AGGRESSIVE,
)
CONSOLE = "ESP-IDF's own release check fails without it, where the factory left it open"

DEVIATIONS: dict[str, tuple[Deviation, ...]] = {
    "esp32": (
        LOCK_LAST,
        Deviation(
            "the counter before it would turn encryption on with another use of the key",
            drop="FLASH_CRYPT_CONFIG",
        ),
        Deviation("so it comes right behind the key", add=fuses("FLASH_CRYPT_CONFIG"), after="key"),
        Also(
            CONSOLE,
            add=fuses("CONSOLE_DEBUG_DISABLE"),
            after=fuses("DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT", "DISABLE_DL_CACHE", "JTAG_DISABLE"),
        ),
    ),
    "esp32s2": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Deviation("its bit of WR_DIS freezes SOFT_DIS_JTAG, which secure boot still burns", drop=ICACHE),
        Deviation("so it comes behind that", add=ICACHE, after=fuses("SOFT_DIS_JTAG")),
    ),
    "esp32s3": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c2": (
        LOCK_LAST,
        Deviation("one block takes one burn: the digest goes in with the key", drop=DIGEST),
        Deviation("in one batch of espefuse", drop="key"),
        Deviation(
            "without it ESP-IDF calls the mode development; it freezes SECURE_BOOT_EN, and so comes behind it",
            add="write-protect SPI_BOOT_CRYPT_CNT",
            after=ENABLE,
        ),
    ),
    "esp32c3": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c6": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c5": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Also(
            "ESP-IDF's bootloader burns it for release; a program in download mode could else read flash deciphered",
            add=fuses("SPI_DOWNLOAD_MSPI_DIS"),
            after=fuses("DIS_DIRECT_BOOT", "DIS_USB_JTAG", "DIS_PAD_JTAG", MANUAL, "XTS_DPA_PSEUDO_LEVEL"),
        ),
    ),
    "esp32h2": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32p4": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Deviation("the chip has no such bit of WR_DIS", drop="write-protect SECURE_BOOT_SHA384_EN"),
    ),
}


def _names(burn: Burn) -> frozenset[str]:
    return burn if isinstance(burn, frozenset) else frozenset()


def expected(chip: str) -> list[Burn]:
    """The page's burns in its order, each fuse once, with this project's deviations."""
    burned: set[str] = set()
    once: list[Burn] = []
    for burn in (*ENCRYPTION[chip], *SECURE_BOOT[chip]):
        left = burn if isinstance(burn, str) else burn - burned
        burned |= _names(burn)
        if left != frozenset():
            once.append(left)
    for deviation in DEVIATIONS[chip]:
        once = deviation.applied(once)
    joint: list[Burn] = ["key with digest 0"] if chip == "esp32c2" else []
    return [*joint, *once]


def burned_by(plan: Plan) -> list[Burn]:
    """What a plan burns, in the words of `expected`."""
    return list(_burns(plan))


def _burns(plan: Plan) -> Iterable[Burn]:
    for step in plan.burns:
        if isinstance(step, BurnKey):
            half = "" if step.half is None else f" half {step.half}"
            yield f"key{half}" if step.digest is None else "key with digest 0"
        elif isinstance(step, BurnDigest):
            yield f"digest {step.slot}"
        elif isinstance(step, BurnFuses):
            yield frozenset(name for name, _ in step.fuses)
        elif isinstance(step, WriteProtect):
            yield f"write-protect {step.fuse}"
        elif isinstance(step, LockDownload):
            yield LOCK
        else:
            raise AssertionError(step)


@pytest.mark.parametrize("name", CHIPS)
def test_a_plan_burns_what_espressifs_page_burns_in_its_order_but_for_what_is_named(name, tmp_path: Path):
    chip = CHIPS[name]
    lock = Lock.SECURE_DOWNLOAD if chip.fuses.secure_download is not None else Lock.DOWNLOAD_OFF
    plan = Bench(chip, tmp_path).plan(Profile.RELEASE_SBV2, lock)
    assert burned_by(plan) == expected(name)


def test_every_deviation_has_a_reason_and_changes_something():
    for name, deviations in DEVIATIONS.items():
        burns = [*ENCRYPTION[name], *SECURE_BOOT[name]]
        for deviation in deviations:
            assert deviation.why
            assert deviation.drop is not None or deviation.add is not None, name
        assert burns != expected(name)
