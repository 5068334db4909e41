"""A board that somebody else provisioned comes with its key: the board itself must show that it is the one."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from wired_twin import Start, WiredLab, WiredTwin, entry_of, provisioned

from harness.board import Board
from harness.errors import LabError, RefusedError, UsageError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.key_import import import_and_prove
from harness.lab import Lab, own_vault
from harness.preparation import Consent, Demand, make_plan, prepare, reflash
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.say import Say
from harness.vault import KeyState, UnprovenKeyError
from harness.vault.key_life import answer_to, forget, hand_over, offer

QUIET = Say(quiet=True)
WRONG = bytes(range(32))


class Strange(WiredLab):
    """The lab of somebody who gets a board and its key, and none of the vault and the records it was made with."""

    def adopt(self, state: Path) -> None:
        self.key = own_vault(state).stored_key(mac_in(state))
        self.vault()


def mac_in(state: Path) -> str:
    (record,) = (state / "devices").glob("*.json")
    return str(json.loads(record.read_text())["mac"])


@pytest.fixture
def strange(tmp_path: Path, home: Home) -> Iterator[Strange]:
    lab = Strange(tmp_path, home)
    yield lab
    lab.close()


def opened(lab: WiredLab, twin: WiredTwin) -> Board:
    return lab.open(entry_of(twin, mac=twin.mac))


def takes_an_update(board: Board) -> None:
    before = board.status()
    assert board.update(board.release("3.0.0")).ok
    assert (board.reboot().slot, board.confirm().ok) == (before.next_slot, True)


WAYS = (
    # chip, profile, lock, what proves it
    ("esp32c3", Profile.DEVELOPMENT, Lock.NONE, "the bootloader at 0x0 deciphers"),
    ("esp32c3", Profile.RELEASE, Lock.SECURE_DOWNLOAD, "a sector in ota_1"),
    ("esp32", Profile.RELEASE, Lock.DOWNLOAD_OFF, "a sector in ota_1"),
)


@pytest.mark.parametrize(("chip", "profile", "lock", "how"), WAYS)
def test_the_board_proves_the_right_key_and_refuses_another(
    start: Start, strange: Strange, chip: str, profile: Profile, lock: Lock, how: str
):
    twin = provisioned(start, strange, lock, profile=profile, chip=chip)
    board = opened(strange, twin)
    with pytest.raises(RefusedError, match="this is not the key of"):
        import_and_prove(board, WRONG, say=QUIET)
    assert board.vault.key_record(twin.mac) is None
    assert board.records.read(twin.mac) is None
    flash = twin.flash

    done = import_and_prove(board, strange.key, say=QUIET)
    assert done.proof is not None
    assert how in done.proof.how
    assert done.record.state is KeyState.TEST_ONLY
    assert board.vault.flash_key(twin.mac) == strange.key
    if lock is Lock.NONE:
        assert twin.flash == flash
    # Somebody else made it, and still the harness knows now what it is, and that it must not be shipped.
    record = board.records.read(twin.mac)
    assert record is not None
    assert (record.profile, record.lock, record.shippable) == (profile, lock, False)
    assert import_and_prove(board, strange.key, say=QUIET).was_here


def test_before_its_proof_a_key_is_used_for_nothing_and_the_proof_changes_only_the_other_slot(
    start: Start, strange: Strange
):
    twin = provisioned(start, strange, Lock.SECURE_DOWNLOAD)
    board = opened(strange, twin)
    done = import_and_prove(board, strange.key, say=QUIET, prove=False)
    assert (done.record.state, done.proof) == (KeyState.UNPROVEN, None)
    with pytest.raises(UnprovenKeyError):
        board.vault.flash_key(twin.mac)
    flash = twin.flash
    assert import_and_prove(board, strange.key, say=QUIET).record.state is KeyState.TEST_ONLY
    status = board.status()
    changed = {
        at for at in range(0, len(flash), 0x1000) if flash[at : at + 0x1000] != twin.flash[at : at + 0x1000]
    }
    assert changed == {int(status.fields["next_offset"])}
    assert (status.slot, status.state, status.agrees) == ("ota_0", "valid", True)
    assert board.restart().slot == "ota_0"


def test_a_firmware_that_takes_our_packages_is_asked_with_one(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    board = opened(wired, twin)
    key = board.vault.flash_key(twin.mac)
    board.vault.key_file(twin.mac).unlink()
    done = import_and_prove(board, key, say=QUIET)
    assert done.record.state is KeyState.TEST_ONLY
    sent = [line.text for line in board.console.lines if "ota-uart" in line.text]
    assert not any("bare=1" in text for text in sent)
    assert any("package signature is valid" in line.text for line in board.console.lines)
    # The board is ours again: its updates go on.
    entry = entry_of(twin, mac=twin.mac)
    prepare(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=QUIET)
    takes_an_update(board)


def test_a_board_without_a_flash_key_has_none_to_import(start: Start, wired: WiredLab):
    wired.vault()
    twin = start()
    board = opened(wired, twin)
    with pytest.raises(RefusedError, match="no flash key is burned") as error:
        import_and_prove(board, WRONG, say=QUIET)
    assert "flash_key:" in str(error.value)
    assert board.vault.key_record(twin.mac) is None


def test_a_board_that_is_not_identified_is_not_asked(start: Start, wired: WiredLab):
    wired.vault()
    board = wired.open(entry_of(start()))
    with pytest.raises(RefusedError, match="its entry has no 'mac:'"):
        import_and_prove(board, WRONG, say=QUIET)
    assert board.vault.key_records() == ()


def test_a_board_whose_key_was_forgotten_boots_and_takes_what_others_encipher(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    entry = entry_of(twin, mac=twin.mac)
    board = opened(wired, twin)
    prepare(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=QUIET)
    release = board.release("3.0.0")
    elsewhere = board.package(release)
    asked = offer(board.vault, twin.mac, "ACME")
    assert asked.challenge is not None
    hand_over(board.vault, twin.mac, answer_to(board.chip, board.vault.flash_key(twin.mac), asked.challenge))
    key = board.vault.flash_key(twin.mac)
    board.records.note_key(forget(board.vault, twin.mac).record)

    planned = make_plan(board, Demand(Profile.RELEASE), wired.home, say=QUIET)
    assert planned.plan.empty
    assert "was forgotten here on" in planned.plan.text()
    with pytest.raises(RefusedError, match="was forgotten here on"):
        board.package(release)
    with pytest.raises(RefusedError, match="was forgotten here on"):
        reflash(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=QUIET)
    prepare(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=QUIET)
    assert board.take(elsewhere).ok
    assert (board.reboot().version, board.confirm().ok) == ("3.0.0", True)
    assert import_and_prove(board, key, say=QUIET).record.state is KeyState.HANDED_OVER


def test_a_key_that_a_command_gave_is_the_one_in_the_chip(tmp_path: Path, home: Home):
    tool = tmp_path / "kms.py"
    tool.write_text("import sys, hashlib; print(hashlib.sha256(sys.argv[2].encode()).hexdigest())\n")
    command = [sys.executable, str(tool), "get", "{mac}"]
    entry = TwinEntry.model_validate(
        {"chip": "esp32c3", "state": str(tmp_path / "state"), "flash_key": {"command": command}}
    )
    with Lab(home, Inventory(None, {"t": entry}), tmp_path / "out", no_secret) as lab:
        board = lab.open("t")
        planned = make_plan(board, Demand(Profile.RELEASE), home, say=QUIET)
        program = Path(sys.executable).name
        assert (
            f"take the flash key for this chip from command '{program} …', store it in the vault, read it back"
            in planned.plan.text()
        )
        assert Plan.from_json(planned.plan.to_json()) == planned.plan
        prepare(board, Demand(Profile.RELEASE), Consent(entry), home, say=QUIET)
        takes_an_update(board)
    vault = own_vault(tmp_path / "state")
    (record,) = vault.key_records()
    assert record.made_by == f"command {Path(sys.executable).name}"
    assert vault.flash_key(record.mac) == hashlib.sha256(record.mac.encode()).digest()


FILES_FOUND_WANTING = (
    # content of the file (None: there is none), path in the entry, what is said
    (None, "keys/{mac_hex}.bin", "cannot be read: No such file"),
    (b"12345", "key.bin", r"has 5 bytes, xts-aes-128 takes 32"),
    (bytes(range(32)), "{serial}.bin", r"nobody knows what \{serial\} stands for"),
)


@pytest.mark.parametrize(("content", "path", "said"), FILES_FOUND_WANTING)
def test_a_file_that_gives_no_key_is_found_when_the_plan_is_made(
    tmp_path: Path, home: Home, content: bytes | None, path: str, said: str
):
    if content is not None:
        (tmp_path / "key.bin").write_bytes(content)
        (tmp_path / "key.bin").chmod(0o600)
    entry = TwinEntry.model_validate(
        {"chip": "esp32c3", "state": str(tmp_path / "state"), "flash_key": {"file": str(tmp_path / path)}}
    )
    with Lab(home, Inventory(None, {"t": entry}), tmp_path / "out", no_secret) as lab:
        board = lab.open("t")
        with pytest.raises(UsageError, match=said):
            make_plan(board, Demand(Profile.RELEASE), home, say=QUIET)
    assert not own_vault(tmp_path / "state").key_records()


def test_a_plan_names_the_file_and_asks_no_command(tmp_path: Path, home: Home):
    (tmp_path / "esp32c3.bin").write_bytes(bytes(range(32)))
    (tmp_path / "esp32c3.bin").chmod(0o600)
    by_file = {"file": str(tmp_path / "{chip}.bin")}
    by_command = {"command": ["touch", str(tmp_path / "asked"), "secret-{mac}"]}
    entries = {
        name: TwinEntry.model_validate(
            {"chip": "esp32c3", "state": str(tmp_path / name), "flash_key": source}
        )
        for name, source in (("f", by_file), ("c", by_command))
    }
    with Lab(home, Inventory(None, entries), tmp_path / "out", no_secret) as lab:
        texts = {
            name: make_plan(lab.open(name), Demand(Profile.RELEASE), home, say=QUIET).plan.text()
            for name in entries
        }
    assert f"1   take the flash key for this chip from file {tmp_path}/esp32c3.bin, store it" in texts["f"]
    assert "1   take the flash key for this chip from command 'touch …', store it" in texts["c"]
    assert not (tmp_path / "asked").exists()


def test_a_command_that_fails_leaves_the_chip_blank(tmp_path: Path, home: Home):
    entry = TwinEntry.model_validate(
        {"chip": "esp32c3", "state": str(tmp_path / "state"), "flash_key": {"command": ["false"]}}
    )
    with Lab(home, Inventory(None, {"t": entry}), tmp_path / "out", no_secret) as lab:
        board = lab.open("t")
        with pytest.raises(LabError, match="'false' ended with status 1"):
            prepare(board, Demand(Profile.RELEASE), Consent(entry), home, say=QUIET)
        state = board.read_state()
        assert (state.crypt_count, all(block.unused for block in state.key_blocks[:5])) == (0, True)
        assert board.vault.key_records() == ()


def no_secret(_place: Path) -> object:
    raise AssertionError("the vault of physical boards is not needed")
