"""Builds the companion firmware for this host and packs it into images for a chip.

The same C sources as for the chip, with ``firmware/native/`` in ESP-IDF's place. The program travels inside a real
application image (`harness.formats.native_payload`); the bootloader is a real image that carries its configuration.
Same inputs, same bytes: nothing in the images comes from the clock or from where the files lie.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from harness.build.artefacts import Artefacts
from harness.build.compiler import (
    MAKING_PREFIX,
    WARNINGS,
    Compiler,
    Unit,
    extra_flags,
    find_compiler,
    identify,
    run_tool,
    sanitizer_flags,
    sanitizer_link_flags,
    sanitizers,
    warnings_are_errors,
)
from harness.build.dependencies import Dependencies
from harness.build.sdkconfig import native_options, parse_sdkconfig, to_header, to_text
from harness.build.store import install_program
from harness.chips import Chip
from harness.errors import LabError, UsageError
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image, secure_padded
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.native_payload import native_segment
from harness.formats.partition_table import PartitionTable

COMPILE_DATE = "Jan  1 2026"
COMPILE_TIME = "00:00:00"
"""In place of the clock's: two builds of the same sources are equal."""

FLASH_SIZE_BYTES = 4 << 20
PUBLIC_KEY_BYTES = 65
LOCK_TIMEOUT_S = 300
_SOURCES = ("main", "components/raw_ota", "native/src")
_TARGET_ONLY = ("network*.c", "console_port_*.c")
_APP_DESCRIPTION_SOURCE = Path("native/src/app_desc.c")
_PORT_OF_PARTITIONS = Path("native/src/partition.c")
_WRAPPED = ("esp_partition_write", "esp_partition_write_raw", "esp_partition_erase_range")
"""Calls that reach the test hook first; for a chip the linker's ``--wrap`` does it, which not every host's has."""
_INCLUDES = ("native/include", "native/src", "components/raw_ota/include", "components/raw_ota", "main")
_FORCED_INCLUDE = "native/include/native_stdio.h"
_EMBED_SCRIPT = Path("components/raw_ota/embed_public_keys.py")


@dataclass(frozen=True, slots=True)
class _ImageFacts:
    """What ESP-IDF's images of a chip have in their headers, and where its bootloader's code lies."""

    spi_speed: int
    """Low nibble of header byte 3: 0 is 40 MHz, 0xF 80 MHz."""
    max_chip_rev_full: int
    code_address: int
    entry_point: int


# ESP32 and ESP32-C3 from images of ESP-IDF v5.5.5 with default options.
_IMAGE_FACTS: Mapping[str, _ImageFacts] = {
    "esp32": _ImageFacts(0x0, 399, 0x40078000, 0x40080664),
    "esp32c3": _ImageFacts(0xF, 199, 0x403CBF10, 0x403CBF1A),
    # From ESP-IDF's linker scripts and Kconfig files: where the bootloader's code begins, and 80 MHz or the chip's
    # nearest to it. ESP32-C6 has the code of 40 MHz for it (a workaround of esptool for the ROM).
    "esp32s2": _ImageFacts(0xF, 199, 0x4004A000, 0x4004A00A),
    "esp32s3": _ImageFacts(0xF, 99, 0x403C8700, 0x403C8928),
    "esp32c2": _ImageFacts(0xF, 299, 0x403AC370, 0x403AC37A),
    "esp32c5": _ImageFacts(0xF, 199, 0x4084BBA0, 0x4084BBAA),
    "esp32c6": _ImageFacts(0x0, 99, 0x4086B910, 0x4086B91A),
    "esp32h2": _ImageFacts(0xF, 199, 0x4083C2D0, 0x4083C2DA),
    "esp32p4": _ImageFacts(0xF, 399, 0x4FFAC2C0, 0x4FFAC2CA),
}


def firmware_dir() -> Path:
    """The firmware's sources: inside an installed wheel, or beside the package in a checkout.

    The environment variable HARNESS_FIRMWARE names another folder of the same shape: a handler that somebody changed.

    Raises:
        LabError: they are not there.
    """
    named = os.environ.get("HARNESS_FIRMWARE")
    if named:
        if (Path(named) / "native" / "src").is_dir():
            return Path(named).resolve()
        raise LabError(
            f"HARNESS_FIRMWARE is {named}, which does not hold the companion firmware's sources",
            todo="name a copy of the folder firmware/, or unset it",
        )
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_firmware", package.parent / "firmware"):
        if (candidate / "native" / "src").is_dir():
            return candidate
    raise LabError(
        "the companion firmware's sources are not installed with the harness",
        todo="install the harness again, from a wheel or a checkout",
    )


def build_native(
    chip: Chip,
    *,
    version: str,
    project: str = "companion",
    secure_version: int = 0,
    fragments: Sequence[str] = ("profile.release",),
    signing_keys: Sequence[bytes] = (),
    store: Path,
    work: Path,
    log: Path | None = None,
) -> Artefacts:
    """Builds one version, or takes it from the cache; safe to call from several processes at once.

    Args:
        chip: whose images are made, and whose ESP-IDF options apply.
        version: up to 31 bytes.
        project: up to 31 bytes.
        secure_version: for anti-rollback, 32 bits.
        fragments: sdkconfig fragments, later ones winning: ``profile.release`` (``release`` for short),
            ``lock.none``, ``test``, or paths of files.
        signing_keys: up to two ECDSA P-256 public keys (65 bytes: 04, X, Y) whose packages the firmware takes.
        store: the build store that twins execute from; the program is installed there.
        work: cache of objects, programs and images.
        log: what the compiler says; default ``build.log`` in `work`.

    Raises:
        LabError: no compiler, or the build failed; names the log.
        UsageError: an unknown fragment, a wrong key. FormatError: a text does not fit its field.
    """
    firmware = firmware_dir()
    _check_keys(signing_keys)
    options = native_options(firmware, chip, fragments)
    idf_version = _idf_version(firmware)
    description = AppDescription(
        version=version,
        project_name=project,
        time=COMPILE_TIME,
        date=COMPILE_DATE,
        idf_ver=idf_version,
        secure_version=secure_version,
        max_efuse_blk_rev=99,
    )
    description.to_bytes()  # refuses what does not fit before anything is compiled
    log = log or work / "build.log"
    try:
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(work / "build.lock", timeout=LOCK_TIMEOUT_S):
            _remove_leftovers(work)
            program = _build_program(firmware, options, description, signing_keys, work=work, log=log)
            install_program(program, store)
            options["CONFIG_BOOTLOADER_APP_SECURE_VERSION"] = str(secure_version)
            sdkconfig = to_text(options, idf_version=idf_version)
            description = replace(description, elf_sha256=_sha256(program))
            return _pack(chip, firmware, description, program, sdkconfig, work=work)
    except Timeout as error:
        raise LabError(
            f"another build has held {work / 'build.lock'} for {LOCK_TIMEOUT_S} s",
            todo="see what it is doing",
        ) from error
    except OSError as error:
        raise LabError(f"the build in {work} failed: {error}", todo="see whether the disk is full") from error


def _remove_leftovers(work: Path) -> None:
    """Temporary folders of builds that were killed; the caller holds the lock of `work`."""
    for folder in ("objects", "programs", "artefacts"):
        for path in (work / folder).glob(f"{MAKING_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)


def _check_keys(signing_keys: Sequence[bytes]) -> None:
    if len(signing_keys) > 2:
        raise UsageError("the firmware has room for two signing keys", todo="give at most two")
    for key in signing_keys:
        if len(key) != PUBLIC_KEY_BYTES or key[0] != 4:
            raise UsageError(
                f"a signing key has {len(key)} bytes, expected {PUBLIC_KEY_BYTES} starting with 04",
                todo="give ECDSA P-256 public keys as uncompressed points",
            )


def _idf_version(firmware: Path) -> str:
    """The version that the port follows, from its header."""
    text = (firmware / "native" / "include" / "esp_idf_version.h").read_text(encoding="utf-8")
    match = re.search(r'#define NATIVE_IDF_VER "([^"]+)"', text)
    if match is None:
        raise LabError("firmware/native/include/esp_idf_version.h names no version", todo="restore the file")
    return match.group(1)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _build_program(
    firmware: Path,
    options: Mapping[str, str],
    description: AppDescription,
    signing_keys: Sequence[bytes],
    *,
    work: Path,
    log: Path,
) -> bytes:
    """Compiles and links; the caller holds the lock of `work`."""
    log.write_text("", encoding="utf-8")
    header = to_header(options)
    config = _content_folder(work / "config", header.encode())
    _write_if_changed(config / "sdkconfig.h", header.encode())
    keys = _public_key_source(firmware, work, signing_keys, log)
    command = find_compiler()
    compiler = Compiler(
        command=command,
        identity=identify(command),
        folder=firmware,
        flags=_compile_flags(firmware),
        link_flags=_link_flags(),
        cache=work,
        log=log,
        dependencies=Dependencies(firmware, _INCLUDES, (_FORCED_INCLUDE,), options),
        place_flags=(f"-I{config}",),
    )
    hooks = options.get("CONFIG_RAW_OTA_TEST_HOOKS") == "y"
    units = [Unit(source, _wrapping(source) if hooks else ()) for source in _sources(firmware)] + [Unit(keys)]
    objects = compiler.compile([*units, _description_unit(description)])
    return compiler.link(objects, "companion").read_bytes()


def _content_folder(parent: Path, content: bytes) -> Path:
    """A folder named after what it is for."""
    folder = parent / hashlib.sha256(content).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _public_key_source(firmware: Path, work: Path, signing_keys: Sequence[bytes], log: Path) -> Path:
    """The C file with the public keys, made by the same script as in an ESP-IDF build."""
    folder = _content_folder(work / "keys", b"".join(signing_keys))
    files = []
    for number, key in enumerate(signing_keys, start=1):
        files.append(folder / f"public_key_{number}.bin")
        _write_if_changed(files[-1], key)
    output = folder / "raw_ota_public_keys.c"
    if not output.exists():
        command = [sys.executable, str(firmware / _EMBED_SCRIPT), "--out", str(output.with_suffix(".new"))]
        run_tool([*command, *map(str, files)], folder=folder, log=log, what="embedding the public keys")
        output.with_suffix(".new").replace(output)
    return output


def _write_if_changed(path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)


def _sources(firmware: Path) -> list[Path]:
    """Sources of the native build, relative to `firmware`, without the description that each version has."""
    found = []
    for folder in _SOURCES:
        for path in sorted((firmware / folder).glob("*.c")):
            source = path.relative_to(firmware)
            target_only = folder == "main" and any(path.match(name) for name in _TARGET_ONLY)
            if source == _APP_DESCRIPTION_SOURCE or target_only:
                continue
            found.append(source)
    return found


def _wrapping(source: Path) -> tuple[str, ...]:
    """Macros by which the calls of `source` pass through the test hook (``main/cut_hook.c``) to the port."""
    name = "__real_{0}" if source == _PORT_OF_PARTITIONS else "__wrap_{0}"
    return tuple(f"{call}={name.format(call)}" for call in _WRAPPED)


def _compile_flags(firmware: Path) -> tuple[str, ...]:
    return (
        "-std=gnu11",
        "-O1",
        *WARNINGS,
        *(("-Werror",) if warnings_are_errors() else ()),
        "-pthread",
        "-include",
        _FORCED_INCLUDE,
        *(f"-I{folder}" for folder in _INCLUDES),
        *sanitizer_flags(sanitizers(), firmware),
        *extra_flags(),
    )


def _link_flags() -> tuple[str, ...]:
    named = sanitizers()
    # A build id or symbols would make the program depend on where it was compiled; without symbols a sanitizer's
    # report is of no use.
    if sys.platform == "darwin":
        plain = ["-Wl,-dead_strip"]
    else:
        plain = ["-Wl,--build-id=none", *(() if named else ("-s",))]
    return ("-pthread", *plain, *sanitizer_link_flags(named), *extra_flags())


def _description_unit(description: AppDescription) -> Unit:
    return Unit(
        _APP_DESCRIPTION_SOURCE,
        (
            f"PROJECT_VER={_c_text(description.version)}",
            f"PROJECT_NAME={_c_text(description.project_name)}",
            f"APP_SECURE_VERSION={description.secure_version}u",
            f"COMPILE_DATE={_c_text(description.date)}",
            f"COMPILE_TIME={_c_text(description.time)}",
        ),
    )


def _c_text(text: str) -> str:
    """A C string literal; bytes beyond plain ASCII as octal escapes, which cannot run into what follows."""
    parts = (
        chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in '"\\' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(parts)}"'


def _pack(
    chip: Chip, firmware: Path, description: AppDescription, program: bytes, sdkconfig: str, *, work: Path
) -> Artefacts:
    """Images and their description in a folder named after their content."""
    facts = _IMAGE_FACTS[chip.name]
    config = replace(
        BootloaderConfig.from_sdkconfig(sdkconfig), compile_time=f"{COMPILE_DATE} {COMPILE_TIME}"
    )
    app = build_app_image(
        chip,
        [native_segment(chip, description, program)],
        entry_point=facts.entry_point,
        flash_size_bytes=FLASH_SIZE_BYTES,
        min_chip_rev_full=chip.min_chip_rev_full,
        max_chip_rev_full=facts.max_chip_rev_full,
        spi_speed=facts.spi_speed,
    )
    if parse_sdkconfig(sdkconfig).get("CONFIG_SECURE_BOOT") == "y":
        app = secure_padded(app)  # as ESP-IDF's build does, so that a signature can follow
    bootloader = _bootloader_image(chip, facts, config)
    csv = (firmware / _table_name(sdkconfig)).read_text(encoding="utf-8")
    table = PartitionTable.from_csv(csv, table_offset=config.table_offset)
    table.check(table_offset=config.table_offset, flash_size_bytes=FLASH_SIZE_BYTES)
    content = hashlib.sha256(app + bootloader + table.to_binary() + sdkconfig.encode()).hexdigest()[:16]
    final = work / "artefacts" / f"{chip.name}-{description.project_name}-{content}"
    if final.is_dir():
        return Artefacts.read(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=final.parent, prefix=MAKING_PREFIX))
    try:
        Artefacts.write(
            making,
            chip=chip,
            kind="native",
            project=description.project_name,
            version=description.version,
            secure_version=description.secure_version,
            bootloader=bootloader,
            partition_table=table,
            table_offset=config.table_offset,
            app=app,
            sdkconfig=sdkconfig,
        )
        try:
            making.rename(final)
        except OSError:
            # Another process was faster; what it made is the same.
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return Artefacts.read(final)


def _table_name(sdkconfig: str) -> str:
    """The CSV file that the layout's fragment chose."""
    return parse_sdkconfig(sdkconfig)["CONFIG_PARTITION_TABLE_CUSTOM_FILENAME"].strip('"')


def _bootloader_image(chip: Chip, facts: _ImageFacts, config: BootloaderConfig) -> bytes:
    """A bootloader as the ROM loads it: configuration where ESP-IDF's has its data, and a stand-in for code."""
    code = b"".join(_sha256(f"bootloader code {number}".encode()) for number in range(96))
    return build_app_image(
        chip,
        [Segment(chip.bootloader_load_address, config.to_segment_data()), Segment(facts.code_address, code)],
        entry_point=facts.entry_point,
        flash_size_bytes=FLASH_SIZE_BYTES,
        min_chip_rev_full=chip.min_chip_rev_full,
        max_chip_rev_full=facts.max_chip_rev_full,
        spi_speed=facts.spi_speed,
    )
