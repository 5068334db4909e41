"""A dead board that cannot say who it is: brought back with ciphertext on a person's word, or left as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from wired_twin import Start, WiredLab, WiredTwin, entry_of, provisioned

from harness.board import Board
from harness.chips.efuses import efuse_geometry
from harness.cli.rescue import rescue
from harness.errors import BoardError, HarnessError, RefusedError, UsageError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.preparation import Consent, Demand, prepare, reflash
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.rescue import Rescued, carry_out_rescue, examine, plan_rescue
from harness.say import Say

QUIET = Say(quiet=True)
RELEASE = Demand(Profile.RELEASE)
OTHER = "7c:df:a1:00:00:99"


def spoil(twin: WiredTwin, wired: WiredLab, kind: str) -> None:
    """Somebody went at the board with esptool, by force."""
    junk = {"erased": b"\xff" * 0x8000, "plaintext": b"\xe9\x04\x02\x20" + bytes(0x7FFC)}[kind]
    with wired.lab(entry_of(twin)) as lab, lab.open("desk").rom(writes_flash=False) as session:
        session.write_flash([(0, junk)], force=True)


@pytest.fixture(scope="module")
def dead_board(tmp_path_factory: pytest.TempPathFactory, users_builds: Path) -> Path:
    """State, keys and records of a board in release and Secure Download Mode whose bootloader is gone."""
    folder = tmp_path_factory.mktemp("dead")
    home = Home(folder / "home")
    home.root.mkdir(mode=0o700)
    (home.root / "builds").symlink_to(users_builds)
    started: list[WiredTwin] = []

    def start(chip: str) -> WiredTwin:
        started.append(WiredTwin(folder / "state", home, chip=chip))
        return started[-1]

    wired = WiredLab(folder, home)
    spoil(provisioned(start, wired, Lock.SECURE_DOWNLOAD), wired, "erased")
    wired.close()
    started[0].close()
    return folder


@pytest.fixture
def dead(dead_board: Path, start: Start, wired: WiredLab) -> WiredTwin:
    """That board, and the bench that provisioned it."""
    for name in ("vault", "devices"):
        shutil.copytree(dead_board / "home" / name, wired.home.root / name, dirs_exist_ok=True)
    shutil.copy(dead_board / "vault.key", wired.key_file)
    shutil.copytree(dead_board / "state", wired.folder / "state")
    return start()


def record_of(wired: WiredLab, mac: str) -> DeviceRecord:
    found = DeviceRecords(wired.home.devices).read(mac)
    assert found is not None
    return found


def rescued(board: Board, wired: WiredLab, entry: object, mac: str, typed: str | None = None) -> Rescued:
    patient = examine(board, mac, say=QUIET)
    planned = plan_rescue(board, patient, RELEASE, wired.home, say=QUIET)
    return carry_out_rescue(board, patient, planned, typed or mac, Consent(entry), wired.home, say=QUIET)


@pytest.mark.parametrize("kind", ["erased", "plaintext"])
def test_a_dead_board_behind_a_uart_bridge_boots_again_and_takes_updates(
    start: Start, wired: WiredLab, kind: str
):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    before = twin.flash
    spoil(twin, wired, kind)
    entry = entry_of(twin)
    board = wired.open(entry)
    done = rescued(board, wired, entry, twin.mac)
    assert done.running is not None
    assert (done.running.mac, done.running.slot, done.running.encryption) == (twin.mac, "ota_0", "release")
    assert done.app_sha256 is not None
    assert twin.flash[:0x1000] == before[:0x1000], "the same ciphertext as ever"
    assert board.vault.intent(twin.mac) is None
    assert record_of(wired, twin.mac).plan_id == done.record.plan_id
    assert board.update(board.release("3.0.0")).ok
    assert (board.reboot().slot, board.confirm().ok) == ("ota_1", True)
    wired.close()
    # From here on it says itself who it is, and nobody's word is taken any more.
    again = wired.open(entry_of(twin, mac=twin.mac))
    prepare(again, RELEASE, Consent(entry_of(twin, mac=twin.mac)), wired.home, say=QUIET)
    with pytest.raises(RefusedError, match="its firmware runs and says that this is"):
        examine(again, twin.mac, say=QUIET)


def _no_record(wired: WiredLab, mac: str) -> None:
    (wired.home.devices / f"{mac.replace(':', '-')}.json").unlink()


def _no_key(wired: WiredLab, mac: str) -> None:
    (wired.home.vault / "keys" / f"{mac.replace(':', '-')}.json").unlink()


def _other_purpose(wired: WiredLab, mac: str) -> None:
    record = record_of(wired, mac)
    assert record.fuses["KEY_PURPOSE_0"] == 4
    fuses = {**record.fuses, "KEY_PURPOSE_0": 0, "KEY_PURPOSE_1": 4}
    DeviceRecords(wired.home.devices).write(replace(record, fuses=fuses))


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        (_no_record, "there is no device record of"),
        (_no_key, "the vault has no key of"),
        (_other_purpose, "KEY_PURPOSE_0 is 4, in the record 0"),
    ],
)
def test_what_speaks_against_the_record_is_named_and_nothing_is_written(
    dead: WiredTwin, wired: WiredLab, happened: Callable[[WiredLab, str], None], said: str
):
    """Every single thing that may speak against it: see `test_rescue_checks`."""
    happened(wired, dead.mac)
    before = dead.flash
    board = wired.open(entry_of(dead))
    with pytest.raises(RefusedError, match="Nothing was written") as refusal:
        examine(board, dead.mac, say=QUIET)
    assert said in refusal.value.message
    assert dead.flash == before
    assert board.vault.intent(dead.mac) is None


@pytest.mark.parametrize("typed", [OTHER, "7c:df:a1"])
def test_the_mac_is_typed_in_full_or_nothing_is_written(dead: WiredTwin, wired: WiredLab, typed: str):
    before, entry = dead.flash, entry_of(dead)
    board = wired.open(entry)
    with pytest.raises((RefusedError, UsageError)):
        rescued(board, wired, entry, dead.mac, typed)
    assert dead.flash == before
    with pytest.raises(RefusedError, match=r"its entry has no .mac:"), board.rom():
        pytest.fail("the ROM was lent for writing")


def test_an_entry_that_names_another_board_is_believed(dead: WiredTwin, wired: WiredLab):
    board = wired.open(entry_of(dead, mac=OTHER))
    with pytest.raises(RefusedError, match=f"boards.yaml says that this is {OTHER}, not {dead.mac}"):
        examine(board, dead.mac, say=QUIET)


def test_a_board_on_its_own_usb_is_known_without_anybody_s_word(
    dead: WiredTwin, wired: WiredLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("harness.links.rfc2217.Rfc2217Link.mac", dead.mac.upper(), raising=False)
    entry = entry_of(dead, mac=dead.mac)
    board = wired.open(entry)
    with pytest.raises(RefusedError, match=r"its own USB says that it is .* Nothing was written"):
        examine(board, dead.mac, say=QUIET)
    again = prepare(board, Demand(Profile.RELEASE, reflash=True), Consent(entry), wired.home, say=QUIET)
    assert again.running is not None
    assert again.plan.lock is Lock.SECURE_DOWNLOAD


@pytest.mark.parametrize(
    ("chip", "lock", "said"),
    [
        ("esp32c3", Lock.NONE, "its ROM is not locked, it tells its MAC"),
        ("esp32", Lock.DOWNLOAD_OFF, "UART_DOWNLOAD_DIS is burned: nothing but its firmware can write to it"),
    ],
)
def test_boards_that_need_no_rescue_or_have_none_are_told_so(
    start: Start, wired: WiredLab, chip: str, lock: Lock, said: str
):
    twin = provisioned(start, wired, lock, chip=chip)
    before = twin.flash
    with pytest.raises(RefusedError, match=said):
        examine(wired.open(entry_of(twin)), twin.mac, say=QUIET)
    assert twin.flash == before


def test_a_board_that_tells_its_mac_gets_its_spoiled_flash_written_again_and_verified(
    start: Start, wired: WiredLab
):
    twin = provisioned(start, wired, Lock.NONE)
    spoil(twin, wired, "plaintext")
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    with pytest.raises(BoardError, match=r"does not decipher(.|\n)*harness provision --reflash"):
        reflash(board, Demand(Profile.RELEASE, Lock.NONE), Consent(entry), wired.home, say=QUIET)
    again = prepare(
        board, Demand(Profile.RELEASE, Lock.NONE, reflash=True), Consent(entry), wired.home, say=QUIET
    )
    assert again.running is not None
    assert [step.do for step in again.plan.steps if step.irreversible] == []
    assert "read-back" in [step.do for step in again.plan.steps]


def change_cells(twin: WiredTwin, field: str, value: int) -> None:
    """Makes another chip of it: cells that no burn could change."""
    geometry = efuse_geometry(twin.chip)
    file = twin.state / "efuse.bin"
    content = bytearray(file.read_bytes())
    if geometry.has_field(field):
        row = geometry.field(field)
        index, mask, bit = row.block, row.mask, row.bit
    else:
        index, mask, bit = geometry.block(field).index, (1 << 256) - 1, 0
    block = geometry.block(index)
    place = slice(block.file_offset, block.file_offset + block.size_bytes)
    cells = int.from_bytes(content[place], "little") & ~mask | value << bit
    content[place] = cells.to_bytes(block.size_bytes, "little")
    file.write_bytes(bytes(content))


def test_ciphertext_for_another_board_costs_nothing_and_the_right_board_is_still_rescued(
    dead: WiredTwin, wired: WiredLab, start: Start
):
    """Two boards that look alike: the one at the wire has another key than the one that was meant."""
    dead.close()
    right, before_flash = (dead.state / "efuse.bin").read_bytes(), dead.flash
    change_cells(dead, "BLOCK_KEY0", 0x1234)
    wrong = start()
    entry = entry_of(wrong)
    board, before = wired.open(entry), record_of(wired, dead.mac)
    with pytest.raises(BoardError, match=f"was written as {dead.mac}, and its firmware does not come up"):
        rescued(board, wired, entry, dead.mac)
    assert record_of(wired, dead.mac) == before
    intent = board.vault.intent(dead.mac)
    assert intent is not None
    assert (intent.writes_flash, intent.behind_lock) == (True, True)
    wired.close()
    wrong.close()
    (dead.state / "efuse.bin").write_bytes(right)
    (dead.state / "flash.bin").write_bytes(before_flash)
    entry = entry_of(start())
    board = wired.open(entry)
    assert rescued(board, wired, entry, dead.mac).app_sha256 is not None
    assert board.vault.intent(dead.mac) is None


def test_another_device_that_boots_it_is_told_loudly_and_marked(
    dead: WiredTwin, wired: WiredLab, start: Start
):
    """Only two chips with one flash key could do that."""
    dead.close()
    change_cells(dead, "MAC", int(OTHER.replace(":", ""), 16))
    twin = start()
    assert twin.mac == OTHER
    records = DeviceRecords(wired.home.devices)
    before = record_of(wired, dead.mac)
    records.write(replace(before, mac=OTHER))
    entry = entry_of(twin)
    board = wired.open(entry)
    said = f"CIPHERTEXT OF ANOTHER DEVICE WAS WRITTEN: the firmware says that this is {OTHER}, not {dead.mac}"
    with pytest.raises(BoardError, match=said):
        rescued(board, wired, entry, dead.mac)
    assert record_of(wired, dead.mac) == before
    assert board.vault.intent(dead.mac) is None
    assert record_of(wired, OTHER).flashed == {}
    assert any(said in line.text for line in board.console.lines)
    with pytest.raises(RefusedError, match="this is another chip"), board.rom():
        pytest.fail("the ROM was lent for writing")


def test_a_board_that_was_changed_between_the_look_and_the_writing_is_not_written_to(
    dead: WiredTwin, wired: WiredLab, start: Start
):
    entry = entry_of(dead)
    board = wired.open(entry)
    patient = examine(board, dead.mac, say=QUIET)
    planned = plan_rescue(board, patient, RELEASE, wired.home, say=QUIET)
    other = replace(patient.state, security_info=replace(patient.state.security_info, crypt_count=1))
    planned = replace(planned, plan=replace(planned.plan, state=other))
    before = dead.flash
    with pytest.raises(RefusedError, match="the board has changed since plan"):
        carry_out_rescue(board, patient, planned, dead.mac, Consent(entry), wired.home, say=QUIET)
    assert dead.flash == before


# --- the command ---


def run(
    wired: WiredLab, monkeypatch: pytest.MonkeyPatch, twin: WiredTwin, *more: str, stdin: str = ""
) -> Result:
    monkeypatch.setenv("HARNESS_HOME", str(wired.home.root))
    boards = wired.folder / "boards.yaml"
    boards.write_text(f"version: 1\nboards:\n  desk: {{chip: esp32c3, link: rfc2217, url: '{twin.url}'}}\n")
    arguments = ["desk", "--boards", str(boards), "--vault-key-file", str(wired.key_file)]
    arguments += ["--out", str(wired.folder / "cli"), *more]
    return CliRunner().invoke(rescue, arguments, input=stdin, standalone_mode=False)


def test_the_command_wants_the_mac_typed_and_says_what_was_not_verified(
    dead: WiredTwin, wired: WiredLab, monkeypatch: pytest.MonkeyPatch
):
    before = dead.flash
    for more, said in (
        (("--mac", OTHER), f"--mac says {OTHER}, --as {dead.mac}. Nothing was written"),
        ((), "nobody is there to type its MAC. Nothing was written"),
    ):
        done = run(wired, monkeypatch, dead, "--as", dead.mac, *more)
        assert isinstance(done.exception, RefusedError), done.output
        assert said in str(done.exception)
    monkeypatch.setattr("harness.cli.rescue._at_a_terminal", lambda: True)
    done = run(wired, monkeypatch, dead, "--as", dead.mac, stdin="yes\n")
    assert isinstance(done.exception, HarnessError), done.output
    assert dead.flash == before

    done = run(wired, monkeypatch, dead, "--as", dead.mac, stdin=f"{dead.mac.upper()}\n")
    assert done.exception is None, done.output
    assert "Type the MAC on its label, in full" in done.output
    assert "as ciphertext" in done.output
    assert "not verified over UART" in done.output.splitlines()[-1]

    spoil(dead, wired, "plaintext")
    done = run(wired, monkeypatch, dead, "--as", dead.mac, "--mac", dead.mac, "--json")
    assert done.exception is None, done.output
    said = json.loads(done.stdout)
    assert (said["told_mac"], said["verified_over_uart"]) == (dead.mac, False)
    assert said["written"] == ["bootloader", "partition-table", "otadata", "ota_0"]


def test_a_virtual_board_can_be_rescued_too_to_try_it(tmp_path: Path, wired: WiredLab):
    entry = TwinEntry(chip="esp32c3", state=str(tmp_path / "virtual"))
    with Lab(wired.home, Inventory(None, {"twin": entry}), tmp_path / "out", wired.secret) as lab:
        board = lab.open("twin")
        prepare(board, RELEASE, Consent(entry), wired.home, say=QUIET)
        board.overwrite(0, b"\xff" * 0x1000)
        mac = board.mac
        assert mac is not None
        with pytest.raises(RefusedError, match="there is no device record"):
            examine(board, OTHER, say=QUIET)
        with pytest.raises(RefusedError, match="the MAC that was typed is"):
            rescued(board, wired, entry, mac, OTHER)
        assert rescued(board, wired, entry, mac).app_sha256 is not None
