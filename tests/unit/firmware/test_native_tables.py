"""What the native port repeats of the chips' tables, held against them."""

from __future__ import annotations

import re

import pytest

from harness.build.native import firmware_dir
from harness.chips import TWINS
from harness.chips.efuses import efuse_geometry

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
