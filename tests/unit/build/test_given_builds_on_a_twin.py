"""`--app` from end to end, on twins: a set of this host's own, and the build folder of somebody's app for the chip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from idf_folder import app_image, write_idf_folder

BOARDS = """\
version: 1
boards:
  virtual: {chip: esp32c3, link: twin, state: state}
"""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with a boards.yaml."""
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return tmp_path


def harness(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with a state folder of its own and builds shared by all tests."""
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        env=os.environ | {"HARNESS_HOME": str(folder / "home"), "HARNESS_DEBUG": ""},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_set_of_artefacts_is_flashed_and_updated_with_the_plan_naming_every_partition(bench: Path) -> None:
    built = harness(bench, "build", "--board", "virtual", "--native", "--out", "set", "--version", "3.0.0")
    assert built.returncode == 0, built.stderr
    done = harness(bench, "run", "--board", "virtual", "--app", "set", "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nvs at 0x11000 (0x6000 bytes): kept, the build has no image for it" in done.stderr
    assert "otadata at 0x17000 (0x2000 bytes): written, enciphered" in done.stderr
    assert "boot 1: POWERON → ota_0 @ 0x20000, 3.0.0" in done.stderr
    assert "PASSED" in done.stdout


def test_somebodys_app_for_the_chip_is_provisioned_and_loaded_and_nothing_more_is_claimed(
    bench: Path,
) -> None:
    folder = write_idf_folder(bench / "theirs")
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    done = harness(bench, "run", "--board", "virtual", "--profile", "release", "--app", "theirs")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "✓ the bootloader loads the app" in said
    assert "a twin only loads it; no update is tried" in said
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before


def test_a_plan_for_a_build_is_carried_out_from_its_id_alone(bench: Path) -> None:
    write_idf_folder(bench / "theirs")
    planned = harness(bench, "plan", "--board", "virtual", "--profile", "release", "--app", "theirs")
    assert planned.returncode == 0, planned.stderr
    number = planned.stdout.split()[1].rstrip(":")
    other = harness(bench, "provision", "--plan", number, "--app", "elsewhere")
    assert other.returncode == 2
    assert f"plan {number} is for app" in other.stderr
    done = harness(bench, "provision", "--plan", number)
    assert done.returncode == 0, done.stderr
    assert f"virtual: plan {number} is done" in done.stdout


def test_a_build_that_changed_since_its_plan_was_printed_is_not_flashed(bench: Path) -> None:
    folder = write_idf_folder(bench / "theirs")
    planned = harness(bench, "plan", "--board", "virtual", "--profile", "release", "--app", "theirs")
    number = planned.stdout.split()[1].rstrip(":")
    (folder / "otaapp.bin").write_bytes(app_image("6.6.6"))
    done = harness(bench, "provision", "--plan", number)
    assert done.returncode == 4
    assert "what would be written, or the vault's key, is another. Nothing was done" in done.stderr


def test_profile_open_refuses_a_build_that_would_encrypt_the_flash_by_itself(bench: Path) -> None:
    write_idf_folder(bench / "theirs")
    done = harness(bench, "plan", "--board", "virtual", "--profile", "open", "--app", "theirs")
    assert done.returncode == 2
    assert "encrypts the flash by itself at its first start (release mode)" in done.stderr


def test_partitions_are_written_or_erased_only_when_that_is_asked_for_by_name(bench: Path) -> None:
    write_idf_folder(bench / "theirs")
    command = ("plan", "--board", "virtual", "--profile", "release", "--app", "theirs")
    erased = harness(bench, *command, "--erase", "nvs")
    assert "nvs at 0xd000 (0x4000 bytes): erased, as asked for" in erased.stdout, erased.stderr
    unknown = harness(bench, *command, "--erase", "nowhere")
    assert unknown.returncode == 2
    assert "nowhere" in unknown.stderr
    missing = harness(bench, *command, "--write", "nvs")
    assert missing.returncode == 2
    assert "has no image for partition nvs" in missing.stderr


def test_a_build_without_sdkconfig_plans_unknown_burns(bench: Path) -> None:
    folder = write_idf_folder(bench / "theirs")
    (folder / "config" / "sdkconfig.json").unlink()
    planned = harness(bench, "plan", "--board", "virtual", "--profile", "release", "--app", "theirs")
    assert planned.returncode == 0, planned.stderr
    assert "! UNKNOWN burns by the firmware itself" in planned.stdout
    assert "nobody can tell which eFuses this firmware burns by itself" in planned.stdout


def configured(folder: Path, **options: object) -> Path:
    """The build folder with other options in its sdkconfig, as if it had been built so."""
    path = folder / "config" / "sdkconfig.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    return folder


def test_what_a_build_burns_that_the_board_is_only_updated_to_is_in_the_plan(bench: Path) -> None:
    write_idf_folder(bench / "one")
    second = configured(
        write_idf_folder(bench / "two"),
        BOOTLOADER_APP_ANTI_ROLLBACK=True,
        BOOTLOADER_APP_SECURE_VERSION=2,
    )
    (second / "otaapp.bin").write_bytes(app_image("1.1.0"))
    planned = harness(
        bench, "plan", "--board", "virtual", "--profile", "release", "--app", "one", "--app", "two"
    )
    assert planned.returncode == 0, planned.stderr
    assert "! the app burns by itself, when it confirms itself" in planned.stdout
    assert "SECURE_VERSION up to 2" in planned.stdout


def test_a_build_that_would_switch_uart_download_off_needs_that_lock_by_name(bench: Path) -> None:
    configured(
        write_idf_folder(bench / "theirs"),
        SECURE_DISABLE_ROM_DL_MODE=True,
        SECURE_ENABLE_SECURE_ROM_DL_MODE=False,
    )
    command = ("plan", "--board", "virtual", "--profile", "release", "--app", "theirs")
    done = harness(bench, *command)
    assert done.returncode == 2
    assert "burns DIS_DOWNLOAD_MODE at every start: no cable would ever write" in done.stderr
    asked = harness(bench, *command, "--lock", "download-off")
    assert asked.returncode == 0, asked.stderr
    assert "FINAL: burn DIS_DOWNLOAD_MODE" in asked.stdout


def test_a_build_for_a_larger_flash_chip_is_refused_before_any_fuse_is_burned(bench: Path) -> None:
    configured(write_idf_folder(bench / "theirs"), ESPTOOLPY_FLASHSIZE="16MB")
    done = harness(bench, "provision", "--board", "virtual", "--profile", "release", "--app", "theirs")
    assert done.returncode == 4, done.stderr
    assert "its flash chip has 4 MiB, the build in" in done.stderr
    assert "is for 16 MiB. Nothing was written" in done.stderr
    again = harness(bench, "plan", "--board", "virtual", "--profile", "open", "--json", "--app", "theirs")
    assert "encrypts the flash by itself" in again.stderr
    key_block = (bench / "state" / "efuse.bin").read_bytes()[0x70:0x90]
    assert not any(key_block), "a key was burned"


def test_the_public_key_that_a_build_elsewhere_needs_is_printed(bench: Path) -> None:
    done = harness(bench, "vault", "public-key", "--board", "virtual")
    assert done.returncode == 0, done.stderr
    (bench / "key.pem").write_text(done.stdout)
    built = harness(bench, "build", "--chip", "esp32c3", "--native", "--sign-key", "key.pem", "--out", "set")
    assert built.returncode == 0, built.stderr
    ran = harness(bench, "run", "--board", "virtual", "--app", "set", "--profile", "release")
    assert ran.returncode == 0, ran.stdout + ran.stderr
