"""What a build with secure boot asks of the chip that another does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fake_board import FakeBoard
from fake_chip import EFUSE, VERIFY
from fake_server import FakeServer
from firmware_builds import TEST_FRAGMENTS, Builds
from sample_packages import other_slot, package_for

from harness.build.fuses_burned import frozen_at_start
from harness.chips import chip_named

CHECK_SECURE_BOOT = 7
START_UP_WRITE_PROTECT = 8
SECURE_BOOT = "CONFIG_SECURE_BOOT=y\nCONFIG_SECURE_BOOT_V2_ENABLED=y\n"
RSA = "CONFIG_SECURE_SIGNED_APPS_RSA_SCHEME=y\n"
ECDSA = "CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME=y\n"


@pytest.mark.parametrize(
    ("options", "signature", "starts"),
    [
        ("", 0, []),
        (SECURE_BOOT, 1, [0]),
        (SECURE_BOOT + RSA, 2, [0]),
        (SECURE_BOOT + ECDSA, 4, [0]),
        (SECURE_BOOT + ECDSA + "CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_192_BITS=y\n", 3, [0]),
        (SECURE_BOOT + "CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS=y\n", 1, [1]),
    ],
    ids=["without", "any scheme", "RSA", "P-256", "P-192", "unused slots may stay"],
)
def test_the_build_decides_which_signature_an_update_must_have(
    options: str,
    signature: int,
    starts: list[int],
    make_board: Callable[..., FakeBoard],
    builds: Builds,
    server: FakeServer,
    tmp_path: Path,
) -> None:
    fragment = tmp_path / "sdkconfig.boot"
    fragment.write_text(options)
    fragments = (*TEST_FRAGMENTS, str(fragment))
    board = make_board(builds("1.0.0", fragments=fragments))
    board.boot()
    assert [
        arg1 for op, arg0, arg1, _ in board.chip.checks if (op, arg0) == (EFUSE, CHECK_SECURE_BOOT)
    ] == starts
    package = package_for(board, builds("1.1.0"))
    assert board.command("ota", url=server.serve("/p", server.whole(package)))["ok"]
    slot = other_slot(board)
    assert [check for check in board.chip.checks if check[0] == VERIFY] == [
        (VERIFY, slot.offset, slot.size, bytes([signature]))
    ]


@pytest.mark.parametrize(
    ("chip", "options", "told"),
    [("esp32", "", False), ("esp32", SECURE_BOOT + RSA, True), ("esp32c3", "", True)],
)
def test_an_esp32_tells_of_secure_boot_only_in_a_build_that_has_it(
    chip: str,
    options: str,
    told: bool,
    make_board: Callable[..., FakeBoard],
    builds: Builds,
    tmp_path: Path,
) -> None:
    """``esp_secure_boot_enabled()`` of ESP-IDF: on ESP32 its answer is compiled in."""
    fragment = tmp_path / "sdkconfig.boot"
    fragment.write_text(options)
    artefacts = builds("1.0.0", chip=chip_named(chip), fragments=(*TEST_FRAGMENTS, str(fragment)))
    board = make_board(artefacts, secure_boot=True)
    assert board.boot()["sb"] is told


@pytest.mark.parametrize(
    ("chip", "fragments", "freezes"),
    [
        ("esp32c5", ("profile.release", "boot.sbv2"), True),
        ("esp32c5", ("profile.development", "boot.sbv2"), False),
        pytest.param(
            "esp32c5", ("profile.release", "boot.sbv2", "scheme.ecdsa384"), False, marks=pytest.mark.full
        ),
        pytest.param("esp32c5", ("profile.release",), False, marks=pytest.mark.full),
        ("esp32h2", ("profile.development", "boot.sbv2"), True),
        ("esp32p4", ("profile.release", "boot.sbv2"), False),
    ],
)
def test_the_start_up_freezes_what_esp_idfs_freezes(
    chip: str,
    fragments: tuple[str, ...],
    freezes: bool,
    make_board: Callable[..., FakeBoard],
    builds: Builds,
) -> None:
    artefacts = builds("1.0.0", chip=chip_named(chip), fragments=(*fragments, *TEST_FRAGMENTS[1:]))
    board = make_board(artefacts)
    board.boot()
    asked = [request[0] for request in board.chip.efuse_requests]
    assert asked.count(START_UP_WRITE_PROTECT) == int(freezes)
    told = frozen_at_start(artefacts.sdkconfig, chip)
    assert (told is not None) is freezes
