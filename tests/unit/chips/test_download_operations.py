"""What tools can still do, per chip and state of the download mode."""

from __future__ import annotations

import pytest

from harness.chips import CHIPS
from harness.chips.download import DownloadState, Operation, operations

ALL = [pytest.param(chip, id=chip.name) for chip in CHIPS.values()]


@pytest.mark.parametrize("chip", ALL)
class TestOperations:
    def test_an_open_chip_can_be_read_written_and_burned(self, chip):
        left = operations(chip, DownloadState.OPEN)
        assert set(Operation) - left <= {Operation.SECURITY_INFO}

    def test_release_with_open_download_only_loses_the_encrypting_write(self, chip):
        lost = operations(chip, DownloadState.OPEN) - operations(chip, DownloadState.NO_MANUAL_ENCRYPTION)
        assert lost == {Operation.WRITE_ENCRYPTED}

    def test_secure_download_only_writes_and_erases(self, chip):
        left = operations(chip, DownloadState.SECURE)
        expected = {Operation.WRITE, Operation.ERASE, Operation.SECURITY_INFO}
        assert left == (expected if chip.fuses.secure_download else set())

    def test_nothing_is_left_behind_a_closed_download_mode(self, chip):
        assert operations(chip, DownloadState.OFF) == frozenset()

    @pytest.mark.parametrize("state", list(DownloadState))
    def test_secure_boot_never_gives_anything_back(self, chip, state):
        assert operations(chip, state, secure_boot=True) <= operations(chip, state)


def test_secure_boot_takes_the_stub_where_the_rom_runs_nothing_that_was_downloaded():
    def has_stub(name: str) -> bool:
        return Operation.STUB in operations(CHIPS[name], DownloadState.OPEN, secure_boot=True)

    assert [has_stub(name) for name in ("esp32", "esp32c3", "esp32c6")] == [True, False, False]
