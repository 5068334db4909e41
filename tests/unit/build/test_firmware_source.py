"""Where firmware comes from, and the same app under another version."""

from __future__ import annotations

from pathlib import Path

import pytest
from idf_folder import SLOTS, app_image, signed, write_idf_folder

from harness.build.firmware_source import GivenFirmware
from harness.build.restamp import restamp
from harness.errors import FormatError, UsageError
from harness.formats.app_image import parse_app_image
from harness.formats.partition_table import PartitionTable
from harness.ota.release import parse_release


@pytest.mark.parametrize("version", ["2.1.0", "x" * 31, "1.0.0"])
def test_another_version_is_the_same_code_in_an_intact_image(version: str) -> None:
    before = parse_release(app_image())
    after = restamp(before, version=version, secure_version=7)
    assert (after.version, after.secure_version, after.project_name) == (version, 7, "otaapp")
    assert parse_app_image(after.image).is_intact
    end = 0x20 + 256
    assert len(after.image) == len(before.image)
    assert (
        after.image[end : before.parsed.size_bytes - 33] == before.image[end : before.parsed.size_bytes - 33]
    )


def test_the_version_it_has_gives_the_image_it_was() -> None:
    release = parse_release(app_image())
    assert restamp(release, version="1.0.0").image == release.image


def test_a_version_that_does_not_fit_is_refused() -> None:
    with pytest.raises(FormatError, match="version"):
        restamp(parse_release(app_image()), version="x" * 32)


def test_a_signed_image_is_not_given_another_version() -> None:
    with pytest.raises(UsageError, match="is signed"):
        restamp(parse_release(signed(app_image())), version="2.0.0")


def folder_with(path: Path, version: str, table: bytes | None = None) -> Path:
    folder = write_idf_folder(path)
    (folder / "otaapp.bin").write_bytes(app_image(version))
    if table is not None:
        (folder / "partition_table" / "partition-table.bin").write_bytes(table)
    return folder


def test_given_builds_are_flashed_and_updated_to_as_they_are(tmp_path: Path) -> None:
    folders = [folder_with(tmp_path / name, name) for name in ("1.0.0", "1.1.0")]
    given = GivenFirmware.read(folders)
    assert (given.kind, given.versions) == ("target", ("1.0.0", "1.1.0"))
    assert given.first("9.9.9").version == "1.0.0"
    assert given.release("1.1.0").image == app_image("1.1.0")
    with pytest.raises(
        UsageError, match=r"2\.0\.0 is not among the builds that were given: 1\.0\.0, 1\.1\.0"
    ):
        given.release("2.0.0")


def test_builds_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    smaller = PartitionTable.from_csv(
        "otadata,data,ota,0x11000,0x2000\n" + SLOTS.replace("0x1a0000", "0x1b0000"), table_offset=0xC000
    )
    one = folder_with(tmp_path / "1", "1.0.0")
    two = folder_with(tmp_path / "2", "1.1.0", smaller.to_binary())
    with pytest.raises(UsageError, match="different OTA slots"):
        GivenFirmware.read([one, two])
    with pytest.raises(UsageError, match="no build is given"):
        GivenFirmware.read([])
