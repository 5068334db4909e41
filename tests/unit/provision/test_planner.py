"""Plans: the right burns in the right order, nothing on a board that is there, a refusal that names the fuse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, VirtualBoard, burns_of, firmware

from harness.chips import ESP32, ESP32C3
from harness.errors import RefusedError, UsageError
from harness.provision import (
    ChipState,
    FlashRegion,
    Lock,
    Profile,
    default_lock,
    plan_for,
)
from harness.provision.steps import (
    BurnFuses,
    BurnKey,
    Canary,
    ConfirmFuses,
    DecipherCheck,
    LockDownload,
    MakeKey,
    ReadBack,
    Step,
    WriteFlash,
    WriteProtect,
    WriteRecord,
)
from harness.vault import KeyRef, key_id

OTHER_KEY = bytes(range(32))
BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


C3_RELEASE = [
    "key BLOCK_KEY0 XTS_AES_128_KEY",
    "SPI_BOOT_CRYPT_CNT=7",
    "DIS_DOWNLOAD_ICACHE=1 DIS_DIRECT_BOOT=1 DIS_USB_JTAG=1 DIS_PAD_JTAG=1 DIS_DOWNLOAD_MANUAL_ENCRYPT=1",
    "write-protect DIS_ICACHE",
]
ESP32_RELEASE = [
    "key flash_encryption",
    "FLASH_CRYPT_CONFIG=15",
    "FLASH_CRYPT_CNT=127",
    "DISABLE_DL_ENCRYPT=1 DISABLE_DL_DECRYPT=1 DISABLE_DL_CACHE=1 JTAG_DISABLE=1 CONSOLE_DEBUG_DISABLE=1",
    "write-protect DIS_CACHE",
]


@pytest.mark.parametrize(
    ("chip", "profile", "lock", "burns"),
    [
        (ESP32C3, Profile.DEVELOPMENT, None, [C3_RELEASE[0], "SPI_BOOT_CRYPT_CNT=1"]),
        (ESP32, Profile.DEVELOPMENT, None, [*ESP32_RELEASE[:2], "FLASH_CRYPT_CNT=1"]),
        (ESP32C3, Profile.RELEASE, None, [*C3_RELEASE, "lock ENABLE_SECURITY_DOWNLOAD"]),
        (ESP32C3, Profile.RELEASE, Lock.NONE, C3_RELEASE),
        (ESP32C3, Profile.RELEASE, Lock.DOWNLOAD_OFF, [*C3_RELEASE, "lock DIS_DOWNLOAD_MODE FINAL"]),
        (ESP32, Profile.RELEASE, None, ESP32_RELEASE),
        (ESP32, Profile.RELEASE, Lock.DOWNLOAD_OFF, [*ESP32_RELEASE, "lock UART_DOWNLOAD_DIS FINAL"]),
        (ESP32C3, Profile.OPEN, None, []),
        (ESP32, Profile.OPEN, None, []),
    ],
)
def test_a_new_board_is_burned_fuse_by_fuse_in_the_order_that_works(bench, chip, profile, lock, burns):
    assert burns_of(bench(chip).plan(profile, lock)) == burns


@BOTH
def test_the_steps_that_burn_nothing_stand_where_they_must(bench, chip):
    kinds = [type(step) for step in bench(chip).plan(Profile.RELEASE, Lock.DOWNLOAD_OFF).steps]
    order: list[type[Step]] = [
        MakeKey,
        BurnKey,
        *([BurnFuses] if chip is ESP32 else []),
        Canary,
        BurnFuses,
        BurnFuses,
        WriteProtect,
        *[WriteFlash] * 4,
        ReadBack,
        ConfirmFuses,
        LockDownload,
        WriteRecord,
    ]
    assert kinds == order


@BOTH
def test_everything_goes_to_flash_as_ciphertext_but_what_is_stored_in_the_clear(bench, chip):
    clear = FlashRegion("nvs", 0x12000, b"\xff" * 0x1000, stored_encrypted=False)
    plan = bench(chip).plan(Profile.RELEASE, regions=(*firmware(chip), clear))
    assert {step.name: step.enciphered for step in plan.writes} == {
        "bootloader": True,
        "partition-table": True,
        "nvs": False,
        "otadata": True,
        "app": True,
    }
    assert [step.offset for step in plan.writes] == sorted(step.offset for step in plan.writes)
    opened = VirtualBoard(chip).state()
    assert not any(
        step.enciphered for step in plan_for(opened, profile=Profile.OPEN, regions=firmware(chip)).writes
    )


def test_the_lock_is_secure_download_where_the_chip_has_it_and_never_final_by_default():
    assert default_lock(ESP32C3, Profile.RELEASE) is Lock.SECURE_DOWNLOAD
    assert default_lock(ESP32, Profile.RELEASE) is Lock.NONE
    assert {default_lock(chip, Profile.DEVELOPMENT) for chip in (ESP32, ESP32C3)} == {Lock.NONE}


@BOTH
@pytest.mark.parametrize("profile", [Profile.DEVELOPMENT, Profile.RELEASE])
def test_a_second_run_burns_nothing_and_says_so(bench, chip, profile):
    here = bench(chip)
    here.run(profile)
    programs = len(here.board.programs)
    plan = here.plan(profile)
    assert plan.empty
    assert "nothing to do" in plan.text()
    assert here.carry_out(plan).record == here.records.read(MAC)
    assert len(here.board.programs) == programs


@BOTH
def test_a_development_board_needs_only_what_release_adds(bench, chip):
    here = bench(chip)
    here.run(Profile.DEVELOPMENT)
    burns = burns_of(here.plan(Profile.RELEASE, Lock.NONE))
    assert burns == (C3_RELEASE[1:] if chip is ESP32C3 else ESP32_RELEASE[2:])


def test_a_release_board_may_still_be_locked(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    plan = here.plan(Profile.RELEASE, Lock.SECURE_DOWNLOAD, regions=())
    assert burns_of(plan) == ["lock ENABLE_SECURITY_DOWNLOAD"]
    assert not plan.writes


@BOTH
def test_reflashing_a_provisioned_board_burns_nothing_but_proves_the_key_first(bench, chip):
    here = bench(chip)
    here.run(Profile.RELEASE, Lock.NONE)
    plan = here.plan(Profile.RELEASE, Lock.NONE, reflash=True)
    assert plan.burns == ()
    assert [type(step) for step in plan.steps] == [DecipherCheck, *[WriteFlash] * 4, ReadBack, WriteRecord]


def test_the_key_goes_to_the_first_free_block_that_may_hold_it(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY0", "HMAC_UP", OTHER_KEY)
        here.board.burner().burn_key("BLOCK_KEY1", "SECURE_BOOT_DIGEST0", OTHER_KEY)
    assert burns_of(here.plan(Profile.RELEASE))[0] == "key BLOCK_KEY2 XTS_AES_128_KEY"
    here.run(Profile.RELEASE)
    assert here.board.key("BLOCK_KEY2") == here.vault.flash_key(MAC)


def test_block_key5_is_never_used_for_a_flash_key(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        for number in range(5):
            here.board.burner().burn_key(f"BLOCK_KEY{number}", "HMAC_UP", OTHER_KEY)
    with pytest.raises(
        RefusedError, match=r"no key block is free .*BLOCK_KEY4 \(read-protected\)\n"
    ) as refusal:
        here.plan(Profile.RELEASE)
    assert "BLOCK_KEY5" not in str(refusal.value).split("what to do")[0]


Setup = Callable[[VirtualBoard], None]


def foreign_key(board: VirtualBoard) -> None:
    """A board whose flash key somebody else burned."""
    fuses = board.chip.fuses
    with board.quietly():
        board.burner().burn_key(fuses.key_block, fuses.key_purpose, OTHER_KEY)


def readable_foreign_key(board: VirtualBoard) -> None:
    if board.chip is ESP32:
        board.set_cells(0, 0x12345678, block=1)
    else:
        board.set_cells(0, 0x12345678, block=4)
        board.set_fuses(KEY_PURPOSE_0=4)


@pytest.mark.parametrize(
    ("chip", "setup", "profile", "named"),
    [
        (
            ESP32C3,
            lambda b: b.protect("SPI_BOOT_CRYPT_CNT"),
            Profile.RELEASE,
            "SPI_BOOT_CRYPT_CNT is write-protected (WR_DIS bit 4)",
        ),
        (
            ESP32,
            lambda b: b.protect("FLASH_CRYPT_CNT"),
            Profile.DEVELOPMENT,
            "FLASH_CRYPT_CNT is write-protected (WR_DIS bit 2)",
        ),
        (ESP32C3, lambda b: b.protect("RD_DIS"), Profile.RELEASE, "RD_DIS is write-protected (WR_DIS bit 0)"),
        (ESP32, lambda b: b.protect("RD_DIS"), Profile.RELEASE, "RD_DIS is write-protected (WR_DIS bit 0)"),
        (ESP32, lambda b: b.protect("WR_DIS"), Profile.RELEASE, "WR_DIS is write-protected"),
        (
            ESP32C3,
            lambda b: b.protect("DIS_ICACHE"),
            Profile.RELEASE,
            "DIS_DOWNLOAD_MANUAL_ENCRYPT is write-protected (WR_DIS bit 2)",
        ),
        (
            ESP32,
            lambda b: b.protect("DISABLE_DL_CACHE"),
            Profile.RELEASE,
            "DISABLE_DL_CACHE is write-protected (WR_DIS bit 15)",
        ),
        (
            ESP32,
            lambda b: b.protect("FLASH_CRYPT_CONFIG"),
            Profile.RELEASE,
            "FLASH_CRYPT_CONFIG is write-protected (WR_DIS bit 10)",
        ),
        (
            ESP32C3,
            lambda b: b.protect("DIS_DOWNLOAD_MODE"),
            Profile.RELEASE,
            "ENABLE_SECURITY_DOWNLOAD is write-protected (WR_DIS bit 18)",
        ),
        (ESP32C3, foreign_key, Profile.RELEASE, "BLOCK_KEY0 holds a flash key that is not in the vault"),
        (ESP32, foreign_key, Profile.RELEASE, "BLOCK1 holds a flash key that is not in the vault"),
        (
            ESP32C3,
            readable_foreign_key,
            Profile.RELEASE,
            "BLOCK_KEY0 holds a flash key that is not the vault's",
        ),
        (ESP32, readable_foreign_key, Profile.RELEASE, "BLOCK1 holds a flash key that is not the vault's"),
        (ESP32, lambda b: b.protect("BLOCK1"), Profile.RELEASE, "BLOCK1 (write-protected)"),
        (ESP32C3, lambda b: b.set_fuses(SECURE_BOOT_EN=1), Profile.RELEASE, "SECURE_BOOT_EN is set"),
        (ESP32, lambda b: b.set_fuses(ABS_DONE_1=1), Profile.DEVELOPMENT, "ABS_DONE_1 is set"),
        (ESP32, lambda b: b.set_cells(6, 1), Profile.RELEASE, "CODING_SCHEME is 3/4"),
        (
            ESP32C3,
            lambda b: b.set_fuses(DIS_DOWNLOAD_MANUAL_ENCRYPT=1),
            Profile.DEVELOPMENT,
            "DIS_DOWNLOAD_MANUAL_ENCRYPT is burned",
        ),
        (
            ESP32C3,
            lambda b: b.set_fuses(SPI_BOOT_CRYPT_CNT=3),
            Profile.DEVELOPMENT,
            "SPI_BOOT_CRYPT_CNT is 0x3: its next bit",
        ),
        (
            ESP32C3,
            lambda b: b.set_fuses(SPI_BOOT_CRYPT_CNT=7),
            Profile.DEVELOPMENT,
            "SPI_BOOT_CRYPT_CNT is 0x7: encryption is permanent",
        ),
        (ESP32C3, lambda b: b.set_fuses(SPI_BOOT_CRYPT_CNT=1), Profile.OPEN, "SPI_BOOT_CRYPT_CNT is 0x1"),
        (ESP32, foreign_key, Profile.OPEN, "BLOCK1 holds a flash key"),
    ],
)
def test_a_state_that_cannot_reach_the_profile_is_refused_with_the_fuse_in_the_way(
    bench, chip, setup, profile, named
):
    here = bench(chip)
    setup(here.board)
    with pytest.raises(RefusedError) as refusal:
        here.plan(profile)
    assert named in str(refusal.value)
    assert MAC in str(refusal.value)


def test_a_coding_scheme_that_espefuse_does_not_know_is_refused(bench):
    here = bench(ESP32)
    here.board.set_cells(6, 2)
    with pytest.raises(RefusedError, match="CODING_SCHEME"):
        here.look()


@pytest.mark.parametrize(
    ("chip", "revision", "said"), [(ESP32, 0, "v0.0 is too old"), (ESP32C3, 2, "v0.2 is too old")]
)
def test_a_chip_revision_that_is_too_old_is_refused(bench, chip, revision, said):
    with pytest.raises(RefusedError, match=said):
        bench(chip, revision=revision).plan(Profile.RELEASE)


def test_all_reasons_are_told_at_once(bench):
    here = bench(ESP32C3)
    here.board.protect("RD_DIS", "SPI_BOOT_CRYPT_CNT", "DIS_DOWNLOAD_MODE")
    with pytest.raises(RefusedError) as refusal:
        here.plan(Profile.RELEASE)
    for fuse in ("RD_DIS", "SPI_BOOT_CRYPT_CNT", "ENABLE_SECURITY_DOWNLOAD"):
        assert f"- {fuse} is write-protected" in str(refusal.value)


def test_development_after_encryption_was_turned_off_takes_the_next_bit(bench):
    here = bench(ESP32)
    here.run(Profile.DEVELOPMENT)
    here.board.set_fuses(FLASH_CRYPT_CNT=3)
    assert burns_of(here.plan(Profile.DEVELOPMENT)) == ["FLASH_CRYPT_CNT=7"]


@pytest.mark.parametrize(
    ("chip", "profile", "lock", "said"),
    [
        (ESP32, Profile.RELEASE, Lock.SECURE_DOWNLOAD, "no Secure Download Mode"),
        (ESP32C3, Profile.DEVELOPMENT, Lock.SECURE_DOWNLOAD, "goes with release and with"),
        (ESP32C3, Profile.OPEN, Lock.DOWNLOAD_OFF, "goes with release and with"),
        (ESP32C3, Profile.CIPHERTEXT_ONLY, Lock.SECURE_DOWNLOAD, "goes with release and with"),
    ],
)
def test_a_request_that_makes_no_sense_is_wrong_usage(bench, chip, profile, lock, said):
    with pytest.raises(UsageError, match=said):
        bench(chip).plan(profile, lock)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([FlashRegion("a", 0x10, b"x")], "does not start on a 4096-byte sector"),
        ([FlashRegion("a", 0x1000, b"")], "a is empty"),
        ([FlashRegion("a", 0x1000, b"x" * 4097), FlashRegion("b", 0x2000, b"x")], "b at 0x2000 overlaps a"),
        ([FlashRegion("a", 0x1000, b"x"), FlashRegion("a", 0x2000, b"x")], "two regions are called a"),
        ([FlashRegion("a", 0x2000, b"x")], "leaves a board that does not boot"),
        ([], "leaves a board that does not boot"),
    ],
)
def test_flash_regions_that_cannot_be_are_wrong_usage(bench, regions, said):
    with pytest.raises(UsageError, match=said):
        bench(ESP32).plan(Profile.RELEASE, regions=regions)


def test_a_key_of_another_board_is_wrong_usage(bench):
    with pytest.raises(UsageError, match="the key is that of"):
        bench(ESP32C3).plan(Profile.RELEASE, key=KeyRef("02:00:00:00:00:99", "esp32c3", "0" * 16))


def test_planning_looks_only_at_data(bench):
    here = bench(ESP32C3)
    state = here.look()
    again = ChipState.from_fields(state.to_fields())
    before = len(here.board.programs), here.board.resets, sorted(here.vault.path.rglob("*"))
    one = plan_for(state, profile=Profile.RELEASE, regions=here.regions)
    two = plan_for(again, profile=Profile.RELEASE, regions=here.regions)
    assert one == two
    assert one.id == two.id
    assert (len(here.board.programs), here.board.resets, sorted(here.vault.path.rglob("*"))) == before


def test_a_key_block_is_named_by_its_key_id_and_never_shown(bench):
    here = bench(ESP32C3)
    for word in range(8):
        here.board.set_cells(word, int.from_bytes(OTHER_KEY[word * 4 : word * 4 + 4], "little"), block=4)
    state = here.look()
    assert state.block("BLOCK_KEY0").key_id == key_id(OTHER_KEY[::-1])
    assert OTHER_KEY.hex() not in str(state.to_fields())
    assert OTHER_KEY[::-1].hex() not in str(state.to_fields())
