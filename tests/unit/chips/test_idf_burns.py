"""What ESP-IDF burns by itself, held against the eFuse tables and the rows that the harness burns from."""

from __future__ import annotations

import pytest

from harness.chips import CHIPS
from harness.chips.efuses import efuse_geometry
from harness.chips.idf_burns import idf_burns
from harness.errors import UsageError

NAMES = sorted(CHIPS)


@pytest.mark.parametrize("name", NAMES)
def test_every_fuse_of_a_row_exists_and_has_one_bit(name: str) -> None:
    row, geometry = idf_burns(name), efuse_geometry(name)
    bits = [fuse for door in row.doors for fuse in door.fuses] + [*row.always, *row.release_mode]
    bits += [fuse for key in row.keys.values() for fuse in key.burned_with]
    bits += [fuse for fuse, _ in row.jtag_texts]
    for fuse in bits:
        assert geometry.field(fuse).bits == 1, fuse
    for fuse in (row.write_protect, row.digest_write_protect):
        assert fuse is None or geometry.field(fuse).write_disable is not None, fuse
    for fuse in (row.pseudo_rounds, row.release_pseudo_rounds):
        assert fuse is None or geometry.has_field(fuse), fuse
    assert geometry.field("SECURE_VERSION").bits == row.secure_version_bits


@pytest.mark.parametrize("name", NAMES)
def test_a_release_build_burns_at_its_first_start_what_the_release_profile_wants(name: str) -> None:
    """Each but those that only one of the two thinks of: documented here, so that a new one is noticed."""
    row, wanted = idf_burns(name), set(CHIPS[name].fuses.release)
    burned = {fuse for door in row.doors for fuse in door.fuses} | set(row.always)
    if row.pseudo_rounds is not None:
        burned.add(row.pseudo_rounds)
    only_the_harness = wanted - burned
    only_esp_idf = burned - wanted
    assert (only_the_harness, only_esp_idf) == DIFFERENCES.get(name, (set(), set()))


DIFFERENCES: dict[str, tuple[set[str], set[str]]] = {
    "esp32p4": ({"XTS_DPA_PSEUDO_LEVEL"}, set()),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_blocks_of_a_key_are_as_many_as_its_bytes_need(name: str) -> None:
    for kind, key in idf_burns(name).keys.items():
        assert len(key.purposes) == {"aes256": 2}.get(kind, 1)
        assert key.size_bytes == {"derived": 16}.get(kind, 32)


def test_a_chip_without_a_row_is_named() -> None:
    with pytest.raises(UsageError, match="esp8266"):
        idf_burns("esp8266")
