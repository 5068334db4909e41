"""The flasher stub's dialect: two status bytes, writing after the answer, erasing while writing."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from pathlib import Path

import esptool
import pytest
from rom_bench import Bench, answers_in
from rom_requests import NOISE, PARAMETERS, SYNC, block, request, words

from harness.chips import CHIPS
from harness.twin.rom_protocol import is_stub

TEXT = {"esp32": 0x400A8000, "esp32c3": 0x40380000}
STUBS = sorted((Path(esptool.__file__).parent / "targets" / "stub_flasher").glob("*/*.json"))
BOTH = pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
OK = (0, 0)


@pytest.mark.parametrize("chip", list(CHIPS))
def test_every_stub_of_the_installed_esptool_is_recognised(chip):
    stubs = [json.loads(path.read_text()) for path in STUBS if path.stem == chip]
    assert stubs
    for stub in stubs:
        size = len(base64.b64decode(stub["text"]))
        assert is_stub(CHIPS[chip], [(stub["text_start"], size)], stub["entry"])


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


@pytest.fixture
def bench(make_bench):
    return make_bench("esp32c3")


def in_stub(bench: Bench, *frames: bytes) -> list[bytes]:
    """Load what looks like the stub, then talk; answers to `frames` only."""
    text = TEXT[bench.chip.name]
    load = (
        SYNC,
        request(0x05, words(16, 1, 0x1800, text)),
        block(0x07, b"not really code.", 0),
        request(0x06, words(0, text + 4)),
    )
    answers = bench.talk(*load, *frames)
    assert answers_in(answers[3])[-1] == b"OHAI"
    return answers[4:]


def stub_status(data: bytes) -> tuple[int, int]:
    (answer,) = answers_in(data)
    return answer[-2], answer[-1]


@BOTH
def test_synchronisation_answers_eight_times_with_value_zero(make_bench, chip):
    (answer,) = in_stub(make_bench(chip), SYNC)
    assert answers_in(answer) == [struct.pack("<BBHIH", 1, 8, 2, 0, 0)] * 8


@pytest.mark.parametrize(
    ("chip", "register", "divider"), [("esp32", 0x3FF40014, 0x007002B6), ("esp32c3", 0x60000014, 0x0030015B)]
)
def test_esp32s_stub_runs_the_uart_on_twice_the_crystal(make_bench, chip, register, divider):
    # esptool warns of an odd crystal when it comes back to an ESP32 whose stub still runs.
    bench = make_bench(chip)
    answers = in_stub(bench, request(0x0A, words(register)))
    assert int.from_bytes(answers_in(answers[-1])[0][4:8], "little") == divider


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (request(0x42), 0xC300),
        (request(0xD5), 0xFF00),
        (request(0x0A, words(1, 2)), 0xC000),
        (request(0x0A, words(0), length=8), 0xC000),
        (request(0x0A, words(0), way=1), 0xC300),
        (request(0x09, b"abc"), 0xC800),
        (request(0x03, b"abc"), 0xC800),
        (block(0x03, b"abcd", 0), 0xC600),
        (block(0x11, b"abcd", 0), 0xC600),
        (request(0x04, words(0)), 0xC600),
        (request(0x02, words(1, 2, 3)), 0xC000),
        (request(0xD1, words(1, 0x1000)), 0xC000),
        (request(0x14, b"x"), 0xC000),
        (block(0x07, b"abcd", 0), 0xC600),
    ],
)
def test_wrong_commands_are_refused_with_the_stubs_codes(bench, frame, error):
    assert stub_status(in_stub(bench, frame)[0]) == (error >> 8, error & 0xFF)


@pytest.mark.parametrize(
    "wrong", [b"\xc0\x00\x0a\xdb\x00\xc0", request(0x03, b"x" * 0x5000)], ids=["bad escape", "too long"]
)
def test_a_wrong_frame_is_dropped_and_its_end_opens_the_next(bench, wrong):
    read = request(0x0A, words(0x60008850))
    answers = in_stub(bench, wrong, read, b"\xc0", read)
    # The END of the dropped frame opens one, so the frame after it is taken for the space between two.
    assert answers[:3] == [b"", b"", b""]
    assert stub_status(answers[3]) == OK


@BOTH
def test_plain_and_compressed_data_land_in_flash(make_bench, chip):
    bench = make_bench(chip)
    packed = zlib.compress(NOISE * 40, 9)
    answers = in_stub(
        bench,
        request(0x02, words(len(NOISE), 1, 0x4000, 0x10000, 0)),
        block(0x03, NOISE, 0),
        request(0x04, words(1)),
        request(0x10, words(len(NOISE) * 40, 1, 0x4000, 0x20000, 0)),
        block(0x11, packed, 0),
        request(0x12, words(1)),
        request(0x13, words(0x20000, len(NOISE) * 40, 0, 0)),
    )
    assert [stub_status(answer) for answer in answers] == [OK] * 7
    assert bench.flash.read(0x10000, len(NOISE)) == NOISE
    assert bench.flash.read(0x20000, len(NOISE) * 40) == NOISE * 40
    assert answers_in(answers[-1])[0][8:24] == hashlib.md5(NOISE * 40).digest()


def test_unaligned_data_keep_their_neighbours_on_blank_flash(bench):
    in_stub(bench, request(0x02, words(5, 1, 0x4000, 0x10003, 0)), block(0x03, b"\0" * 5, 0))
    assert bench.flash.read(0x10000, 12) == b"\xff" * 3 + bytes(5) + b"\xff" * 4


def test_sectors_are_erased_while_writing_and_blank_ones_skipped(bench):
    bench.flash.program(0x12000, b"\0", who="test")
    in_stub(
        bench,
        request(0x02, words(0x3000, 1, 0x4000, 0x10000, 0)),
        block(0x03, b"\xaa" * 0x3000, 0),
        request(0x04, words(1)),
    )
    log = [(op.kind, op.offset, op.length) for op in bench.flash.ops if op.who == "stub"]
    assert log == [("erase", 0x12000, 0x1000), ("write", 0x10000, 0x3000)]
    assert bench.flash.read(0x10000, 0x3000) == b"\xaa" * 0x3000


def test_large_erases_go_by_64_kib_blocks(bench):
    bench.flash.program(0x0F000, bytes(0x22000), who="test")
    in_stub(bench, request(0xD1, words(0x0F000, 0x22000)))
    log = [(op.offset, op.length) for op in bench.flash.ops if op.kind == "erase"]
    assert log == [(0xF000, 0x1000), (0x10000, 0x10000), (0x20000, 0x10000), (0x30000, 0x1000)]
    assert bench.flash.read(0x0F000, 0x22000) == b"\xff" * 0x22000


def test_the_chip_is_erased_whole(bench):
    bench.flash.program(0, b"\0", who="test")
    bench.flash.program((4 << 20) - 1, b"\0", who="test")
    assert stub_status(in_stub(bench, request(0xD0))[0]) == OK
    assert bench.flash.read(0, 4 << 20) == b"\xff" * (4 << 20)


def test_an_error_while_writing_shows_in_the_next_answer(bench):
    bench.operations.add_fault("write-raw", 0x6001)
    answers = in_stub(
        bench,
        request(0x02, words(4, 1, 0x4000, 0x10000, 0)),
        block(0x03, b"abcd", 0),
        request(0x0A, words(0x60008850)),
        request(0x0A, words(0x60008850)),
    )
    assert [stub_status(answer) for answer in answers] == [OK, OK, (0xC4, 0), OK]


def test_a_bad_checksum_writes_nothing_and_can_be_repeated(bench):
    answers = in_stub(
        bench,
        request(0x02, words(4, 1, 0x4000, 0x10000, 0)),
        block(0x03, b"abcd", 0, checksum=1),
        block(0x03, b"abcd", 0),
        request(0x04, words(1)),
    )
    assert [stub_status(answer) for answer in answers] == [OK, (0xC1, 0), OK, OK]
    assert bench.flash.read(0x10000, 4) == b"abcd"


def test_an_end_before_all_data_is_refused(bench):
    answers = in_stub(
        bench,
        request(0x02, words(8, 2, 0x4000, 0x10000, 0)),
        block(0x03, b"abcd", 0),
        request(0x04, words(1)),
    )
    assert stub_status(answers[-1]) == (0xC0, 0)


def test_noise_instead_of_a_compressed_stream_is_an_inflate_error(bench):
    answers = in_stub(
        bench,
        request(0x10, words(0x400, 1, 0x4000, 0x10000, 0)),
        block(0x11, b"\x11\x22\x33" * 9, 0),
        request(0x0A, words(0x60008850)),
    )
    assert stub_status(answers[-1]) == (0xC7, 0)


def test_reading_waits_for_each_acknowledgement_and_ends_with_the_digest(bench):
    bench.flash.program(0x10000, NOISE, who="test")
    ack = [b"\xc0" + words(n) + b"\xc0" for n in (1000, 2000, 2043)]
    answers = in_stub(bench, request(0xD2, words(0x10001, 2043, 1000, 64)), *ack)
    assert answers_in(answers[0])[1] == NOISE[1:1001]
    assert answers_in(answers[1]) == [NOISE[1001:2001]]
    assert answers_in(answers[2]) == [NOISE[2001:2044]]
    assert answers_in(answers[3]) == [hashlib.md5(NOISE[1:2044]).digest()]


def test_a_packet_larger_than_the_stubs_buffer_is_refused_afterwards(bench):
    answers = in_stub(bench, request(0xD2, words(0, 16, 0x1001, 64)), SYNC)
    assert stub_status(answers[1]) == (0xC0, 0)


class TestEncryptedWrites:
    KEY = bytes(range(32))

    @staticmethod
    def frames(data: bytes = b"\0" * 32) -> tuple[bytes, ...]:
        return (request(0x02, words(len(data), 1, 0x4000, 0x10000, 1)), block(0x03, data, 0), PARAMETERS)

    @staticmethod
    def with_key(bench: Bench) -> Bench:
        fuses = bench.chip.fuses
        bench.efuses.burn_block(fuses.key_storage_block, TestEncryptedWrites.KEY[::-1])
        if fuses.key_purpose_field:
            bench.efuses.burn_field(fuses.key_purpose_field, 4)
        for name, value in fuses.key_config:
            bench.efuses.burn_field(name, value)
        return bench

    @pytest.mark.parametrize(
        ("chip", "ciphertext"),
        [
            ("esp32", "d35ee1abab03b955a6c2c2ea3c7737b6" * 2),
            ("esp32c3", "f046ac4b14b7d5de087cda76b4f04c4e82ecab550a32e72e11ee6bf7b83fe2ad"),
        ],
    )
    def test_data_are_enciphered(self, make_bench, chip, ciphertext):
        bench = self.with_key(make_bench(chip))
        in_stub(bench, *self.frames())
        assert bench.flash.read(0x10000, 32).hex() == ciphertext

    @BOTH
    def test_the_fuse_closes_the_engine(self, make_bench, chip):
        bench = self.with_key(make_bench(chip))
        bench.efuses.burn_field(bench.chip.fuses.manual_encrypt_disable, 1)
        in_stub(bench, *self.frames())
        assert bench.flash.read(0x10000, 32) == (b"\0" * 32 if chip == "esp32" else b"\xff" * 32)

    def test_data_off_16_bytes_are_an_error(self, make_bench):
        bench = self.with_key(make_bench("esp32c3"))
        answers = in_stub(bench, *self.frames(b"\0" * 20))
        assert stub_status(answers[-1]) == (0xC4, 0)
