"""sdkconfig fragments and Kconfig defaults, for a build without ESP-IDF.

`idf.py` puts the same fragments together with all of ESP-IDF's options. The native build needs only those that the
sources ask for: this project's own (defaults from its Kconfig files) and a few of ESP-IDF's
(``firmware/native/sdkconfig.native``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.build.kconfig import merged, settled
from harness.chips import CHIPS, Chip
from harness.errors import FormatError, UsageError

OWN_PREFIXES = ("CONFIG_RAW_OTA_", "CONFIG_COMPANION_")
"""Options of this project; a fragment that sets one that no Kconfig file defines has a misspelt name."""

KCONFIG_FILES = ("components/raw_ota/Kconfig", "main/Kconfig.projbuild")
GROUPS = ("profile", "lock", "boot", "scheme", "net", "console", "layout", "key", "rollback")
"""What fragments are about: ``sdkconfig.<group>.<name>``."""

_OPTION = re.compile(r"(CONFIG_[A-Za-z0-9_]+)=(.*)")
_UNSET = re.compile(r"# (CONFIG_[A-Za-z0-9_]+) is not set")
_LEVELS = ("NONE", "ERROR", "WARN", "INFO", "DEBUG", "VERBOSE")


def parse_sdkconfig(text: str) -> dict[str, str]:
    """Names and values of an sdkconfig file or fragment; options that are "not set" have the value ``n``."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if match := _OPTION.fullmatch(line):
            options[match.group(1)] = match.group(2).strip()
        elif match := _UNSET.fullmatch(line):
            options[match.group(1)] = "n"
    return options


def kconfig_defaults(text: str) -> dict[str, str]:
    """Defaults of the options in a Kconfig file that keeps to literal ones, as this project's do.

    Options without a default count as ``n``. Of a choice, the member named by its ``default`` counts as ``y``.

    Raises:
        FormatError: a default is an expression.
    """
    options: dict[str, str] = {}
    current: str | None = None
    chosen: str | None = None
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("config", "default") and len(words) == 1:
            raise FormatError(
                f"Kconfig: '{words[0]}' without anything behind it", todo="complete the line, or remove it"
            )
        if words[0] == "config":
            current = f"CONFIG_{words[1]}"
            options[current] = "y" if current == chosen else "n"
        elif words[0] in ("choice", "menu", "endmenu", "endchoice"):
            current = None
        elif words[0] == "default" and current is None:
            chosen = f"CONFIG_{words[1]}"
        elif words[0] == "default" and current is not None:
            value = line.strip()[len("default") :].strip()
            if not re.fullmatch(r'y|n|-?\d+|0[xX][0-9a-fA-F]+|"[^"]*"', value):
                raise FormatError(
                    f"Kconfig: the default of {current} is '{value}', expected a literal value",
                    todo="give the option a plain default: the native build reads this file too",
                )
            options[current] = value
    return options


def fragment_path(firmware: Path, name: str) -> Path:
    """The file of a fragment: ``profile.release``, or ``release`` for short, or the path of a file.

    Raises:
        UsageError: there is none; lists those there are.
    """
    candidates = [f"sdkconfig.{name}", *(f"sdkconfig.{group}.{name}" for group in GROUPS)]
    for candidate in candidates:
        path = firmware / candidate
        if path.is_file():
            return path
    if "/" in name and Path(name).is_file():
        return Path(name)
    known = sorted(
        path.name.removeprefix("sdkconfig.")
        for path in firmware.glob("sdkconfig.*")
        if not path.name.startswith("sdkconfig.defaults") and path.suffix.removeprefix(".") not in CHIPS
    )
    raise UsageError(f"there is no sdkconfig fragment '{name}'", todo=f"use some of: {', '.join(known)}")


def native_options(firmware: Path, chip: Chip, fragments: Iterable[str]) -> dict[str, str]:
    """All options of a native build, later fragments winning.

    Raises:
        UsageError: a fragment does not exist. FormatError: it sets an unknown option of this project.
    """
    options: dict[str, str] = {}
    for name in KCONFIG_FILES:
        options.update(kconfig_defaults((firmware / name).read_text(encoding="utf-8")))
    own = set(options)
    named = [firmware / "sdkconfig.defaults", *(fragment_path(firmware, name) for name in fragments)]
    # As idf.py does: a file's own options, then those of the file of the same name for the chip.
    files = [path for each in named for path in (each, each.with_name(f"{each.name}.{chip.name}"))]
    for path in (firmware / "native" / "sdkconfig.native", *files):
        found = parse_sdkconfig(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for option in found:
            if option.startswith(OWN_PREFIXES) and option not in own:
                raise FormatError(
                    f"{path.name} sets {option}, which no Kconfig file of the firmware defines",
                    todo="correct the name",
                )
        options = merged(options, found)
    options = settled(options, chip)
    options.update(_chip_options(chip))
    options["CONFIG_LOG_DEFAULT_LEVEL"] = _level(options, "CONFIG_LOG_DEFAULT_LEVEL")
    options["CONFIG_BOOTLOADER_LOG_LEVEL"] = _level(options, "CONFIG_BOOTLOADER_LOG_LEVEL")
    return options


def _chip_options(chip: Chip) -> dict[str, str]:
    return {
        "CONFIG_IDF_TARGET": f'"{chip.name}"',
        f"CONFIG_IDF_TARGET_{chip.name.upper()}": "y",
        f"CONFIG_IDF_TARGET_ARCH_{'XTENSA' if chip.xtensa else 'RISCV'}": "y",
        "CONFIG_IDF_FIRMWARE_CHIP_ID": f"0x{chip.chip_id:04x}",
        "CONFIG_BOOTLOADER_OFFSET_IN_FLASH": f"0x{chip.bootloader_offset:x}",
    }


def _level(options: Mapping[str, str], option: str) -> str:
    """The number of a log level that is chosen by name (``…_LEVEL_DEBUG=y``), INFO by default."""
    for number, name in enumerate(_LEVELS):
        if options.get(f"{option}_{name}") == "y":
            return str(number)
    return options.get(option, "3")


def to_header(options: Mapping[str, str]) -> str:
    """The sdkconfig.h of these options: ``y`` becomes 1, ``n`` leaves the name undefined."""
    lines = ["/* Generated from sdkconfig fragments. */", "#pragma once"]
    for name in sorted(options):
        value = options[name]
        if value != "n":
            lines.append(f"#define {name} {'1' if value == 'y' else value}")
    return "\n".join(lines) + "\n"


def to_text(options: Mapping[str, str], *, idf_version: str) -> str:
    """An sdkconfig file of these options, with the heading that tells ESP-IDF's version (``v5.5.5``)."""
    lines = [
        "#",
        "# Espressif IoT Development Framework "
        f"(ESP-IDF) {idf_version.removeprefix('v')} Project Configuration (native build)",
        "#",
    ]
    for name in sorted(options):
        value = options[name]
        lines.append(f"# {name} is not set" if value == "n" else f"{name}={value}")
    return "\n".join(lines) + "\n"
