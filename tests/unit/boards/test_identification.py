"""Nothing is written to a physical board before it has said who it is and its entry agrees."""

from __future__ import annotations

import pytest
from wired_twin import Start, WiredLab, entry_of, provisioned

from harness.errors import BoardError, RefusedError
from harness.links.link import BootMode
from harness.preparation import Consent, Demand, carry_out_plan, make_plan, prepare
from harness.provision.identity import Identity
from harness.provision.profile import Lock, Profile
from harness.say import Say

OPEN = Demand(Profile.OPEN)
QUIET = Say(quiet=True)
OTHER = "02:00:00:aa:bb:99"


def test_without_a_mac_in_its_entry_a_board_is_only_read(start: Start, wired: WiredLab):
    twin, before = start(), None
    wired.vault()
    entry = entry_of(twin)
    board = wired.open(entry)
    planned = make_plan(board, OPEN, wired.home, say=QUIET)
    assert planned.plan.writes
    before = twin.flash
    with pytest.raises(
        RefusedError, match=rf'desk: its entry has no .mac:.*\n.*add to its entry:  mac: "{twin.mac}"'
    ):
        carry_out_plan(board, planned, Consent(entry), wired.home, say=QUIET)
    for write in (
        lambda: board.overwrite(0x10000, b"x"),
        lambda: board.take(b"x"),
        lambda: board.command("confirm"),
    ):
        with pytest.raises(RefusedError, match="Nothing was written"):
            write()
    assert twin.flash == before


def test_two_swapped_cables_are_found_before_anything_is_written(start: Start, wired: WiredLab):
    left, right = start("left"), start("right")
    wired.vault()
    entry = entry_of(right, mac=left.mac)
    board = wired.open(entry)
    planned = make_plan(board, OPEN, wired.home, say=QUIET)
    said = f"boards.yaml says {left.mac}, the chip says {right.mac}"
    with pytest.raises(RefusedError, match=said):
        carry_out_plan(board, planned, Consent(entry), wired.home, say=QUIET)
    with pytest.raises(RefusedError, match=said):
        board.overwrite(0x10000, b"x")
    assert set(right.flash) == set(left.flash) == {0xFF}


def test_cables_that_are_swapped_after_the_plan_was_made_are_found_too(start: Start, wired: WiredLab):
    twin = start()
    wired.vault()
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    make_plan(board, OPEN, wired.home, say=QUIET)
    board.identity.declared = OTHER
    with pytest.raises(RefusedError, match="this is another chip"), board.rom():
        pytest.fail("the ROM was lent for writing")
    assert set(twin.flash) == {0xFF}


def test_an_identified_board_goes_the_whole_way_without_a_fuse(start: Start, wired: WiredLab):
    twin = start()
    wired.vault()
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    prepare(board, OPEN, Consent(entry), wired.home, say=QUIET)
    before = board.status()
    assert board.update(board.release("1.1.0")).ok
    assert board.reboot().slot == before.next_slot
    assert board.boots[-1].caused_by == "command 'reboot'"
    assert board.confirm().ok
    with pytest.raises(RefusedError, match="burns eFuses for good"):
        board.command("lock", mode="download-off")


def test_a_board_in_secure_download_mode_is_identified_by_its_firmware(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    entry = entry_of(twin, mac=OTHER)
    board = wired.open(entry)
    planned = make_plan(board, Demand(Profile.RELEASE), wired.home, say=QUIET, reflash=True)
    assert (planned.state.mac, board.identity.found) == (None, twin.mac)
    before = twin.flash
    with pytest.raises(RefusedError, match=f"boards.yaml says {OTHER}, the chip says {twin.mac}"):
        carry_out_plan(board, planned, Consent(entry), wired.home, say=QUIET)
    assert twin.flash == before


def test_once_identified_it_can_be_saved_when_its_firmware_no_longer_runs(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    prepare(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=QUIET)
    board.overwrite(board.slots[0].offset, b"\xaa" * 4096)
    again = make_plan(board, Demand(Profile.RELEASE), wired.home, say=QUIET, reflash=True)
    carry_out_plan(board, again, Consent(entry), wired.home, say=QUIET)
    assert board.restart().slot == "ota_0"


def test_a_locked_board_that_tells_nothing_is_only_read(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    board = wired.open(entry_of(twin, mac=twin.mac))
    board.table = None
    with pytest.raises(RefusedError, match=f"nothing proves that this is {twin.mac}"), board.rom():
        pytest.fail("the ROM was lent for writing")
    board.reset(BootMode.RUN)


@pytest.mark.parametrize(
    ("physical", "declared", "found", "refused"),
    [
        (False, None, None, False),
        (True, None, None, True),
        (True, OTHER, None, True),
        (True, None, OTHER, True),
        (True, OTHER.upper().replace(":", "-"), OTHER, False),
        (True, OTHER, "02:00:00:aa:bb:98", True),
    ],
)
def test_a_board_is_identified_when_entry_and_chip_say_the_same(
    physical: bool, declared: str | None, found: str | None, refused: bool
):
    identity = Identity("desk", physical=physical, declared=declared)
    if found is not None:
        identity.told(found)
    if refused:
        with pytest.raises(RefusedError, match=r"board desk: .*Nothing was written"):
            identity.require()
    else:
        identity.require()


def test_a_board_whose_firmware_is_dead_behind_a_lock_says_what_was_tried(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    twin.close()
    flash = bytearray(twin.flash)
    flash[: 4 << 20] = b"\xff" * (4 << 20)
    (twin.state / "flash.bin").write_bytes(flash)
    board = wired.open(entry_of(start(), mac=twin.mac))
    with pytest.raises(BoardError, match="does not boot"):
        make_plan(board, Demand(Profile.RELEASE), wired.home, say=QUIET, reflash=True)
