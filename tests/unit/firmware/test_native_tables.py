"""What the native port repeats of the chips' tables, held against them."""

from __future__ import annotations

import re

import pytest

from harness.build.native import firmware_dir
from harness.chips import CHIPS, TWINS
from harness.chips.efuses import efuse_geometry
from harness.chips.idf_burns import idf_burns

HEADER = firmware_dir() / "native" / "include" / "esp_efuse_table.h"


@pytest.mark.parametrize("chip", TWINS)
def test_the_secure_version_lies_where_the_chips_table_has_it(chip: str) -> None:
    found = re.search(
        rf"CONFIG_IDF_TARGET_{chip.upper()}\n#define NATIVE_EFUSE_SECURE_VERSION "
        r"EFUSE_BLK(\d), (\d+), (\d+)\n",
        HEADER.read_text(encoding="utf-8"),
    )
    assert found is not None
    row = efuse_geometry(chip).field("SECURE_VERSION")
    assert tuple(map(int, found.groups())) == (row.block, row.bit, row.bits)


@pytest.mark.parametrize("chip", TWINS)
def test_the_fuses_of_release_mode_lie_where_the_chips_table_has_them(chip: str) -> None:
    section = HEADER.read_text(encoding="utf-8").split(f"CONFIG_IDF_TARGET_{chip.upper()}\n")[1]
    found = {
        name: (int(block), int(bit), int(bits))
        for name, block, bit, bits in re.findall(
            r"#define NATIVE_EFUSE_(\w+) EFUSE_BLK(\d), (\d+), (\d+)\n",
            section.split("#el")[0].split("#endif")[0],
        )
    }
    geometry, burns = efuse_geometry(chip), idf_burns(chip)
    counter = CHIPS[chip].fuses.counter
    names = [*burns.release_mode, burns.release_pseudo_rounds]
    rows = {name: geometry.field(name) for name in names if name is not None}
    expected = {name: (row.block, row.bit, row.bits) for name, row in rows.items()}
    guards = {"CRYPT_CNT": counter} | (
        {burns.write_protect: burns.write_protect} if burns.write_protect else {}
    )
    for name, field in guards.items():
        expected[f"WR_DIS_{name}"] = (0, geometry.field(field).write_disable, 1)
    del found["SECURE_VERSION"]
    assert found == expected
