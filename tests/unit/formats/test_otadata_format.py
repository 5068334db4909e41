"""otadata: its bytes, and which slot the bootloader takes from them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import FormatError
from harness.formats.otadata import OtaData, OtaRecord, OtaState, Selection, Verdict, sequence_crc

EMPTY = OtaRecord.empty()
VALID, NEW, PENDING = OtaState.VALID, OtaState.NEW, OtaState.PENDING_VERIFY
INVALID, ABORTED, UNDEFINED = OtaState.INVALID, OtaState.ABORTED, OtaState.UNDEFINED


def record(seq: int, state: OtaState = VALID) -> OtaRecord:
    return OtaRecord.make(seq, state)


def bad_crc(seq: int, state: OtaState = VALID) -> OtaRecord:
    return OtaRecord(seq=seq, state=state, crc=sequence_crc(seq) ^ 1)


@pytest.mark.parametrize(
    ("seq", "crc"),
    [
        (1, 0x4743989A),
        (2, 0x55F63774),
        (3, 0xED4A5011),
        (4, 0x709D68A8),
        (5, 0xC8210FCD),
        (6, 0xDA94A023),
    ],
)
def test_the_crc_is_the_one_that_the_rom_computes(seq, crc):
    assert sequence_crc(seq) == crc


def test_the_first_record_has_the_bytes_that_esp_idf_writes():
    expected = "01000000" + "ff" * 24 + "9a984347"
    assert record(1, UNDEFINED).to_bytes().hex() == expected
    assert OtaRecord.from_bytes(bytes.fromhex(expected)) == record(1, UNDEFINED)


def test_each_record_starts_its_sector_and_the_rest_is_erased():
    data = OtaData((record(1), record(2, NEW))).to_bytes()
    assert len(data) == 0x2000
    assert data[:32] == record(1).to_bytes()
    assert data[0x1000:0x1020] == record(2, NEW).to_bytes()
    assert set(data[32:0x1000]) == set(data[0x1020:]) == {0xFF}


def test_blank_otadata_is_all_0xff():
    assert OtaData.blank().to_bytes() == b"\xff" * 0x2000
    assert all(r.is_empty and not r.is_bootable for r in OtaData.blank().records)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
@settings(max_examples=40, deadline=None)
def test_any_content_is_read_selected_and_written_back(first, second):
    data = first.ljust(0x1000, b"\xff") + second.ljust(0x1000, b"\xff")
    otadata = OtaData.from_bytes(data)
    assert otadata.to_bytes() == data
    assert otadata.select(2).verdict in Verdict
    assert all(r.state_name for r in otadata.records)


@pytest.mark.parametrize("size", [0, 31, 32, 0x1000, 0x101F])
def test_truncated_otadata_is_refused(size):
    with pytest.raises(FormatError, match=f"otadata has {size} bytes"):
        OtaData.from_bytes(bytes(size))


def test_a_truncated_record_is_refused():
    with pytest.raises(FormatError, match="otadata record has 31 bytes"):
        OtaRecord.from_bytes(bytes(31))


@pytest.mark.parametrize(
    "broken",
    [
        OtaRecord(seq=-1, state=0, crc=0),
        OtaRecord(seq=1, state=1 << 32, crc=0),
        OtaRecord(seq=1, state=0, crc=-5),
        OtaRecord(seq=1, state=0, crc=0, label=b""),
    ],
)
def test_a_record_that_does_not_fit_its_fields_is_refused(broken):
    with pytest.raises(FormatError, match="otadata"):
        broken.to_bytes()


@pytest.mark.parametrize(
    ("first", "second", "slots", "expected"),
    [
        # both good: the larger sequence number, the first record when equal
        (record(1), record(2), 2, Selection(Verdict.BOTH, 1, 1)),
        (record(3), record(2), 2, Selection(Verdict.BOTH, 0, 0)),
        (record(4), record(3), 2, Selection(Verdict.BOTH, 0, 1)),
        (record(2), record(2), 2, Selection(Verdict.BOTH, 0, 1)),
        (record(6), record(5), 4, Selection(Verdict.BOTH, 0, 1)),
        (record(1, NEW), record(2, PENDING), 2, Selection(Verdict.BOTH, 1, 1)),
        (record(1, UNDEFINED), record(2, UNDEFINED), 2, Selection(Verdict.BOTH, 1, 1)),
        # one good
        (record(1), EMPTY, 2, Selection(Verdict.ONE, 0, 0)),
        (EMPTY, record(2), 2, Selection(Verdict.ONE, 1, 1)),
        (record(1), bad_crc(2), 2, Selection(Verdict.ONE, 0, 0)),
        (record(1), record(2, INVALID), 2, Selection(Verdict.ONE, 0, 0)),
        (record(1), record(2, ABORTED), 2, Selection(Verdict.ONE, 0, 0)),
        (record(5, ABORTED), record(4), 2, Selection(Verdict.ONE, 1, 1)),
        (record(0), EMPTY, 3, Selection(Verdict.ONE, 0, 0xFFFFFFFF % 3)),
        # both ruled out by sequence number or state, whatever the CRC: initial
        (EMPTY, EMPTY, 2, Selection(Verdict.INITIAL)),
        (EMPTY, record(1, ABORTED), 2, Selection(Verdict.INITIAL)),
        (record(2, INVALID), record(1, ABORTED), 2, Selection(Verdict.INITIAL)),
        (bad_crc(2, INVALID), EMPTY, 2, Selection(Verdict.INITIAL)),
        (record(1), record(2), 0, Selection(Verdict.INITIAL)),
        # a wrong CRC on a record that is not ruled out: garbage
        (bad_crc(1), EMPTY, 2, Selection(Verdict.GARBAGE)),
        (bad_crc(1), bad_crc(2), 2, Selection(Verdict.GARBAGE)),
        (record(1, ABORTED), bad_crc(2), 2, Selection(Verdict.GARBAGE)),
    ],
)
def test_the_bootloader_selects(first, second, slots, expected):
    assert OtaData((first, second)).select(slots) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (EMPTY, EMPTY, True),
        (record(0xFFFFFFFF), EMPTY, True),
        (bad_crc(1), EMPTY, True),
        (bad_crc(1), bad_crc(2), True),
        (record(1, INVALID), EMPTY, False),
        (record(1), EMPTY, False),
    ],
)
def test_a_bootloader_writes_a_first_record_only_over_empty_or_damaged_ones(first, second, expected):
    assert OtaData((first, second)).is_initial_or_damaged is expected


@given(slots=st.integers(1, 16), data=st.data())
@settings(max_examples=40, deadline=None)
def test_otadata_made_for_a_slot_selects_it(slots, data):
    slot = data.draw(st.integers(0, slots - 1))
    made = OtaData.for_slot(slot, slots, VALID)
    assert made.select(slots) == Selection(Verdict.ONE, 0, slot)
    assert OtaData.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize(("slot", "slots"), [(2, 2), (-1, 2), (0, 0)])
def test_otadata_for_a_slot_that_is_not_there_is_refused(slot, slots):
    with pytest.raises(FormatError, match=f"ota_{slot}"):
        OtaData.for_slot(slot, slots, VALID)
