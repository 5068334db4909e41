"""What the firmware tells of the eFuses, and what it has ESP-IDF burn: the requests that reach the chip."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_board import FakeBoard
from fake_chip import (
    DOWNLOAD_OFF,
    RELEASE_MODE,
    SECURE_DOWNLOAD,
    SECURE_VERSION,
    SET_BIT,
    VERIFY_ENCRYPTION,
    VERIFY_SECURE_BOOT,
)
from fake_server import FakeServer
from firmware_builds import TEST_FRAGMENTS, Builds
from sample_packages import package_for

from harness.chips import chip_named
from harness.chips.efuses import efuse_geometry
from harness.chips.idf_burns import idf_burns
from harness.formats.otadata import OtaData, OtaRecord, OtaState

ANTI = (*TEST_FRAGMENTS, "rollback.anti")
PANIC = 1
DEVELOPMENT = ("profile.development", *TEST_FRAGMENTS[1:])


@pytest.mark.parametrize(("chip", "size"), [("esp32c3", 24), ("esp32", 28)])
def test_status_tells_block0_and_the_secure_version(
    make_board: Callable[..., FakeBoard], builds: Builds, chip: str, size: int
) -> None:
    board = make_board(builds("1.0.0", chip=chip_named(chip)), secure_version_fuse=3)
    boot = board.boot()
    assert boot["fuse_secure_version"] == 3
    raw = bytes.fromhex(boot["fuses"])
    assert len(raw) == size
    assert int.from_bytes(raw, "little") == (0b111 << 142 if chip == "esp32c3" else 0)
    blocks = 6 if chip == "esp32c3" else 3
    # The version of an ESP32 is in the upper half of its last block.
    expected = (1 << 2 * blocks) - 1 - (0 if chip == "esp32c3" else 1 << 2 * blocks - 1)
    assert boot["blank_key_halves"] == expected


def test_the_release_check_is_esp_idfs_and_its_warnings_are_logged(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds())
    board.chip.efuse_answers[VERIFY_ENCRYPTION] = (0, "W flash_encrypt: Not disabled JTAG (set it)\n")
    board.boot()
    assert board.command("status")["release_ok"] is False
    assert any("W (" in line and "flash_encrypt: Not disabled JTAG" in line for line in board.lines)
    board.chip.efuse_answers[VERIFY_ENCRYPTION] = (1, "")
    assert board.command("status")["release_ok"] is True


def test_the_check_of_secure_boot_is_asked_for_only_with_secure_boot(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    plain = make_board(builds())
    plain.boot()
    assert "sb_release_ok" not in plain.command("status")
    board = make_board(builds(), secure_boot=1)
    board.chip.efuse_answers[VERIFY_SECURE_BOOT] = (1, "")
    board.boot()
    status = board.command("status")
    assert (status["sb"], status["sb_release_ok"]) == (True, True)


@pytest.mark.parametrize(
    ("mode", "action"), [("download-off", DOWNLOAD_OFF), ("secure-download", SECURE_DOWNLOAD)]
)
def test_a_lock_is_one_call_of_esp_idf(board: FakeBoard, mode: str, action: int) -> None:
    board.chip.efuse_requests.clear()
    assert board.command("lock", mode=mode)["ok"]
    assert [request[0] for request in board.chip.efuse_requests] == [action]


def test_release_is_reached_from_development(make_board: Callable[..., FakeBoard], builds: Builds) -> None:
    board = make_board(builds("1.0.0", fragments=DEVELOPMENT), mode=1)
    board.chip.efuse_answers[RELEASE_MODE] = (0, "I efuse: BURN BLOCK0\n")
    assert board.boot()["fe"] == "development"
    assert board.command("lock", mode="release")["ok"]
    assert any("efuse: BURN BLOCK0" in line for line in board.lines)
    assert any("flash_encrypt: Flash encryption mode is RELEASE" in line for line in board.lines)
    assert board.command("status")["fe"] == "release"


@pytest.mark.parametrize(("chip", "last"), [("esp32c3", SECURE_DOWNLOAD), ("esp32", SET_BIT)])
def test_release_is_burned_bit_by_bit_and_what_freezes_others_comes_after_them(
    make_board: Callable[..., FakeBoard], builds: Builds, chip: str, last: int
) -> None:
    row = chip_named(chip)
    board = make_board(builds("1.0.0", chip=row, fragments=DEVELOPMENT), mode=1)
    board.boot()
    board.chip.efuse_requests.clear()
    assert board.command("lock", mode="release")["ok"]
    *requests, check = board.chip.efuse_requests
    # The fake chip keeps no fuses: to ESP-IDF's function it is still in development.
    assert check[0] == RELEASE_MODE
    assert requests[-1][0] == last
    bits = [request[1] for request in requests if request[0] == SET_BIT]
    geometry, burns = efuse_geometry(chip), idf_burns(chip)
    closing = [geometry.field(str(name)).write_disable for name in (burns.write_protect, row.fuses.counter)]
    assert bits == [*(geometry.field(name).bit for name in burns.release_mode), *closing]


def test_a_fuse_that_does_not_take_ends_release_before_anything_is_frozen(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds("1.0.0", fragments=DEVELOPMENT), mode=1)
    board.boot()
    board.chip.efuse_requests.clear()
    board.chip.efuse_status[SET_BIT] = -1
    done = board.command("lock", mode="release")
    assert not done["ok"]
    assert "going to release mode" in done["msg"]
    assert [request[0] for request in board.chip.efuse_requests] == [SET_BIT]


def test_release_that_did_not_take_ends_in_an_abort(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds("1.0.0", fragments=DEVELOPMENT), mode=1, mode_after_release=1)
    board.boot()
    board.send("lock", mode="release")
    assert board.wait_restart() == PANIC
    assert board.logged("Flash encryption mode is DEVELOPMENT, abort..")
    assert board.logged("abort() was called")


@pytest.mark.parametrize("state", [OtaState.PENDING_VERIFY, OtaState.VALID])
def test_confirming_burns_the_version_of_what_runs_once(
    make_board: Callable[..., FakeBoard], builds: Builds, state: OtaState
) -> None:
    board = make_board(builds("1.0.0", fragments=ANTI, secure_version=2))
    board.write_otadata(OtaData((OtaRecord.make(1, OtaState.NEW), OtaRecord.empty())))
    board.boot()
    if state is OtaState.VALID:
        assert board.command("confirm")["ok"]
    board.chip.efuse_requests.clear()
    assert board.command("confirm")["ok"]
    burns = [request for request in board.chip.efuse_requests if request[0] == SECURE_VERSION]
    # What is valid already is not looked at again, as in ESP-IDF.
    assert burns == ([(SECURE_VERSION, 2, bytes((16, 0, 0, 0)))] if state is OtaState.PENDING_VERIFY else [])


def test_without_anti_rollback_confirming_burns_nothing(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds("1.0.0", secure_version=2))
    board.write_otadata(OtaData((OtaRecord.make(1, OtaState.NEW), OtaRecord.empty())))
    board.boot()
    assert board.command("confirm")["ok"]
    assert SECURE_VERSION not in [request[0] for request in board.chip.efuse_requests]


def test_a_package_below_the_fuses_is_refused_before_the_erase(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer
) -> None:
    board = make_board(builds("1.0.0", fragments=ANTI))
    board.boot()
    board.chip.secure_version_fuse = 2  # as if somebody had burned them meanwhile
    package = package_for(board, builds("1.1.0", fragments=ANTI, secure_version=1))
    board.chip.operations.clear()
    done = board.command("ota", url=server.serve("/p", server.whole(package)))
    assert done["err"] == "secure-version-too-old"
    assert "below the eFuse's 2" in done["msg"]
    assert board.chip.operations == []


def test_an_app_below_the_fuses_does_not_get_past_its_start_up(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds("1.0.0", fragments=ANTI), secure_version_fuse=1)
    board.reset()
    assert board.wait_restart() == PANIC
    assert board.logged("efuse_init: init_efuse_secure(94): Incorrect secure version of app")
    assert board.logged("abort() was called")


def test_a_build_that_locks_does_so_before_app_main(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    fragments = ("profile.release", "lock.secure-download", *TEST_FRAGMENTS[2:])
    board = make_board(builds("1.0.0", fragments=fragments))
    board.boot()
    assert board.chip.efuse_requests[0][0] == SECURE_DOWNLOAD
    esp32 = make_board(builds("1.0.0", chip=chip_named("esp32"), fragments=fragments))
    esp32.boot()
    assert SECURE_DOWNLOAD not in [request[0] for request in esp32.chip.efuse_requests]
