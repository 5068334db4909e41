"""Folders for `--app`: read in every spelling, never changed, refused with one sentence when something is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from idf_folder import C3, add_image, app_image, bootloader_image, edit, signed, table_of, write_idf_folder

from harness.build.app_dir import is_signed, read_app_dir
from harness.build.artefacts import Artefacts
from harness.chips import SigningScheme, chip_named
from harness.errors import UsageError
from harness.formats.bootloader_config import BootloaderConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_idf_folder(tmp_path / "build")


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_build_folder_of_esp_idf_is_read_and_left_as_it_was(folder: Path) -> None:
    before = content(folder)
    app = read_app_dir(folder)
    assert (app.chip.name, app.kind, app.project, app.version, app.idf_version) == (
        "esp32c3",
        "target",
        "otaapp",
        "1.0.0",
        "v5.5.5",
    )
    assert (app.table_offset, app.flash_size_bytes, app.app_partition.label) == (0xC000, 4 << 20, "ota_0")
    assert (app.bootloader, app.release.image) == (bootloader_image(), app_image())
    assert app.partition_table == table_of("release")
    assert [(file.role, file.offset) for file in app.others] == [("otadata", 0x11000)]
    assert (app.encryption, app.remarks) == ("release", ())
    assert content(folder) == before


SPELLINGS = {
    "esptool 5's options (v6)": {
        "write_flash_args": ["--flash-mode", "dio", "--flash-size", "4MB", "--flash-freq", "80m"],
        "extra_esptool_args": {
            "after": "no-reset",
            "before": "default-reset",
            "stub": True,
            "chip": "esp32c3",
        },
    },
    "marks of a development build": {
        "app": {"offset": "0x20000", "file": "otaapp.bin", "encrypted": "true"},
    },
    "an underscore in the table's name": {
        "partition-table": None,
        "partition_table": {"offset": "0xc000", "file": "partition_table/partition-table.bin"},
    },
    "offsets as numbers": {"app": {"offset": 0x20000, "file": "otaapp.bin"}},
    "the chip only in the project's description": {"extra_esptool_args": {"stub": False}},
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_reads_the_same(folder: Path, name: str) -> None:
    usual = read_app_dir(folder)
    edit(folder, **SPELLINGS[name])
    assert read_app_dir(folder) == usual


def test_only_the_images_and_flasher_args_suffice(folder: Path) -> None:
    (folder / "project_description.json").unlink()
    shutil.rmtree(folder / "config")
    app = read_app_dir(folder)
    assert (app.chip.name, app.version) == ("esp32c3", "1.0.0")
    assert (app.sdkconfig, app.encryption, app.sdkconfig_text) == (None, None, None)
    assert "no sdkconfig" in " ".join(app.remarks)


def test_a_copied_sdkconfig_file_does_as_well(folder: Path) -> None:
    shutil.rmtree(folder / "config")
    (folder / "sdkconfig").write_text("CONFIG_SECURE_FLASH_ENC_ENABLED=y\n# CONFIG_SECURE_BOOT is not set\n")
    assert read_app_dir(folder).encryption == "development"


def test_the_bootloader_that_secure_boot_leaves_out_is_found(tmp_path: Path) -> None:
    folder = write_idf_folder(tmp_path / "build", "secure-boot")
    app = read_app_dir(folder)
    assert app.bootloader == bootloader_image()
    assert app.remarks == ()


def test_a_build_says_which_secure_boot_it_is_made_for(folder: Path, tmp_path: Path) -> None:
    app = read_app_dir(write_idf_folder(tmp_path / "signed", "secure-boot"))
    assert (app.secure_boot, app.secure_boot_v1, app.signing_scheme) == (True, False, SigningScheme.RSA_3072)
    plain = read_app_dir(folder)
    assert (plain.secure_boot, plain.signing_scheme) == (False, None)
    shutil.rmtree(folder / "config")
    assert read_app_dir(folder).secure_boot is None
    for options, expected in (
        ("CONFIG_SECURE_BOOT_V1_ENABLED=y", (False, True, None)),
        (f"{ECDSA}\nCONFIG_SECURE_BOOT_ECDSA_KEY_LEN_192_BITS=y", (True, False, SigningScheme.ECDSA_P192)),
        (f"{ECDSA}\nCONFIG_SECURE_BOOT_ECDSA_KEY_LEN_256_BITS=y", (True, False, SigningScheme.ECDSA_P256)),
        (f"{ECDSA}\nCONFIG_SECURE_BOOT_ECDSA_KEY_LEN_384_BITS=y", (True, False, SigningScheme.ECDSA_P384)),
    ):
        (folder / "sdkconfig").write_text(f"CONFIG_SECURE_BOOT=y\n{options}\n")
        app = read_app_dir(folder)
        assert (app.secure_boot, app.secure_boot_v1, app.signing_scheme) == expected


def test_an_image_with_a_signature_block_is_a_signed_one() -> None:
    assert is_signed(signed(app_image()))
    assert not is_signed(app_image())


def test_the_configuration_tells_a_twin_what_the_real_bootloader_does(folder: Path) -> None:
    text = read_app_dir(folder).sdkconfig_text
    assert text is not None
    config = BootloaderConfig.from_sdkconfig(text)
    assert (config.table_offset, config.rollback, config.flash_encryption, config.idf_version) == (
        0xC000,
        True,
        "release",
        "v5.5.5",
    )


def test_an_image_of_another_configuration_is_remarked(folder: Path) -> None:
    (folder / "otaapp.bin").write_bytes(app_image("0.9.0"))
    assert "may be stale" in " ".join(read_app_dir(folder).remarks)


def test_a_set_of_our_own_is_read(tmp_path: Path) -> None:
    made = Artefacts.write(
        tmp_path,
        chip=C3,
        kind="target",
        project="companion",
        version="1.2.3",
        secure_version=0,
        bootloader=bootloader_image(),
        partition_table=table_of("secure-boot"),
        table_offset=0x10000,
        app=app_image("1.2.3", project="companion"),
        sdkconfig='CONFIG_ESPTOOLPY_FLASHSIZE="8MB"\n',
    )
    app = read_app_dir(tmp_path)
    assert (app.kind, app.version, app.project) == ("target", "1.2.3", "companion")
    assert (app.table_offset, app.table_image) == (made.table_offset, made.partition_table.to_binary())
    assert (app.flash_size_bytes, app.app_partition.label, app.others) == (8 << 20, "ota_0", ())


def without(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def put(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


ECDSA = "CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME=y"


def only_files(folder: Path, *keep: str) -> None:
    files = json.loads((folder / "flasher_args.json").read_text())["flash_files"]
    edit(folder, flash_files={place: name for place, name in files.items() if name in keep})


TABLE = "partition_table/partition-table.bin"
LOADER = "bootloader/bootloader.bin"
ONE_SLOT = "otadata,data,ota,0x11000,0x2000\nota_0,app,ota_0,0x20000,0x180000\n"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "neither description": (without("flasher_args.json"), "neither artefacts.json nor flasher_args.json"),
    "flasher_args that is no JSON": (put("flasher_args.json", b"{"), "flasher_args.json is not JSON"),
    "flasher_args that is a list": (put("flasher_args.json", b"[]"), "no JSON object"),
    "a description that is no JSON": (
        put("project_description.json", b"?"),
        "project_description.json is not JSON",
    ),
    "an sdkconfig that is no JSON": (put("config/sdkconfig.json", b"\xff"), "sdkconfig.json is not JSON"),
    "no files": (lambda f: edit(f, flash_files={}), "no 'flash_files'"),
    "files that are a list": (lambda f: edit(f, flash_files=["x"]), "no 'flash_files'"),
    "an offset in words": (lambda f: edit(f, flash_files={"high": "otaapp.bin"}), "offset is 'high'"),
    "a file name that is a number": (lambda f: edit(f, flash_files={"0x0": 7}), "names no file"),
    "a file outside": (lambda f: edit(f, flash_files={"0x0": "../secret"}), "not in the build folder"),
    "an absolute file": (lambda f: edit(f, flash_files={"0x0": "/etc/hostname"}), "not in the build folder"),
    "an app that is gone": (without("otaapp.bin"), "otaapp.bin cannot be read"),
    "no app": (lambda f: only_files(f, TABLE, LOADER), "has no app"),
    "no table": (lambda f: only_files(f, "otaapp.bin", LOADER), "has no partition table"),
    "no bootloader": (
        lambda f: (only_files(f, "otaapp.bin", TABLE), without(LOADER)(f)),
        "bootloader/bootloader.bin is not there",
    ),
    "two chips": (
        lambda f: edit(f, extra_esptool_args={"chip": "esp32"}),
        "is for esp32 and for esp32c3",
    ),
    "no chip": (
        lambda f: (edit(f, extra_esptool_args=None), edit(f, "project_description.json", target=None)),
        "no chip",
    ),
    "a chip nobody knows": (
        lambda f: (
            edit(f, extra_esptool_args={"chip": "esp8266"}),
            edit(f, "project_description.json", target="esp8266"),
        ),
        "esp8266",
    ),
    "a damaged app": (put("otaapp.bin", app_image()[:-1] + b"?"), "SHA-256 does not match"),
    "an app for another chip": (put("otaapp.bin", app_image(chip=chip_named("esp32"))), "chip id 0"),
    "a bootloader in the app's place": (put("otaapp.bin", bootloader_image()), "no application description"),
    "a damaged bootloader": (put(LOADER, bootloader_image()[:-1] + b"?"), "the bootloader is damaged"),
    "a bootloader for another chip": (
        put(LOADER, bootloader_image(chip=chip_named("esp32"))),
        "bootloader has chip id 0",
    ),
    "an enciphered bootloader": (put(LOADER, b"\x5a" * 4096), "magic is 0x5a"),
    "a bootloader that reaches the table": (
        put(LOADER, bootloader_image(size=0xC000)),
        "partition table begins",
    ),
    "a bootloader elsewhere": (
        lambda f: (
            only_files(f, "otaapp.bin", TABLE),
            add_image(f, "bootloader", 0x1000, "other.bin", bootloader_image()),
        ),
        "bootloader at 0x1000",
    ),
    "a damaged table": (put(TABLE, b"\x00" * 0xC00), "partition-table.bin: partition table entry 0"),
    "a table without OTA": (
        put(TABLE, table_of("release").from_csv(ONE_SLOT, table_offset=0xC000).to_binary()),
        "fewer than two OTA slots",
    ),
    "an app where there is no partition": (
        lambda f: (
            only_files(f, TABLE, LOADER),
            add_image(f, "app", 0x30000, "app.bin", app_image()),
        ),
        "no app partition",
    ),
    "an app larger than its slot": (put("otaapp.bin", app_image(size=0x190000)), "its partition ota_0"),
    "an image behind the last partition": (
        lambda f: add_image(f, "storage", 0x330000, "storage.bin", b"data"),
        "lies in no partition",
    ),
    "an image that does not fit": (
        lambda f: add_image(f, "phy", 0x13000, "phy.bin", bytes(0x1001)),
        "lies in partition phy",
    ),
    "a partition outside of the flash": (
        lambda f: edit(f, "config/sdkconfig.json", ESPTOOLPY_FLASHSIZE="2MB"),
        "flash",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_refused_and_the_message_says_why(folder: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(folder)
    with pytest.raises(UsageError, match=message) as caught:
        read_app_dir(folder)
    assert caught.value.todo


def test_the_project_folder_is_refused_and_its_build_folder_named(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_app_dir(folder.parent)
    assert str(folder) in str(caught.value.todo)


def test_a_build_for_another_chip_than_the_boards_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="is for ESP32-C3, the board is ESP32"):
        read_app_dir(folder, chip=chip_named("esp32"))


def test_a_link_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(app_image())
    (folder / "otaapp.bin").unlink()
    (folder / "otaapp.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="not in the build folder"):
        read_app_dir(folder)
