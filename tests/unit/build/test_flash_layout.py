"""What is written, kept and erased, and what of it a chip keeps enciphered: from the partition table alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from idf_folder import add_image, app_image, table_of, write_idf_folder

from harness.build.app_dir import AppDirectory, read_app_dir
from harness.build.flash_layout import Fate, FlashLayout, lay_out
from harness.build.fuses_burned import self_burns
from harness.errors import UsageError
from harness.formats.otadata import OtaData
from harness.provision.profile import Profile
from harness.provision.region import check_regions

MORE = (
    "keys,data,nvs_keys,0x320000,0x1000\n"
    "store,data,spiffs,0x321000,0x8000\n"
    "vault,data,fat,0x329000,0x8000,encrypted\n"
    "own,0x40,0x01,0x331000,0x1000\n"
)


@pytest.fixture
def app(tmp_path: Path) -> AppDirectory:
    folder = write_idf_folder(tmp_path / "build", more=MORE)
    add_image(folder, "nvs", 0xD000, "nvs.bin", b"nvs" * 100)
    add_image(folder, "store", 0x321000, "store.bin", b"files" * 100)
    add_image(folder, "vault", 0x329000, "vault.bin", b"secret" * 100)
    return read_app_dir(folder)


def fates(layout: FlashLayout) -> dict[str, Fate]:
    return {each.name: each.fate for each in layout.fates}


def test_every_partition_has_a_fate(app: AppDirectory) -> None:
    layout = lay_out(app, encrypts=True)
    assert fates(layout) == {
        "bootloader": Fate.WRITTEN,
        "partition-table": Fate.WRITTEN,
        "nvs": Fate.KEPT,
        "otadata": Fate.WRITTEN,
        "phy": Fate.KEPT,
        "ota_0": Fate.WRITTEN,
        "ota_1": Fate.KEPT,
        "keys": Fate.KEPT,
        "store": Fate.WRITTEN,
        "vault": Fate.WRITTEN,
        "own": Fate.KEPT,
    }
    check_regions(layout.regions)
    assert [region.name for region in layout.regions] == [
        each.name for each in layout.fates if each.fate is Fate.WRITTEN
    ]
    assert len(layout.lines()) == len(layout.fates)
    assert all(" at 0x" in line for line in layout.lines())


def test_what_a_chip_keeps_enciphered_follows_from_the_table_not_from_the_builds_marks(
    app: AppDirectory,
) -> None:
    stored = {region.name: region.stored_encrypted for region in lay_out(app, encrypts=True).regions}
    assert stored == {
        "bootloader": True,
        "partition-table": True,
        "otadata": True,
        "ota_0": True,
        "store": False,
        "vault": True,
    }


def test_the_images_are_the_builds_own_to_the_byte(app: AppDirectory) -> None:
    data = {region.name: region.data for region in lay_out(app, encrypts=True).regions}
    assert data["ota_0"] == app_image()
    assert data["bootloader"] == app.bootloader
    assert data["partition-table"] == table_of("release", MORE).to_binary()
    assert data["otadata"] == b"\xff" * 0x2000


def test_a_set_without_an_otadata_image_gets_a_blank_one(tmp_path: Path) -> None:
    app = replace(read_app_dir(write_idf_folder(tmp_path / "build")), others=())
    data = {region.name: region.data for region in lay_out(app, encrypts=True).regions}
    assert data["otadata"] == OtaData.blank().to_bytes()


def test_nvs_is_written_and_slots_are_erased_only_by_name(app: AppDirectory) -> None:
    layout = lay_out(app, encrypts=True, write=["nvs"], erase=["ota_1", "own"])
    assert (fates(layout)["nvs"], fates(layout)["ota_1"], fates(layout)["own"]) == (
        Fate.WRITTEN,
        Fate.ERASED,
        Fate.ERASED,
    )
    erased = next(region for region in layout.regions if region.name == "ota_1")
    assert (set(erased.data), len(erased.data), erased.stored_encrypted) == ({0xFF}, 0x180000, False)


def test_kept_plaintext_that_will_read_as_noise_is_told(app: AppDirectory) -> None:
    why = {each.name: each.why for each in lay_out(app, encrypts=True).fates}
    assert "noise" in why["keys"]
    assert "noise" not in why["phy"]
    assert "noise" not in " ".join(lay_out(app, encrypts=False).lines())


@pytest.mark.parametrize(
    ("write", "erase", "message"),
    [
        (["store_2"], [], "store_2"),
        (["own"], [], "no image for partition own"),
        (["nvs"], ["nvs"], "cannot be erased and written"),
        ([], ["otadata"], "cannot be erased and written"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused(
    app: AppDirectory, write: list[str], erase: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        lay_out(app, encrypts=True, write=write, erase=erase)
    assert caught.value.todo


def test_an_image_inside_of_a_partition_is_refused(tmp_path: Path) -> None:
    folder = write_idf_folder(tmp_path / "build", more=MORE)
    add_image(folder, "part", 0x322000, "part.bin", b"middle")
    with pytest.raises(UsageError, match="inside of partition store"):
        lay_out(read_app_dir(folder), encrypts=True)


def test_what_the_firmware_burns_by_itself_is_carried_into_the_plan(app: AppDirectory) -> None:
    regions = {
        r.name: r for r in lay_out(app, encrypts=False, burns=self_burns(app.sdkconfig, "esp32c3")).regions
    }
    assert regions["bootloader"].burns_up_to is Profile.RELEASE
    assert regions["ota_0"].burns_up_to is Profile.RELEASE
    assert regions["otadata"].burns_up_to is None
