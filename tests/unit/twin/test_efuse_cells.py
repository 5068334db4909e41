"""eFuse cells: bits only rise, protection holds, Reed-Solomon blocks check, the file is QEMU's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.chips import CHIPS
from harness.chips.efuses import efuse_geometry
from harness.twin.efuses import CODING_FILE, Efuses, factory_content, mac_crc
from harness.twin.operations import CutPoint, OperationLog, PowerCut, PowerLost

MAC = bytes.fromhex("7cdfa1010203")
ROWS = [(chip, row) for chip in ("esp32", "esp32c2", "esp32c3") for row in efuse_geometry(chip).fields]
REVISIONS = {
    "esp32": 300,
    "esp32s2": 100,
    "esp32s3": 3,
    "esp32c2": 100,
    "esp32c3": 3,
    "esp32c5": 100,
    "esp32c6": 2,
    "esp32h2": 102,
    "esp32p4": 300,
}
ROW_IDS = [f"{chip}: {row.name}" for chip, row in ROWS]
KEY = bytes(range(1, 33))


@pytest.fixture
def board(tmp_path):
    """Boards with factory eFuses by chip name; the same name again opens the same file."""
    opened: list[Efuses] = []

    def make(chip: str = "esp32c3", operations: OperationLog | None = None) -> Efuses:
        path = tmp_path / f"{chip}.bin"
        if not path.exists():
            path.write_bytes(factory_content(CHIPS[chip], MAC))
        opened.append(Efuses(CHIPS[chip], path, operations))
        return opened[-1]

    yield make
    for efuses in opened:
        efuses.close()


class TestFactory:
    def test_esp32_content_is_what_qemu_makes_plus_mac_and_oscillator(self):
        content = factory_content(CHIPS["esp32"], MAC)
        assert len(content) == 124
        assert content[13] == 0x80
        assert content[22] == 0x10
        assert content[4:11] == MAC[::-1] + bytes((mac_crc(MAC),))
        assert content[16] == 52
        assert sum(byte != 0 for byte in content) == 10

    def test_c3_content_is_what_qemu_makes_plus_a_mac(self):
        content = factory_content(CHIPS["esp32c3"], MAC)
        assert len(content) == 1024
        assert content[38] == 0x0C
        assert content[0x18:0x1E] == MAC[::-1]
        assert sum(byte != 0 for byte in content) == 7

    @pytest.mark.parametrize(("chip", "revision"), REVISIONS.items())
    def test_identity_is_read_back(self, board, chip, revision):
        efuses = board(chip)
        assert efuses.mac == MAC
        assert efuses.chip_rev_full == revision >= CHIPS[chip].min_chip_rev_full

    @pytest.mark.parametrize("mac", ["240ac4c9a4d4", "000000000000", "ffffffffffff", "7cdfa1010203"])
    def test_the_crc_is_espefuses(self, mac):
        from espefuse.efuse.esp32.fields import EfuseMacField

        assert mac_crc(bytes.fromhex(mac)) == EfuseMacField.calc_crc(bytes.fromhex(mac))


class TestBurning:
    @pytest.mark.parametrize(("chip", "row"), ROWS, ids=ROW_IDS)
    def test_a_write_protected_field_takes_no_bit_and_any_other_does(self, board, chip, row):
        efuses = board(chip)
        free = efuses.field(row.name)
        if row.write_disable is not None and row.name != "WR_DIS":
            efuses.burn_field("WR_DIS", 1 << row.write_disable)
            assert efuses.write_protected(row.name)
            efuses.burn_field(row.name, (1 << row.bits) - 1)
            assert efuses.field(row.name) == free
        elif row.block == 0 and row.name != "RD_DIS":
            efuses.burn_field(row.name, (1 << row.bits) - 1)
            assert efuses.field(row.name) == (1 << row.bits) - 1

    def test_bits_only_rise(self, board):
        efuses = board()
        efuses.burn_field("SPI_BOOT_CRYPT_CNT", 1)
        efuses.burn_field("SPI_BOOT_CRYPT_CNT", 2)
        assert efuses.field("SPI_BOOT_CRYPT_CNT") == 3
        efuses.burn_field("SPI_BOOT_CRYPT_CNT", 0)
        assert efuses.field("SPI_BOOT_CRYPT_CNT") == 3

    def test_bits_beyond_a_field_are_dropped(self, board):
        efuses = board()
        efuses.burn_field("SPI_BOOT_CRYPT_CNT", 0xFF)
        assert efuses.field("SPI_BOOT_CRYPT_CNT") == 7
        assert efuses.field("SECURE_BOOT_KEY_REVOKE0") == 0

    def test_write_protecting_wr_dis_on_esp32_freezes_the_protection(self, board):
        efuses = board("esp32")
        efuses.burn_field("WR_DIS", 1 << 1)
        efuses.burn_field("WR_DIS", 1 << 7)
        assert efuses.field("WR_DIS") == 2

    def test_protection_works_from_the_next_load_on(self, board):
        efuses = board()
        efuses.program(0, 1 << 2, who="rom")
        efuses.program(0, 1 << 32 + 20, who="rom")
        assert efuses.field("DIS_DOWNLOAD_MANUAL_ENCRYPT") == 0, "nothing is loaded yet"
        efuses.reload()
        assert efuses.field("DIS_DOWNLOAD_MANUAL_ENCRYPT") == 1, (
            "the protection was not loaded when it was burned"
        )
        efuses.program(0, 1 << 32 + 19, who="rom")
        efuses.reload()
        assert efuses.field("DIS_PAD_JTAG") == 0

    @pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
    def test_everything_is_in_the_file_at_once(self, board, chip):
        efuses = board(chip)
        counter = efuses.chip.fuses.counter
        efuses.burn_field(counter, 1)
        again = board(chip)
        assert again.field(counter) == 1
        assert again.mac == MAC


class TestReadProtection:
    @pytest.mark.parametrize(
        ("chip", "block", "bit"),
        [("esp32", "BLOCK1", 0), ("esp32", "BLOCK2", 1), ("esp32", "BLOCK3", 2)]
        + [("esp32c3", f"BLOCK_KEY{n}", n) for n in range(6)]
        + [("esp32c3", "BLOCK_SYS_DATA2", 6)],
    )
    def test_software_reads_zeros_and_the_cipher_engine_the_key(self, board, chip, block, bit):
        efuses = board(chip)
        efuses.burn_block(block, KEY)
        assert efuses.block_for_software(block) == KEY
        efuses.burn_field("RD_DIS", 1 << bit)
        assert efuses.read_protected(block)
        assert efuses.block_for_software(block) == bytes(32)
        assert efuses.block_for_hardware(block) == KEY
        assert board(chip).block_for_hardware(block) == KEY

    def test_bit_3_on_esp32_hides_the_key_configuration(self, board):
        efuses = board("esp32")
        efuses.burn_field("FLASH_CRYPT_CONFIG", 0xF)
        efuses.burn_field("RD_DIS", 1 << 3)
        assert efuses.field("FLASH_CRYPT_CONFIG") == 0xF
        assert int.from_bytes(efuses.block_for_software(0)[20:24], "little") >> 28 == 0


class TestReedSolomon:
    def test_a_block_burned_once_is_without_errors(self, board):
        efuses = board()
        efuses.burn_block("BLOCK_KEY0", KEY)
        assert efuses.coding_errors("BLOCK_KEY0") == (0, False)
        assert not (Path(efuses._path).with_name(CODING_FILE)).exists()

    def test_a_second_different_burn_is_beyond_correction_for_good(self, board):
        efuses = board()
        efuses.burn_block("BLOCK_KEY0", KEY)
        efuses.burn_block("BLOCK_KEY0", bytes(range(101, 133)))
        mixed = bytes(a | b for a, b in zip(KEY, range(101, 133), strict=True))
        for same in (efuses, board()):
            assert same.coding_errors("BLOCK_KEY0") == (7, True)
            assert same.block_for_hardware("BLOCK_KEY0") == mixed
            assert same.coding_errors("BLOCK_KEY1") == (0, False)

    def test_the_same_burn_again_changes_nothing(self, board):
        efuses = board()
        for _ in range(2):
            efuses.burn_block("BLOCK_KEY0", KEY)
        assert efuses.coding_errors("BLOCK_KEY0") == (0, False)

    @pytest.mark.parametrize(("wrong", "corrected"), [(1, True), (6, True), (7, False)])
    def test_up_to_six_wrong_bytes_are_corrected(self, board, wrong, corrected):
        efuses = board()
        efuses.burn_block("BLOCK_KEY0", KEY)
        # More bits in single bytes, with check bytes that add nothing: as if cells had failed.
        flips = bytes(0x80 if n < wrong else 0 for n in range(32))
        efuses.program(4, int.from_bytes(flips, "little"), who="rom", check=bytes(12))
        efuses.reload()
        assert efuses.coding_errors("BLOCK_KEY0") == ((wrong, False) if corrected else (7, True))
        expected = KEY if corrected else bytes(a | b for a, b in zip(KEY, flips, strict=True))
        assert efuses.block_for_hardware("BLOCK_KEY0") == expected

    def test_wrong_check_bytes_of_the_host_show_as_errors(self, board):
        efuses = board()
        efuses.program(4, int.from_bytes(KEY, "little"), who="rom", check=b"\x55" * 12)
        efuses.reload()
        assert efuses.coding_errors("BLOCK_KEY0")[1]

    def test_a_power_cut_in_the_middle_leaves_a_block_that_does_not_check(self, board):
        operations = OperationLog()
        efuses = board(operations=operations)
        operations.set_cut(PowerCut(0, CutPoint.INSIDE, byte=20))
        with pytest.raises(PowerLost):
            efuses.burn_block("BLOCK_KEY0", KEY)
        after = board()
        assert after.block_for_hardware("BLOCK_KEY0") == KEY[:20] + bytes(12)
        assert after.coding_errors("BLOCK_KEY0")[1]

    def test_a_note_that_does_not_belong_to_the_cells_is_void(self, board, tmp_path):
        efuses = board()
        efuses.burn_block("BLOCK_KEY0", KEY)
        note = {"format": 1, "blocks": {"4": {"check": "00" * 12, "data_sha256": "00" * 32}}}
        (tmp_path / CODING_FILE).write_text(json.dumps(note))
        assert board().coding_errors("BLOCK_KEY0") == (0, False)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"blocks": {"x": 1}}', '{"blocks": {"4": {"check": "zz"}}}']
    )
    def test_a_damaged_note_is_no_note(self, board, tmp_path, text):
        board()
        (tmp_path / CODING_FILE).write_text(text)
        assert board().coding_errors("BLOCK_KEY0") == (0, False)
