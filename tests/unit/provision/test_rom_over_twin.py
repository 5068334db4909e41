"""esptool and espefuse themselves, over a socket, against the twin's ROM."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import esptool.logger
import pytest
import serial
from fuse_bench import boot_key, firmware, image_head, signed, signed_with
from twin_bench import TwinBench

from harness.chips import CHIPS, ESP32, ESP32C3, Chip
from harness.errors import BoardError, LabError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.provision import DeviceRecords, Download, Lock, Profile, carry_out, plan_for, unreachable_state
from harness.provision.rom import ROM_BAUD, RomSession
from harness.vault import KeyFile, Vault

BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
EVERY = pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Chip], TwinBench]]:
    started: list[TwinBench] = []

    def begin(chip: Chip) -> TwinBench:
        started.append(TwinBench(chip, tmp_path / f"twin{len(started)}"))
        return started[-1]

    yield begin
    for twin in started:
        twin.close()


@pytest.mark.parametrize(
    ("chip", "profile", "lock"),
    [
        (ESP32, Profile.DEVELOPMENT, Lock.NONE),
        (ESP32, Profile.RELEASE, Lock.NONE),
        (ESP32, Profile.RELEASE, Lock.DOWNLOAD_OFF),
        (ESP32C3, Profile.DEVELOPMENT, Lock.NONE),
        (ESP32C3, Profile.RELEASE, Lock.SECURE_DOWNLOAD),
        (ESP32C3, Profile.RELEASE, Lock.DOWNLOAD_OFF),
        (ESP32C3, Profile.OPEN, Lock.NONE),
        (ESP32C3, Profile.CIPHERTEXT_ONLY, Lock.NONE),
        (ESP32C3, Profile.OPEN_SBV2, Lock.NONE),
        (ESP32C3, Profile.RELEASE_SBV2, Lock.NONE),
        (ESP32C3, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD),
        (ESP32, Profile.RELEASE_SBV2, Lock.NONE),
        (ESP32, Profile.RELEASE_SBV2, Lock.DOWNLOAD_OFF),
        (CHIPS["esp32s2"], Profile.RELEASE, Lock.SECURE_DOWNLOAD),
        (CHIPS["esp32s3"], Profile.RELEASE, Lock.SECURE_DOWNLOAD),
        (CHIPS["esp32s3"], Profile.RELEASE_SBV2, Lock.NONE),
        (CHIPS["esp32c2"], Profile.DEVELOPMENT, Lock.NONE),
        (CHIPS["esp32c2"], Profile.RELEASE, Lock.SECURE_DOWNLOAD),
        (CHIPS["esp32c2"], Profile.RELEASE_SBV2, Lock.NONE),
        (CHIPS["esp32c6"], Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD),
        (CHIPS["esp32c5"], Profile.RELEASE, Lock.NONE),
        (CHIPS["esp32h2"], Profile.RELEASE, Lock.NONE),
        (CHIPS["esp32p4"], Profile.RELEASE_SBV2, Lock.NONE),
    ],
    ids=lambda each: getattr(each, "value", None) or each.name,
)
def test_a_board_is_provisioned_by_the_real_tools(start, tmp_path, chip, profile, lock):
    twin = start(chip)
    vault = Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "key"), create=True)
    records = DeviceRecords(tmp_path / "devices")
    with twin.session() as session:
        state = session.state()
    assert state.mac == twin.mac
    boot = {"digests": (boot_key(0),), "signers": signed_with} if profile.secure_boot else {}
    regions = signed(firmware(chip), boot_key(0)) if profile.secure_boot else firmware(chip)
    plan = plan_for(state, profile=profile, lock=lock, regions=regions, **boot)
    outcome = carry_out(plan, twin.session, vault, records=records, regions=regions, physical=False)
    assert (outcome.record.profile, outcome.record.lock) == (profile, lock)
    if lock is Lock.DOWNLOAD_OFF:
        with pytest.raises(BoardError, match="connecting to the ROM"), twin.session():
            pytest.fail("the ROM answered")
        after = unreachable_state(chip, twin.mac)
    else:
        with twin.session() as session:
            after = session.state()
            if after.download is Download.OPEN:
                for region in regions:
                    data = pad_to_block(region.data)
                    if profile.encrypts:
                        data = encrypt(chip.cipher, vault.flash_key(twin.mac), region.offset, data)
                    assert session.read_flash(region.offset, len(data)) == data
    assert (after.download is Download.SECURE) == (lock is Lock.SECURE_DOWNLOAD)
    again = plan_for(
        after,
        profile=profile,
        lock=lock,
        key=vault.key(twin.mac),
        regions=regions if profile.encrypts else (),
        record=records.read(twin.mac),
        **boot,
    )
    assert again.empty
    talk = "\n".join(twin.log)
    assert "Hash of data verified" in talk
    if profile.encrypts:
        assert vault.flash_key(twin.mac).hex() not in talk
        assert vault.flash_key(twin.mac)[::-1].hex() not in talk


def test_a_locked_board_takes_ciphertext_through_the_real_tool(start, tmp_path):
    twin = start(ESP32C3)
    vault = Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "key"), create=True)
    records = DeviceRecords(tmp_path / "devices")

    def run(*, reflash: bool) -> int:
        with twin.session() as session:
            state = session.state()
        plan = plan_for(
            state,
            profile=Profile.RELEASE,
            key=vault.key(twin.mac),
            regions=firmware(ESP32C3),
            record=records.read(twin.mac),
            reflash=reflash,
        )
        outcome = carry_out(
            plan, twin.session, vault, records=records, regions=firmware(ESP32C3), physical=False
        )
        return outcome.sessions

    assert run(reflash=False) > 1
    twin.log.clear()
    assert run(reflash=True) == 1
    assert "Cannot verify written data if encrypted or in secure download mode." in twin.log
    flashed = (tmp_path / "twin0" / "flash.bin").read_bytes()
    region = firmware(ESP32C3)[3]
    data = pad_to_block(region.data)
    wanted = encrypt(ESP32C3.cipher, vault.flash_key(twin.mac), region.offset, data)
    assert flashed[region.offset : region.offset + len(data)] == wanted


@EVERY
def test_flash_goes_both_ways_and_progress_is_told(start, chip):
    twin = start(chip)
    told: list[tuple[int, int]] = []
    data = image_head(chip)[:8] + bytes(range(256)) * 40
    with twin.session() as session:
        session.on_progress = lambda done, total: told.append((done, total))
        session.write_flash([(0x3000, data), (0x8000, b"second")])
        assert session.stub_running
        assert session.read_flash(0x3000, len(data)) == data
        assert session.read_flash(0x8000, 8) == b"second\xff\xff"
        assert session.flash_md5(0x3000, len(data)) == hashlib.md5(data).hexdigest()
        twin.log.clear()
        session.write_flash([(0x3000, data)], skip_identical=True)
    assert twin.log[-1] == "0 of 3 sectors at 0x3000 differ from what is in flash"
    assert any(done == total for done, total in told)


@EVERY
def test_another_chip_than_expected_is_named(start, chip):
    twin = start(chip)
    other = ESP32 if chip is ESP32C3 else ESP32C3
    twin.chip = other
    with pytest.raises(BoardError, match=rf"not (an )?{other.title}"), twin.session():
        pytest.fail("it connected")


def test_a_board_that_does_not_answer_is_a_board_error_and_leaves_the_port_open(start):
    twin = start(ESP32C3)
    twin.control("power", on=False)
    with (
        pytest.raises(BoardError, match=r"bench.*connecting to the ROM"),
        RomSession(twin.port, ESP32C3, board="bench"),
    ):
        pytest.fail("it connected")
    assert twin.port.is_open
    with twin.session() as session:
        assert session.state().mac == twin.mac


def test_the_port_comes_back_as_it_was_lent(start):
    twin = start(ESP32C3)
    twin.port.timeout = 0.123
    with twin.session() as session:
        session.write_flash([(0x3000, b"x")])
    assert twin.port.is_open
    assert twin.port.timeout == 0.123
    assert twin.port.baudrate == ROM_BAUD


def test_eFuses_are_not_burned_through_the_stub(start):
    twin = start(ESP32C3)
    with twin.session() as session:
        session.read_flash(0, 16)
        with pytest.raises(LabError, match="through the ROM"):
            session.burn_fuses({"DIS_PAD_JTAG": 1})
        assert not session.burned


def test_an_unknown_fuse_and_a_refused_burn_are_our_errors(start):
    twin = start(ESP32C3)
    with twin.session() as session:
        with pytest.raises(LabError, match="does not know 'NO_SUCH_FUSE'"):
            session.burn_fuses({"NO_SUCH_FUSE": 1})
        session.write_protect("DIS_PAD_JTAG")
    with (
        twin.session() as session,
        pytest.raises(BoardError, match=r"bench: burning DIS_PAD_JTAG: .*write-protected"),
    ):
        session.burn_fuses({"DIS_PAD_JTAG": 1})


def test_a_port_that_fails_is_a_lab_error(start):
    twin = start(ESP32C3)
    with twin.session() as session:
        twin.stop()
        with pytest.raises(LabError, match="the port failed"):
            session.read_flash(0, 16)


def test_the_tools_logger_is_given_back(start):
    before = esptool.logger.log
    twin = start(ESP32C3)
    current = _installed()
    with twin.session():
        assert _installed() is not current
    assert _installed() is current
    assert esptool.logger.log is before


def test_another_threads_talk_is_not_ours(start, capsys):
    twin = start(ESP32C3)
    with twin.session():
        thread = threading.Thread(target=lambda: esptool.logger.log.print("somebody else's words"))
        thread.start()
        thread.join()
    assert "somebody else's words" not in "\n".join(twin.log)
    assert "somebody else's words" in capsys.readouterr().out


def test_nothing_is_printed(start, capfd):
    twin = start(ESP32)
    with twin.session() as session:
        session.state()
        session.write_flash([(0x3000, b"quiet")])
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    assert twin.log


def _installed() -> object:
    try:
        from esp_pylib.logger import EspLog
    except ImportError:
        return type(esptool.logger.log)
    return EspLog.instance


def test_a_port_that_is_closed_is_a_lab_error():
    port = serial.serial_for_url("loop://", timeout=0.01)
    port.close()
    with pytest.raises((LabError, BoardError)), RomSession(port, ESP32C3, board="bench"):
        pytest.fail("it connected")
