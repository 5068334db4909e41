"""The description of a build: written, read, and refused when it is not what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.build.artefacts import FILE_NAME, Artefacts
from harness.chips import chip_named
from harness.errors import FormatError
from harness.formats.partition_table import PartitionTable

TABLE = PartitionTable.from_csv(
    "otadata,data,ota,0x17000,0x2000\nota_0,app,ota_0,0x20000,0x180000\nota_1,app,ota_1,0x1a0000,0x180000\n",
    table_offset=0x10000,
)


@pytest.fixture
def build(tmp_path: Path) -> Artefacts:
    return Artefacts.write(
        tmp_path,
        chip=chip_named("esp32c3"),
        kind="native",
        project="companion",
        version="1.2.3",
        secure_version=4,
        bootloader=b"bootloader",
        partition_table=TABLE,
        table_offset=0x10000,
        app=b"app",
        sdkconfig="CONFIG_A=y\n",
    )


def test_a_build_is_read_as_it_was_written(build: Artefacts) -> None:
    again = Artefacts.read(build.dir)
    assert again == build
    assert (again.chip.name, again.kind, again.version, again.secure_version) == (
        "esp32c3",
        "native",
        "1.2.3",
        4,
    )
    assert (again.bootloader.read_bytes(), again.app.read_bytes()) == (b"bootloader", b"app")
    assert (again.partition_table, again.table_offset, again.sdkconfig) == (TABLE, 0x10000, {"CONFIG_A": "y"})
    assert set(again.sha256) == {"bootloader.bin", "partition-table.bin", "companion.bin", "sdkconfig"}


def change(build: Artefacts, **values: Any) -> None:
    path = build.dir / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def drop(build: Artefacts, key: str) -> None:
    path = build.dir / FILE_NAME
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))


SPOILED: dict[str, tuple[Callable[[Artefacts], object], str]] = {
    "a newer format": (lambda b: change(b, format=2), "format is 2"),
    "no format": (lambda b: drop(b, "format"), "format"),
    "an unknown kind": (lambda b: change(b, kind="wasm"), "kind"),
    "no version": (lambda b: drop(b, "version"), "version"),
    "files that are a list": (lambda b: change(b, files=[]), "wrong kind"),
    "not JSON": (lambda b: (b.dir / FILE_NAME).write_text("{"), "not JSON"),
    "a list": (lambda b: (b.dir / FILE_NAME).write_text("[]"), "format"),
    "no description": (lambda b: (b.dir / FILE_NAME).unlink(), "holds no build"),
    "an app that has changed": (lambda b: b.app.write_bytes(b"apq"), "has changed"),
    "an app that is gone": (lambda b: b.app.unlink(), "lacks its app"),
    "a file outside": (
        lambda b: change(b, files={"bootloader": {"name": "../x", "sha256": ""}}),
        "not a file of the build",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_build_is_refused_and_the_message_says_why(build: Artefacts, name: str) -> None:
    spoil, message = SPOILED[name]
    spoil(build)
    with pytest.raises(FormatError, match=message) as caught:
        Artefacts.read(build.dir)
    assert caught.value.todo


def test_a_build_for_an_unknown_chip_is_refused(build: Artefacts) -> None:
    change(build, chip="esp8266")
    with pytest.raises(Exception, match="esp8266"):
        Artefacts.read(build.dir)
