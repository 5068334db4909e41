"""The ROM's download loop answers as the mask ROMs do, byte for byte, and then some cases of its own."""

from __future__ import annotations

import json
import struct
import threading
import zlib
from pathlib import Path

import pytest
from rom_bench import Bench, answers_in, status_of
from rom_requests import NOISE, PARAMETERS, READ_MAGIC, SYNC, block, conversations, request, words

from harness.twin.boot_context import Halted, Reset, RomLoop

DATA = Path(__file__).parents[2] / "data" / "twin"
CASES = [(chip, talk) for chip in ("esp32", "esp32c3") for talk in conversations(chip)]


@pytest.fixture
def make_bench(tmp_path):
    """Benches by chip name, closed afterwards."""
    benches: list[Bench] = []

    def make(chip: str, flash_bytes: int = 4 << 20) -> Bench:
        benches.append(Bench(tmp_path, chip, flash_bytes))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


BOTH = pytest.mark.parametrize("chip", ["esp32", "esp32c3"])


@pytest.mark.parametrize(("chip", "talk"), CASES, ids=[f"{chip}: {talk.name}" for chip, talk in CASES])
def test_answers_equal_those_recorded_from_the_mask_rom(chip, talk, make_bench):
    recorded = json.loads((DATA / f"rom-answers-{chip}.json").read_text())["answers"][talk.name]
    # The recording's straps skip the loop that waits for the first synchronisation: two of them here.
    answers = make_bench(chip).talk(SYNC, SYNC, *talk.frames)[2:]
    assert [answer.hex() for answer in answers] == recorded


@BOTH
def test_nothing_but_a_synchronisation_is_answered_first(chip, make_bench):
    answers = make_bench(chip).talk(READ_MAGIC, b"noise", request(0x50), SYNC, READ_MAGIC)
    assert answers[:3] == [b"", b"", b""]
    assert len(answers_in(answers[3])) == 8
    assert struct.unpack_from("<BBHI", answers_in(answers[3])[0]) == (1, 8, 4, 0x20120707)
    assert status_of(answers[4]) == (0, 0)


@BOTH
def test_a_write_without_begin_is_refused(chip, make_bench):
    bench = make_bench(chip)
    answers = bench.talk(SYNC, block(0x03, NOISE[:0x400], 0), block(0x11, NOISE[:0x400], 0))
    assert [status_of(answer) for answer in answers[1:]] == [(1, 5), (1, 5)]
    assert not bench.flash.ops


@BOTH
def test_writing_onto_programmed_flash_clears_bits_and_fails_the_read_back(chip, make_bench):
    bench = make_bench(chip)
    bench.flash.program(0x1000, b"\x0f" * 0x3FF, who="test")
    tail = words(0) if chip == "esp32c3" else b""
    answers = bench.talk(
        SYNC,
        PARAMETERS,
        request(0x02, words(0, 1, 0x400, 0x1000) + tail),
        block(0x03, b"\xf1" + b"\xff" * 0x3FF, 0),
    )
    assert status_of(answers[-1]) == (1, 8)
    assert bench.flash.read(0x1000, 2) == b"\x01\x0f"


@BOTH
def test_flash_begin_erases_the_whole_range_in_one_go(chip, make_bench):
    bench = make_bench(chip)
    bench.flash.program(0x1000, b"\0" * 0x4000, who="test")
    tail = words(0) if chip == "esp32c3" else b""
    bench.talk(SYNC, PARAMETERS, request(0x02, words(0x1801, 7, 0x400, 0x2000) + tail))
    assert bench.flash.read(0x1000, 0x4000) == b"\0" * 0x1000 + b"\xff" * 0x2000 + b"\0" * 0x1000
    assert [(op.kind, op.offset, op.length, op.who) for op in bench.flash.ops[1:]] == [
        ("erase", 0x2000, 0x2000, "rom")
    ]


@BOTH
@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFF000, 0x1_0000_0000 - 0x3000])
def test_flash_begin_of_nearly_four_gigabytes_erases_to_the_end_of_the_chip_and_fails(chip, size, make_bench):
    bench = make_bench(chip)
    for at in (0x2000, 0x3000, 0x3FF000):
        bench.flash.program(at, b"\0" * 4, who="test")
    tail = words(0) if chip == "esp32c3" else b""
    answers = bench.talk(SYNC, PARAMETERS, request(0x02, words(size, 1, 0x400, 0x3000) + tail))
    assert status_of(answers[-1]) == (1, 6)
    assert bench.flash.read(0x2000, 4) == b"\0" * 4
    assert bench.flash.read(0x3000, 4) == bench.flash.read(0x3FF000, 4) == b"\xff" * 4


def test_esp32_ends_a_compressed_download_with_its_whole_window(make_bench):
    # The ROM writes 32 KiB, whatever the length: stale bytes of its window land behind the image.
    first, second = NOISE[:0x800] * 16, b"short"
    bench = make_bench("esp32")
    for address, image in ((0x10000, first), (0x20000, second)):
        packed = zlib.compress(image, 9)
        frames = [PARAMETERS, request(0x10, words(len(image), 1, 0x1800, address)), block(0x11, packed, 0)]
        if address == 0x10000:
            frames_of_both = frames
        else:
            frames_of_both += frames[1:]
    bench.talk(SYNC, *frames_of_both)
    assert bench.flash.read(0x20000, 5) == second
    assert bench.flash.read(0x20005, 0x7FFB) == first[5:0x8000]


def test_c3_writes_no_more_than_the_image_rounded_up_to_words(make_bench):
    bench = make_bench("esp32c3")
    packed = zlib.compress(b"short", 9)
    bench.talk(SYNC, PARAMETERS, request(0x10, words(5, 1, 0x400, 0x20000, 0)), block(0x11, packed, 0))
    assert bench.flash.read(0x20000, 16) == b"short\0\0\0" + b"\xff" * 8


def test_input_behind_a_compressed_stream_hangs_the_rom_until_reset(make_bench):
    bench = make_bench("esp32c3")
    packed = zlib.compress(b"x" * 64, 9) + b"tail"
    frames = (SYNC, PARAMETERS, request(0x10, words(64, 1, 0x400, 0x20000, 0)), block(0x11, packed, 0))
    done: list[list[bytes]] = []
    thread = threading.Thread(target=lambda: done.append(bench.talk(*frames, READ_MAGIC)))
    thread.start()
    thread.join(timeout=0.3)
    assert thread.is_alive()
    bench.uart.stop.set()
    thread.join(timeout=60)
    assert done
    assert done[0][3:] == [b"", b""]


@pytest.mark.parametrize(
    ("fuses", "expected"),
    [
        ({}, 0),
        ({"SECURE_BOOT_EN": 1}, 0x1),
        ({"SECURE_BOOT_AGGRESSIVE_REVOKE": 1}, 0x2),
        ({"ENABLE_SECURITY_DOWNLOAD": 1}, 0x4),
        ({"SECURE_BOOT_KEY_REVOKE0": 1, "SECURE_BOOT_KEY_REVOKE2": 1}, 0x28),
        ({"SOFT_DIS_JTAG": 1}, 0x40),
        ({"SOFT_DIS_JTAG": 3}, 0),
        ({"SOFT_DIS_JTAG": 7}, 0x40),
        ({"DIS_PAD_JTAG": 1}, 0x80),
        ({"DIS_DOWNLOAD_ICACHE": 1}, 0x400),
        # The documented release steps, as read by esptool from a board so provisioned.
        (
            {
                "SPI_BOOT_CRYPT_CNT": 7,
                "DIS_DOWNLOAD_ICACHE": 1,
                "DIS_DIRECT_BOOT": 1,
                "DIS_USB_JTAG": 1,
                "DIS_PAD_JTAG": 1,
                "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1,
                "ENABLE_SECURITY_DOWNLOAD": 1,
            },
            0x484,
        ),
    ],
)
def test_security_info_tells_the_fuses(fuses, expected, make_bench):
    bench = make_bench("esp32c3")
    for name, value in fuses.items():
        bench.efuses.burn_field(name, value)
    (answer,) = answers_in(bench.talk(SYNC, request(0x14))[1])
    flags, counter, *purposes, chip_id, version = struct.unpack("<IB7BII", answer[8:28])
    assert (flags, counter) == (expected, fuses.get("SPI_BOOT_CRYPT_CNT", 0))
    assert (purposes, chip_id, version) == ([0, 0, 0, 0, 0, 0, 12], 5, 3)


class TestSecureDownloadMode:
    @pytest.fixture
    def bench(self, make_bench):
        bench = make_bench("esp32c3")
        bench.efuses.burn_field("ENABLE_SECURITY_DOWNLOAD", 1)
        return bench

    @pytest.mark.parametrize(
        "opcode", [0x05, 0x06, 0x07, 0x09, 0x0A, 0x0E, 0x10, 0x11, 0x12, 0x13, 0xD0, 0xD2]
    )
    def test_other_commands_are_unknown_under_the_last_opcode(self, bench, opcode):
        answer = bench.talk(SYNC, PARAMETERS, request(opcode, words(0x60008830, 0, 0, 0)))[2]
        assert answers_in(answer) == [struct.pack("<BBHI4B", 1, 0x0B, 4, 0, 1, 5, 0, 0)]

    def test_flash_can_be_written_and_erased(self, bench):
        answers = bench.talk(
            SYNC,
            request(0x0D, words(0, 0)),
            PARAMETERS,
            request(0x02, words(0x400, 1, 0x400, 0x3000, 0)),
            block(0x03, NOISE[:0x400], 0),
            request(0x14),
        )
        assert [status_of(answer) for answer in answers[1:5]] == [(0, 0)] * 4
        assert bench.flash.read(0x3000, 0x400) == NOISE[:0x400]
        assert answers_in(answers[5])[0][8] == 4

    def test_the_end_of_a_download_resets_the_chip(self, bench):
        bench.talk(SYNC, PARAMETERS, request(0x02, words(0, 0, 0x400, 0, 0)), request(0x04, words(1)))
        assert bench.outcome == Reset(3, 0.0)


def efuse_write(offset: int, value: int, *more: int) -> bytes:
    return request(0x09, words(0x60008800 + offset, value, 0xFFFFFFFF, 0, *more))


@pytest.mark.parametrize("bit", [0, 5])
def test_c3_resets_without_an_answer_when_download_is_restricted_under_its_feet(bit, make_bench):
    bench = make_bench("esp32c3")
    answers = bench.talk(
        SYNC,
        efuse_write(0x10, 1 << bit),
        efuse_write(0x1CC, 0x5A5A),
        efuse_write(0x1D4, 2),
        efuse_write(0x1CC, 0x5AA5),
        efuse_write(0x1D4, 1, 0x6000007C, 0, 0, 1000),
        READ_MAGIC,
    )
    # Burned is not yet loaded: the answers go on up to the controller's read command.
    assert [status_of(answer) for answer in answers[1:5]] == [(0, 0)] * 4
    assert answers[5:] == [b"", b""]
    assert bench.outcome == Reset(3, 0.0)


def test_esp32_goes_on_answering_after_download_was_disabled(make_bench):
    bench = make_bench("esp32")

    def write(offset: int, value: int) -> bytes:
        return request(0x09, words(0x3FF5A000 + offset, value, 0xFFFFFFFF, 0))

    answers = bench.talk(
        SYNC,
        write(0x1C, 1 << 27),
        write(0xFC, 0x5A5A),
        write(0x104, 2),
        write(0xFC, 0x5AA5),
        write(0x104, 1),
        READ_MAGIC,
    )
    assert status_of(answers[-1]) == (0, 0)
    assert bench.efuses.field("UART_DOWNLOAD_DIS") == 1


def test_with_download_off_c3_prints_so_and_resets_for_ever(make_bench):
    bench = make_bench("esp32c3")
    bench.efuses.burn_field("DIS_DOWNLOAD_MODE", 1)
    bench.talk(SYNC)
    assert isinstance(bench.outcome, Reset)
    assert bench.uart.script, "nothing was read from the wire"


def test_with_download_off_esp32_prints_one_line_and_waits_for_its_watchdog(make_bench):
    bench = make_bench("esp32")
    bench.efuses.burn_field("UART_DOWNLOAD_DIS", 1)
    bench.uart.answers.append(b"")
    bench.talk(SYNC)
    assert isinstance(bench.outcome, RomLoop)
    assert bench.outcome.reset_reason == 0x10


class TestEncryptedWrites:
    KEY = bytes(range(32))

    @pytest.fixture
    def bench(self, make_bench):
        bench = make_bench("esp32c3")
        bench.efuses.burn_block("BLOCK_KEY0", self.KEY[::-1])
        bench.efuses.burn_field("KEY_PURPOSE_0", 4)
        return bench

    @staticmethod
    def frames(data: bytes, address: int = 0x10000) -> tuple[bytes, ...]:
        return (
            SYNC,
            PARAMETERS,
            request(0x02, words(len(data), 1, 0x400, address, 1)),
            block(0x03, data, 0),
            request(0x0E, words(address, 32)),
        )

    def test_the_fifth_word_enciphers_whatever_the_counter_says(self, bench):
        answers = bench.talk(*self.frames(b"\0" * 32))
        # Vector of espsecure for this key and address.
        ciphertext = bytes.fromhex("f046ac4b14b7d5de087cda76b4f04c4e82ecab550a32e72e11ee6bf7b83fe2ad")
        assert bench.flash.read(0x10000, 32) == ciphertext
        assert answers_in(answers[-1])[0][8:40] == ciphertext
        assert [op.kind for op in bench.flash.ops if op.who == "rom"] == ["erase", "write-encrypted"]

    def test_a_length_that_is_not_in_units_of_16_is_refused(self, bench):
        answers = bench.talk(*self.frames(b"\0" * 20))
        assert status_of(answers[3]) == (1, 0x64)

    def test_the_fuse_forbids_them(self, bench):
        bench.efuses.burn_field("DIS_DOWNLOAD_MANUAL_ENCRYPT", 1)
        answers = bench.talk(*self.frames(b"\0" * 32))
        assert status_of(answers[2]) == (1, 0x64)

    def test_compressed_ones_do_not_exist(self, bench):
        answers = bench.talk(SYNC, PARAMETERS, request(0x10, words(32, 1, 0x400, 0x10000, 1)))
        assert status_of(answers[2]) == (1, 0x64)

    def test_plaintext_on_an_encrypted_board_is_written_as_it_is(self, bench):
        bench.efuses.burn_field("SPI_BOOT_CRYPT_CNT", 7)
        bench.efuses.burn_field("DIS_DOWNLOAD_MANUAL_ENCRYPT", 1)
        answers = bench.talk(
            SYNC,
            PARAMETERS,
            request(0x02, words(0x400, 1, 0x400, 0, 0)),
            block(0x03, NOISE[:0x400], 0),
        )
        assert status_of(answers[-1]) == (0, 0)
        assert bench.flash.read(0, 0x400) == NOISE[:0x400]


@pytest.mark.parametrize(
    ("kind", "answer", "expected"), [("erase", 2, (1, 6)), ("write-raw", 3, (1, 8)), ("read", 4, (1, 9))]
)
def test_a_failing_flash_shows_in_the_answer(kind, answer, expected, make_bench):
    bench = make_bench("esp32c3")
    bench.operations.add_fault(kind, 0x6001, count=99)
    answers = bench.talk(
        SYNC,
        PARAMETERS,
        request(0x02, words(0x400, 1, 0x400, 0, 0)),
        block(0x03, NOISE[:0x400], 0),
        request(0x0E, words(0, 16)),
    )
    assert status_of(answers[answer]) == expected


def test_addresses_beyond_the_chip_wrap_when_the_host_claims_a_larger_one(make_bench):
    bench = make_bench("esp32c3", 2 << 20)
    answers = bench.talk(
        SYNC,
        PARAMETERS,
        request(0x02, words(0x400, 1, 0x400, 0x201000, 0)),
        block(0x03, NOISE[:0x400], 0),
    )
    assert status_of(answers[-1]) == (0, 0)
    assert bench.flash.read(0x1000, 0x400) == NOISE[:0x400]


@BOTH
def test_code_that_is_not_the_stub_is_not_started(chip, make_bench):
    bench = make_bench(chip)
    ram = 0x3FC90000 if chip == "esp32c3" else 0x3FFD0000
    answers = bench.talk(
        SYNC,
        request(0x05, words(4, 1, 0x1800, ram)),
        block(0x07, b"code", 0),
        request(0x06, words(0, ram)),
    )
    assert b"target code does not run on the twin" in answers[-1]
    assert isinstance(bench.outcome, Halted)


def test_c3_with_secure_boot_resets_instead_of_starting_code_in_ram(make_bench):
    bench = make_bench("esp32c3")
    bench.efuses.burn_field("SECURE_BOOT_EN", 1)
    bench.talk(
        SYNC,
        request(0x05, words(4, 1, 0x1800, 0x40380000)),
        block(0x07, b"code", 0),
        request(0x06, words(0, 0x40380000)),
    )
    assert bench.outcome == Reset(3, 0.0)
