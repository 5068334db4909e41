"""Plans for release with secure boot, fuse by fuse and in order, held against Espressif's page for each chip.

The page is "Security Features Enablement Workflows" of ESP-IDF v5.5.5 (docs/en/security), read for each target: what
its conditions (``SOC_EFUSE_…``) leave standing. Every difference is one that `harness.provision.deviations` lists with
its reason; a plan that differs in any other way fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from fuse_bench import Bench

from harness.chips import CHIPS
from harness.provision import Lock, Plan, Profile
from harness.provision.deviations import DEVIATIONS, deviation_notes
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
    """What a deviation of `harness.provision.deviations` does to the page's burns; some take two steps."""

    def __init__(
        self, name: str, *, drop: Burn | None = None, add: Burn | None = None, after: Burn | None = None
    ):
        self.name, self.drop, self.add, self.after = name, drop, add, after

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


LOCK_LAST = Deviation("lock last", drop=LOCK)
NOT_AGGRESSIVE = Deviation("no aggressive revocation", drop=AGGRESSIVE)

CHANGES: dict[str, tuple[Deviation, ...]] = {
    "esp32": (
        LOCK_LAST,
        Deviation("config before counter", drop="FLASH_CRYPT_CONFIG"),
        Deviation("config before counter", add=fuses("FLASH_CRYPT_CONFIG"), after="key"),
        Also(
            "console off",
            add=fuses("CONSOLE_DEBUG_DISABLE"),
            after=fuses("DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT", "DISABLE_DL_CACHE", "JTAG_DISABLE"),
        ),
    ),
    "esp32s2": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Deviation("guard behind secure boot", drop=ICACHE),
        Deviation("guard behind secure boot", add=ICACHE, after=fuses("SOFT_DIS_JTAG")),
    ),
    "esp32s3": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c2": (
        LOCK_LAST,
        Deviation("key and digest together", drop=DIGEST),
        Deviation("key and digest together", drop="key"),
        Deviation("counter frozen", add="write-protect SPI_BOOT_CRYPT_CNT", after=ENABLE),
    ),
    "esp32c3": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c6": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32c5": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Also(
            "download cache off",
            add=fuses("SPI_DOWNLOAD_MSPI_DIS"),
            after=fuses("DIS_DIRECT_BOOT", "DIS_USB_JTAG", "DIS_PAD_JTAG", MANUAL, "XTS_DPA_PSEUDO_LEVEL"),
        ),
    ),
    "esp32h2": (LOCK_LAST, NOT_AGGRESSIVE),
    "esp32p4": (
        LOCK_LAST,
        NOT_AGGRESSIVE,
        Deviation("SHA-384 not frozen", drop="write-protect SECURE_BOOT_SHA384_EN"),
    ),
}
BESIDE_THE_BURNS = ("key kept", "canary")
"""Deviations that no burn of a release plan shows."""


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
    for deviation in CHANGES[chip]:
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


def release_plan(name: str, folder: Path, profile: Profile = Profile.RELEASE_SBV2) -> Plan:
    chip = CHIPS[name]
    lock = Lock.SECURE_DOWNLOAD if chip.fuses.secure_download is not None else Lock.DOWNLOAD_OFF
    return Bench(chip, folder).plan(profile, lock)


@pytest.mark.parametrize("name", CHIPS)
def test_a_plan_burns_what_espressifs_page_burns_in_its_order_but_for_what_is_named(name, tmp_path: Path):
    assert burned_by(release_plan(name, tmp_path)) == expected(name)


@pytest.mark.parametrize("name", CHIPS)
def test_a_plan_tells_every_deviation_that_it_contains_and_no_other(name, tmp_path: Path):
    plan = release_plan(name, tmp_path)
    found = [each for each in DEVIATIONS if each.is_in(CHIPS[name], plan.steps)]
    assert {each.name for each in found} == {*BESIDE_THE_BURNS, *(each.name for each in CHANGES[name])}
    for each in found:
        assert sum(each.what in remark for remark in plan.remarks) == 1, each.name
    assert sum("unlike Espressif's page" in remark for remark in plan.remarks) == sum(
        not each.told_with_the_step for each in found
    )


def test_a_board_that_may_still_become_release_is_told_of_what_stays_open(tmp_path: Path):
    plan = Bench(CHIPS["esp32c5"], tmp_path).plan(Profile.DEVELOPMENT_SBV2)
    names = {each.name for each in DEVIATIONS if each.is_in(CHIPS["esp32c5"], plan.steps)}
    assert names == {*BESIDE_THE_BURNS, "no aggressive revocation", "SHA-384 open until release"}
    assert any(remark.startswith("SECURE_BOOT_SHA384_EN is not write-protected") for remark in plan.remarks)


def test_a_plan_that_burns_nothing_has_no_deviation():
    assert all(deviation_notes(chip, ()) == () for chip in CHIPS.values())


def test_the_documentation_has_the_same_table():
    page = Path(__file__).parents[3] / "docs" / "security-states.md"
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in page.read_text(encoding="utf-8")
        .partition("## Where a plan differs from Espressif's page")[2]
        .partition("\n## ")[0]
        .splitlines()
        if line.startswith("|")
    ][2:]
    told = [
        ("all" if each.chips == tuple(CHIPS) else ", ".join(each.chips), each.what, each.why)
        for each in DEVIATIONS
    ]
    assert rows == told
