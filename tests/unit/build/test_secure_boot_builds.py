"""Which builds suit a board with secure boot, and which fragments make one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from idf_folder import write_idf_folder

from harness.build.app_dir import AppDirectory, read_app_dir
from harness.build.board_keys import KeySources
from harness.build.firmware_source import GivenFirmware
from harness.build.fuses_burned import APP
from harness.build.native import firmware_dir
from harness.build.sdkconfig import fragment_path, native_options
from harness.build.target import _collect
from harness.chips import CHIPS, ESP32C3, SigningScheme
from harness.errors import UsageError
from harness.firmware import burned_by_itself, judge, security_fragments
from harness.provision.profile import Lock, Profile

RSA, P256 = SigningScheme.RSA_3072, SigningScheme.ECDSA_P256


def board(scheme: SigningScheme = RSA) -> Any:
    """As much of a board as builds are judged by."""
    vault = SimpleNamespace(signing_public_key=lambda: b"")
    return SimpleNamespace(name="desk", chip=ESP32C3, vault=vault, boot_keys=KeySources(scheme))


@pytest.fixture
def signed_build(tmp_path: Path) -> AppDirectory:
    """Made for secure boot, with flash encryption in release mode."""
    return read_app_dir(write_idf_folder(tmp_path / "boot", "secure-boot"))


@pytest.fixture
def plain_build(tmp_path: Path) -> AppDirectory:
    return read_app_dir(write_idf_folder(tmp_path / "plain", "release"))


def with_options(app: AppDirectory, **options: str) -> AppDirectory:
    return replace(app, sdkconfig={**(app.sdkconfig or {}), **{f"CONFIG_{k}": v for k, v in options.items()}})


def test_a_build_that_turns_secure_boot_on_by_itself_is_refused_without_it(
    signed_build: AppDirectory,
) -> None:
    for profile in (Profile.OPEN, Profile.RELEASE):
        app = with_options(signed_build, SECURE_FLASH_ENC_ENABLED="y" if profile.encrypts else "n")
        with pytest.raises(UsageError, match="turns secure boot on by itself") as caught:
            judge(board(), app, profile, Lock.SECURE_DOWNLOAD)
        assert f"demand profile {profile.value}+sbv2" in str(caught.value)


def test_a_build_for_secure_boot_suits_a_board_with_it(signed_build: AppDirectory) -> None:
    remarks = judge(board(), signed_build, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)
    assert not any("secure boot" in remark for remark in remarks)


def test_a_build_without_secure_boot_is_remarked_on_since_its_bootloader_starts_anything(
    plain_build: AppDirectory,
) -> None:
    remarks = judge(board(), plain_build, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)
    assert "the bootloader starts any app, signed or not" in " ".join(remarks)
    remarks = judge(board(), plain_build, Profile.RELEASE, Lock.SECURE_DOWNLOAD)
    assert "signed" not in " ".join(remarks)


def test_a_build_for_another_scheme_than_the_boards_is_refused(signed_build: AppDirectory) -> None:
    with pytest.raises(UsageError, match="verifies rsa3072, the board's keys sign with ecdsa256"):
        judge(board(P256), signed_build, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)


def test_secure_boot_v1_is_refused(signed_build: AppDirectory) -> None:
    for profile in (Profile.RELEASE, Profile.RELEASE_SBV2):
        with pytest.raises(UsageError, match="secure boot v1"):
            judge(
                board(), with_options(signed_build, SECURE_BOOT_V1_ENABLED="y"), profile, Lock.SECURE_DOWNLOAD
            )


def test_of_several_builds_those_count_that_fit_the_boards_secure_boot(tmp_path: Path) -> None:
    boot = write_idf_folder(tmp_path / "boot", "secure-boot")
    plain = tmp_path / "plain"
    shutil.copytree(boot, plain)
    (plain / "config" / "sdkconfig.json").write_text(
        (boot / "config" / "sdkconfig.json")
        .read_text()
        .replace('"SECURE_BOOT": true', '"SECURE_BOOT": false')
    )
    for wanted, folder in ((True, boot), (False, plain)):
        chosen = GivenFirmware.read([plain, boot], chip=ESP32C3, encryption="release", secure_boot=wanted)
        assert [app.dir for app in chosen.apps] == [folder]


def test_a_profile_with_secure_boot_is_built_with_it_and_its_scheme() -> None:
    assert security_fragments(Profile.RELEASE, Lock.NONE, RSA) == ("profile.release", "lock.none")
    assert security_fragments(Profile.CIPHERTEXT_ONLY_SBV2, Lock.NONE, P256) == (
        "profile.development",
        "boot.sbv2",
        "scheme.ecdsa256",
        "lock.none",
    )


EVERY_SCHEME = [(chip, scheme) for chip in CHIPS.values() for scheme in chip.secure_boot.schemes]


@pytest.mark.parametrize(
    ("chip", "scheme"), EVERY_SCHEME, ids=[f"{chip.name}-{scheme.value}" for chip, scheme in EVERY_SCHEME]
)
def test_every_scheme_of_every_chip_has_a_fragment_that_its_build_verifies_by(chip: Any, scheme: Any) -> None:
    options = native_options(firmware_dir(), chip, ("boot.sbv2", f"scheme.{scheme.value}"))
    app = SimpleNamespace(sdkconfig=options)
    assert AppDirectory.signing_scheme.fget(app) is scheme  # type: ignore[attr-defined]
    assert options["CONFIG_SECURE_BOOT"] == "y"
    # ESP-IDF hides ECDSA where the chip's unit has faults.
    forced = options.get("CONFIG_SECURE_BOOT_V2_FORCE_ENABLE_ECDSA") == "y"
    assert forced == (chip.name in ("esp32c5", "esp32h2", "esp32p4") and not scheme.is_rsa)


def test_a_fragment_for_one_chip_is_no_fragment_to_choose() -> None:
    assert fragment_path(firmware_dir(), "scheme.ecdsa256").name == "sdkconfig.scheme.ecdsa256"
    with pytest.raises(UsageError) as caught:
        fragment_path(firmware_dir(), "scheme.none")
    assert "scheme.ecdsa256," in str(caught.value)
    assert "esp32h2" not in str(caught.value)


def test_esp_idf_is_given_the_options_of_the_chip_too() -> None:
    idf: Any = SimpleNamespace(version="v5.5.5")
    inputs = _collect(CHIPS["esp32h2"], "1.0.0", ("boot.sbv2", "scheme.ecdsa256"), 0, (), idf, firmware_dir())
    assert "sdkconfig.scheme.ecdsa256.esp32h2" in [name for name, _ in inputs.configuration]


@pytest.mark.parametrize(
    ("profile", "options", "told"),
    [
        (Profile.DEVELOPMENT_SBV2, {}, True),
        (Profile.CIPHERTEXT_ONLY_SBV2, {}, True),
        (Profile.DEVELOPMENT_SBV2, {"SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA": "y"}, False),
        (Profile.RELEASE_SBV2, {}, False),
    ],
)
def test_a_build_that_closes_the_way_to_release_is_remarked_on(
    profile: Profile, options: dict[str, str], told: bool, signed_build: AppDirectory
) -> None:
    bench = board()
    bench.chip = CHIPS["esp32c5"]
    lock = Lock.NONE if profile is not Profile.RELEASE_SBV2 else Lock.SECURE_DOWNLOAD
    app = with_options(signed_build, SECURE_ENABLE_SECURE_ROM_DL_MODE="n", **options)
    remarks = " ".join(judge(bench, app, profile, lock))
    words = "write-protects SECURE_BOOT_SHA384_EN at its first start, and XTS_DPA_PSEUDO_LEVEL with it: release is out"
    assert (words in remarks) is told


def test_what_a_plan_has_frozen_the_app_need_not_burn(signed_build: AppDirectory) -> None:
    for name, profile, left in (
        ("esp32h2", Profile.DEVELOPMENT_SBV2, False),
        ("esp32c5", Profile.DEVELOPMENT_SBV2, True),
        ("esp32c5", Profile.RELEASE_SBV2, False),
    ):
        chip = CHIPS[name]
        fuse = chip.secure_boot.also_write_protect[0]
        app = replace(signed_build, chip=chip)
        for protected, burns in ((frozenset(), left), (frozenset({fuse}), False)):
            state: Any = SimpleNamespace(chip=chip, fuses={}, encrypted=False, write_protected=protected)
            found = burned_by_itself(app, state, profile, Lock.NONE).burns
            assert any((burn.by, burn.fuse) == (APP, f"WR_DIS of {fuse}") for burn in found) is burns
