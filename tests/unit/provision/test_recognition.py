"""Which profile a chip is in: from its eFuses, with reasons."""

from __future__ import annotations

import dataclasses

import pytest
from fuse_bench import MAC, Bench, VirtualBoard
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chips import ESP32, ESP32C3, Chip
from harness.errors import FormatError
from harness.provision import ChipState, Lock, Profile, SecurityInfo, profile_of
from harness.provision.recognition import missing_for_release

KEY = bytes(range(32))


def provisioned(
    chip: Chip, *, release: tuple[str, ...] = (), count: int = 1, guard: bool = False
) -> ChipState:
    """A chip with a protected key, the counter at `count`, and some fuses of release."""
    board = VirtualBoard(chip)
    fuses = chip.fuses
    with board.quietly():
        board.burner().burn_key(fuses.key_block, fuses.key_purpose, KEY)
    board.set_fuses(**dict(fuses.key_config), **({fuses.counter: count} if count else {}))
    if release:
        board.set_fuses(**dict.fromkeys(release, 1))
    if guard:
        board.protect(fuses.release_write_protect)
    return board.state()


BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@BOTH
def test_a_chip_as_it_was_bought_is_open(chip):
    found = profile_of(VirtualBoard(chip).state())
    assert (found.profile, found.lock) == (Profile.OPEN, Lock.NONE)


@BOTH
@pytest.mark.parametrize(
    ("fuses", "full_counter", "guard", "profile"),
    [
        ("none", False, False, Profile.DEVELOPMENT),
        ("all but manual", False, False, Profile.DEVELOPMENT),
        ("manual", True, False, Profile.CIPHERTEXT_ONLY),
        ("manual", False, False, None),
        ("all", False, True, None),
        ("all", True, False, Profile.CIPHERTEXT_ONLY),
        ("all", True, True, Profile.RELEASE),
        ("none", True, False, None),
    ],
)
def test_an_encrypted_chip_is_what_its_fuses_say(chip, fuses, full_counter, guard, profile):
    manual = chip.fuses.manual_encrypt_disable
    chosen = {
        "none": (),
        "manual": (manual,),
        "all": chip.fuses.release,
        "all but manual": tuple(fuse for fuse in chip.fuses.release if fuse != manual),
    }[fuses]
    count = chip.fuses.counter_release if full_counter else 1
    found = profile_of(provisioned(chip, release=chosen, count=count, guard=guard))
    assert found.profile is profile
    assert (found.missing == ()) == (profile is Profile.RELEASE)


@BOTH
def test_every_single_fuse_of_release_is_missed_by_name(chip):
    """The list of esp_flash_encryption_cfg_verify_release_mode()."""
    fuses = chip.fuses
    complete = provisioned(chip, release=fuses.release, count=fuses.counter_release, guard=True)
    assert missing_for_release(complete) == ()
    for fuse in (*fuses.release, fuses.counter, *(name for name, _ in fuses.key_config)):
        without = dataclasses.replace(complete, fuses={**complete.fuses, fuse: 0})
        assert any(fuse in each for each in missing_for_release(without)), fuse
    open_guard = complete.write_protected - {fuses.release_write_protect}
    assert missing_for_release(dataclasses.replace(complete, write_protected=open_guard))
    block = complete.block(fuses.key_storage_block)
    assert block is not None
    for change in ({"readable": True, "empty": False}, {"writeable": True}):
        loose = dataclasses.replace(complete, key_blocks=(dataclasses.replace(block, **change),))
        assert any(block.name in each for each in missing_for_release(loose)), change
        assert profile_of(loose).profile is None


def test_a_counter_that_can_take_no_more_bits_is_as_good_as_a_full_one():
    state = provisioned(ESP32, release=ESP32.fuses.release, count=1, guard=True)
    frozen = dataclasses.replace(state, write_protected=state.write_protected | {"FLASH_CRYPT_CNT"})
    assert profile_of(frozen).profile is Profile.RELEASE


@BOTH
def test_half_done_boards_are_none_of_the_profiles_and_say_why(chip):
    only_key = profile_of(provisioned(chip, count=0))
    assert only_key.profile is None
    assert "holds a flash key, but encryption is not on" in only_key.text()
    board = VirtualBoard(chip)
    board.set_fuses(**{chip.fuses.counter: 3})
    turned_off = profile_of(board.state())
    assert turned_off.profile is None
    assert "turned off again" in turned_off.text()


@pytest.mark.parametrize(
    ("chip", "fuse"), [(ESP32, "ABS_DONE_1"), (ESP32, "ABS_DONE_0"), (ESP32C3, "SECURE_BOOT_EN")]
)
def test_secure_boot_is_named(chip, fuse):
    board = VirtualBoard(chip)
    board.set_fuses(**{fuse: 1})
    found = profile_of(board.state())
    assert found.profile is None
    assert fuse in found.text()


@pytest.mark.parametrize(
    ("count", "purposes", "mac", "said"),
    [
        (7, (4, 0, 0), None, None),
        (7, (0, 4, 0), MAC, None),
        (1, (4, 0, 0), None, "counter is 0x1"),
        (7, (0, 0, 0), None, "no key block has the purpose"),
        (7, (4, 0, 0), "02:00:00:00:00:99", "the chip is 02:00:00:00:00:99"),
    ],
)
def test_in_secure_download_mode_the_record_is_believed_unless_the_chip_objects(
    tmp_path, count, purposes, mac, said
):
    bench = Bench(ESP32C3, tmp_path)
    bench.run(Profile.RELEASE)
    record = bench.records.read(MAC)
    state = dataclasses.replace(bench.look(), mac=mac, security_info=SecurityInfo(0x484, count, purposes))
    found = profile_of(state, record)
    assert found.lock is Lock.SECURE_DOWNLOAD
    if said is None:
        assert found.profile is Profile.RELEASE
    else:
        assert found.profile is None
        assert said in found.text()
    assert profile_of(state).profile is None


@pytest.mark.parametrize("count", range(128))
def test_encryption_is_on_for_an_odd_number_of_ones(count):
    state = dataclasses.replace(VirtualBoard.blank(ESP32), fuses={"FLASH_CRYPT_CNT": count})
    assert state.encrypted == (bin(count).count("1") % 2 == 1)


@settings(max_examples=60, deadline=None)
@given(
    chip=st.sampled_from([ESP32, ESP32C3]),
    data=st.data(),
)
def test_any_fuses_give_a_verdict_a_reason_and_a_state_that_survives_json(chip, data):
    blank = VirtualBoard.blank(chip)
    fuses = {name: data.draw(st.integers(0, 7), label=name) for name in blank.fuses}
    protected = data.draw(st.sets(st.sampled_from(sorted(fuses))))
    state = dataclasses.replace(blank, fuses=fuses, write_protected=frozenset(protected))
    found = profile_of(state)
    assert found.reasons
    assert (found.profile is Profile.RELEASE) <= (state.permanent and not state.manual_encryption)
    again = ChipState.from_fields(state.to_fields())
    assert again == state
    assert again.fingerprint == state.fingerprint
    assert state.differences(again) == ()


def test_differences_name_what_changed():
    board = VirtualBoard(ESP32C3)
    before = board.state()
    board.set_fuses(SPI_BOOT_CRYPT_CNT=1)
    board.protect("DIS_ICACHE")
    changed = " | ".join(before.differences(board.state()))
    assert "SPI_BOOT_CRYPT_CNT: 0 -> 1" in changed
    assert "WR_DIS: 0 -> 4" in changed
    assert "DIS_PAD_JTAG" in changed


@pytest.mark.parametrize("missing", ["chip", "fuses", "key_blocks", "download"])
def test_a_stored_state_with_a_field_missing_is_a_format_error(missing):
    fields = VirtualBoard(ESP32).state().to_fields()
    del fields[missing]
    with pytest.raises(FormatError, match=missing):
        ChipState.from_fields(fields)
