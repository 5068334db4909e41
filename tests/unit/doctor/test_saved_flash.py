"""The flash of an unknown board is saved before it is overwritten, and put back where it would boot."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from bench_facts import MAC, chip_state, device_record

from harness.chips import chip_named
from harness.errors import BoardError, LabError, RefusedError
from harness.links.link import BootMode
from harness.links.twin import TwinLink
from harness.provision.chip_state import ChipState, Download
from harness.provision.rom import RomSession
from harness.provision.saved_flash import (
    BLOCK_BYTES,
    SavedFlash,
    SavedFlashes,
    SizedSession,
    must_be_saved,
    put_back,
    read_whole,
    save_before_overwrite,
    why_not_restorable,
)
from harness.vault.errors import DamagedError, NewerFormatError

SIZE = 8 * BLOCK_BYTES


class MemoryChip:
    """A flash in memory, behind the methods of a session that saving and putting back use."""

    def __init__(self, state: ChipState | None = None) -> None:
        self.content = bytearray(b"\xff" * SIZE)
        self.content[5:9] = b"boot"
        self.content[3 * BLOCK_BYTES + 7] = 0
        self.chip_state = state or chip_state()
        self.read: list[int] = []
        self.written: list[int] = []
        self.deaf = False

    @contextmanager
    def session(self) -> Iterator[MemoryChip]:
        yield self

    def state(self) -> ChipState:
        return self.chip_state

    def flash_size_bytes(self) -> int:
        return SIZE

    def flash_md5(self, offset: int, size_bytes: int) -> str:
        return hashlib.md5(self.content[offset : offset + size_bytes]).hexdigest()

    def read_flash(self, offset: int, size_bytes: int) -> bytes:
        self.read.append(offset // BLOCK_BYTES)
        return bytes(self.content[offset : offset + size_bytes])

    def write_flash(self, pieces: Sequence[tuple[int, bytes]], **options: bool) -> None:
        for offset, data in pieces:
            self.written.append(offset // BLOCK_BYTES)
            if not self.deaf:
                self.content[offset : offset + len(data)] = data


def sized(chip: MemoryChip) -> SizedSession:
    return cast(SizedSession, chip)


def opener(chip: MemoryChip) -> Callable[[], AbstractContextManager[SizedSession]]:
    return cast(Callable[[], AbstractContextManager[SizedSession]], chip.session)


def save(
    chip: MemoryChip, folder: Path, *, state: ChipState | None = None, record: Any = None
) -> tuple[SavedFlash | None, list[str]]:
    told: list[str] = []
    done = save_before_overwrite(
        opener(chip), state or chip.chip_state, saved=SavedFlashes(folder), record=record, tell=told.append
    )
    return done, told


def test_the_flash_of_an_unknown_board_is_saved_with_a_manifest_that_names_the_chip(tmp_path: Path) -> None:
    chip = MemoryChip()
    done, told = save(chip, tmp_path)
    assert done is not None
    assert SavedFlashes(tmp_path).of(MAC) == (done,)
    assert SavedFlashes(tmp_path).content(done) == bytes(chip.content)
    fields = json.loads((tmp_path / MAC.replace(":", "-") / "1.json").read_text())
    assert {name: fields[name] for name in ("format", "mac", "chip", "size_bytes")} == {
        "format": 1,
        "mac": MAC,
        "chip": "esp32c3",
        "size_bytes": SIZE,
    }
    assert fields["sha256"] == hashlib.sha256(chip.content).hexdigest()
    assert len(told) == 2


def test_blank_blocks_are_not_transferred() -> None:
    chip = MemoryChip()
    steps: list[tuple[int, int]] = []
    assert read_whole(sized(chip), SIZE, lambda done, total: steps.append((done, total))) == bytes(
        chip.content
    )
    assert chip.read == [0, 3]
    assert steps[-1] == (SIZE, SIZE)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_what_was_saved_is_for_its_owner_alone(tmp_path: Path) -> None:
    save(MemoryChip(), tmp_path / "saved")
    for path in (tmp_path / "saved").rglob("*"):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path


def test_what_is_the_harness_s_own_is_not_saved(tmp_path: Path) -> None:
    chip = MemoryChip()
    assert save(chip, tmp_path, record=device_record()) == (None, [])
    assert save(chip, tmp_path)[0] is not None
    assert save(chip, tmp_path) == (None, []), "a run that was killed after it had saved does not save again"


def test_after_it_was_put_back_it_is_saved_anew_and_equal_bytes_take_their_space_once(tmp_path: Path) -> None:
    chip, saved = MemoryChip(), SavedFlashes(tmp_path)
    first, _ = save(chip, tmp_path)
    assert first is not None
    assert saved.note_restored(first).restored is not None
    assert must_be_saved(device_record(), saved.newest(MAC))
    second, _ = save(chip, tmp_path, record=device_record())
    assert second is not None
    assert second.number == 2
    assert len(list(tmp_path.rglob("*.bin"))) == 1
    assert not must_be_saved(device_record(), saved.newest(MAC))


@pytest.mark.parametrize("download", [Download.SECURE, Download.OFF])
def test_a_flash_that_cannot_be_read_is_told_and_does_not_stop_the_run(
    tmp_path: Path, download: Download
) -> None:
    chip = MemoryChip()
    done, told = save(chip, tmp_path, state=chip_state(mac=None, download=download))
    assert done is None
    assert "cannot be saved" in told[0]
    assert chip.read == []


def test_a_kill_between_content_and_manifest_leaves_a_board_that_is_saved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip, saved = MemoryChip(), SavedFlashes(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("harness.provision.saved_flash.write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            save(chip, tmp_path)
    assert saved.of(MAC) == ()
    assert save(chip, tmp_path)[0] is not None


def test_a_short_answer_is_an_error_and_nothing_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip = MemoryChip()
    monkeypatch.setattr(chip, "read_flash", lambda offset, size_bytes: b"")
    with pytest.raises(BoardError, match="0 of 65536 bytes came"):
        save(chip, tmp_path)
    assert SavedFlashes(tmp_path).of(MAC) == ()


def test_a_damaged_a_newer_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    saved = SavedFlashes(tmp_path)
    done, _ = save(MemoryChip(), tmp_path)
    assert done is not None
    content, manifest = saved.content_file(done), tmp_path / MAC.replace(":", "-") / "1.json"
    content.write_bytes(b"x" + content.read_bytes()[1:])
    with pytest.raises(DamagedError, match="is not what was saved"):
        saved.content(done)
    content.unlink()
    with pytest.raises(LabError, match="cannot be read"):
        saved.content(done)
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 2}))
    with pytest.raises(NewerFormatError):
        saved.of(MAC)
    manifest.write_text("{")
    with pytest.raises(DamagedError):
        saved.newest(MAC)


def test_only_what_differs_is_written_back_and_a_second_run_writes_nothing(tmp_path: Path) -> None:
    chip = MemoryChip()
    done, _ = save(chip, tmp_path)
    assert done is not None
    content = SavedFlashes(tmp_path).content(done)
    chip.content[0:4] = b"ours"
    chip.content[6 * BLOCK_BYTES] = 0
    assert put_back(sized(chip), done, content) == 2 * BLOCK_BYTES
    assert chip.written == [0, 6]
    assert bytes(chip.content) == content
    assert put_back(sized(chip), done, content) == 0


def test_a_flash_that_does_not_take_it_is_an_error(tmp_path: Path) -> None:
    chip = MemoryChip()
    done, _ = save(chip, tmp_path)
    assert done is not None
    content = SavedFlashes(tmp_path).content(done)
    chip.content[0:4] = b"ours"
    chip.deaf = True
    with pytest.raises(BoardError, match="is not what was put back"):
        put_back(sized(chip), done, content)


ENCRYPTED = chip_state(fuses={"SPI_BOOT_CRYPT_CNT": 1})


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (chip_state(), chip_state(mac="7c:df:a1:00:00:02"), "the content is that of 7c:df:a1:00:00:01"),
        (chip_state(), chip_state("esp32"), "the content is that of an esp32c3"),
        (chip_state(), ENCRYPTED, "flash encryption is on by now"),
        (ENCRYPTED, chip_state(fuses={"SPI_BOOT_CRYPT_CNT": 3}), "flash encryption is off by now"),
        (chip_state(), chip_state(fuses={"SECURE_BOOT_EN": 1}), "secure boot is on by now"),
        (chip_state(), chip_state(mac=None, download=Download.SECURE), "Secure Download Mode"),
        (chip_state(), chip_state(mac=None, download=Download.OFF), "its UART download is off"),
    ],
)
def test_what_would_not_boot_or_is_another_board_s_is_refused_and_nothing_is_written(
    tmp_path: Path, then: ChipState, now: ChipState, said: str
) -> None:
    chip = MemoryChip(then)
    done, _ = save(chip, tmp_path)
    assert done is not None
    content = SavedFlashes(tmp_path).content(done)
    chip.chip_state = now
    chip.content[0:4] = b"ours"
    with pytest.raises(RefusedError, match=said):
        put_back(sized(chip), done, content)
    assert chip.written == []


@pytest.mark.parametrize("state", [chip_state(), ENCRYPTED, chip_state(fuses={"SECURE_BOOT_EN": 1})])
def test_a_board_that_is_as_it_was_may_get_it_back(tmp_path: Path, state: ChipState) -> None:
    done = SavedFlashes(tmp_path).add(state, b"\xff" * 16)
    assert why_not_restorable(done, state) == ()


class FourMebibytes(RomSession):
    """The real session, told the size of the twin's flash."""

    def flash_size_bytes(self) -> int:
        return 4 << 20


@pytest.mark.parametrize("chip_name", ["esp32c3"])
def test_through_the_real_tools_a_twin_is_saved_overwritten_and_put_back(
    tmp_path: Path, chip_name: str
) -> None:
    link = TwinLink(chip_name, tmp_path / "state", tmp_path / "store")
    flash = tmp_path / "state" / "flash.bin"
    original = flash.read_bytes()

    @contextmanager
    def session() -> Iterator[FourMebibytes]:
        link.port.timeout = 3.0
        link.reset(BootMode.DOWNLOAD)
        with FourMebibytes(link.port, chip_named(chip_name), baud=921_600) as opened:
            yield opened

    try:
        with session() as opened:
            state = opened.state()
            opened.write_flash([(0x1000, b"\xe9abc"), (len(original) - 4096, b"end")], force=True)
        original = flash.read_bytes()
        done = save_before_overwrite(
            session, state, saved=SavedFlashes(tmp_path / "saved"), record=None, tell=lambda _text: None
        )
        assert done is not None
        assert SavedFlashes(tmp_path / "saved").content(done) == original
        with session() as opened:
            opened.write_flash([(0x10000, bytes(range(256)) * 32)], force=True)
        assert flash.read_bytes() != original
        with session() as opened:
            assert put_back(opened, done, original) == BLOCK_BYTES
    finally:
        link.close()
    assert flash.read_bytes() == original
