"""Build folders as ESP-IDF leaves them: its own description files around small images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from harness.chips import Chip, chip_named
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.bootloader_config import BootloaderDescription
from harness.formats.partition_table import PartitionTable

DATA = Path(__file__).resolve().parents[2] / "data" / "build"
C3 = chip_named("esp32c3")

TABLE_OFFSETS = {"release": 0xC000, "secure-boot": 0x10000}
TABLES = {
    "release": "nvs,data,nvs,0xd000,0x4000\notadata,data,ota,0x11000,0x2000\nphy,data,phy,0x13000,0x1000\n",
    "secure-boot": "nvs,data,nvs,0x11000,0x4000\notadata,data,ota,0x15000,0x2000\nphy,data,phy,0x17000,0x1000\n",
}
SLOTS = "ota_0,app,ota_0,0x20000,0x180000\nota_1,app,ota_1,0x1a0000,0x180000\n"


def app_image(version: str = "1.0.0", *, chip: Chip = C3, project: str = "otaapp", size: int = 4000) -> bytes:
    """An app of another project, as ESP-IDF v5.5.5 makes it."""
    description = AppDescription(version=version, project_name=project, idf_ver="v5.5.5").to_bytes()
    code = (bytes(range(256)) * (size // 256 + 1))[:size]
    return build_app_image(
        chip,
        [Segment(chip.drom_base + 0x20, description + code)],
        entry_point=0x40380000,
        flash_size_bytes=4 << 20,
    )


def bootloader_image(*, chip: Chip = C3, size: int = 3000) -> bytes:
    """A bootloader: an image with its own description, and without an app's."""
    description = BootloaderDescription(idf_ver="v5.5.5", date_time="Jan  1 2026 00:00:00").to_bytes()
    code = description.ljust(size, b"\0")
    return build_app_image(chip, [Segment(chip.bootloader_load_address, code)], entry_point=0x403CBF1A)


def signed(image: bytes) -> bytes:
    """The image with a (meaningless) secure boot v2 signature block behind it."""
    padded = image.ljust(-(-len(image) // 0x1000) * 0x1000, b"\xff")
    return padded + b"\xe7\x02" + bytes(0x1000 - 2)


def table_of(build: str, more: str = "") -> PartitionTable:
    """The partition table of the named build; `more` are further lines of its CSV."""
    return PartitionTable.from_csv(TABLES[build] + SLOTS + more, table_offset=TABLE_OFFSETS[build])


def write_idf_folder(folder: Path, build: str = "release", *, more: str = "") -> Path:
    """A build folder of ESP-IDF: `build` is one of those in tests/data/build."""
    for part in ("bootloader", "partition_table", "config"):
        (folder / part).mkdir(parents=True)
    shutil.copy(DATA / f"flasher_args-{build}-idf5.5.5.json", folder / "flasher_args.json")
    shutil.copy(DATA / f"project_description-{build}-idf5.5.5.json", folder / "project_description.json")
    shutil.copy(DATA / f"sdkconfig-{build}-idf5.5.5.json", folder / "config" / "sdkconfig.json")
    version = json.loads((folder / "project_description.json").read_text())["project_version"]
    (folder / "bootloader" / "bootloader.bin").write_bytes(bootloader_image())
    (folder / "partition_table" / "partition-table.bin").write_bytes(table_of(build, more).to_binary())
    (folder / "ota_data_initial.bin").write_bytes(b"\xff" * 0x2000)
    (folder / "otaapp.bin").write_bytes(app_image(version))
    return folder


def edit(folder: Path, name: str = "flasher_args.json", **values: Any) -> None:
    """Sets top-level values of one of the folder's JSON files; None removes one."""
    path = folder / name
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def add_image(folder: Path, role: str, offset: int, name: str, data: bytes) -> None:
    """One more image that the build flashes."""
    (folder / name).write_bytes(data)
    files = json.loads((folder / "flasher_args.json").read_text())["flash_files"]
    entry = {"offset": hex(offset), "file": name, "encrypted": "false"}
    edit(folder, flash_files={**files, hex(offset): name}, **{role: entry})
