"""The fuzz targets of the firmware (``firmware/fuzz/``), and how they are compiled.

With clang they are libFuzzer programs; with any other compiler, and in the test suite, programs that run the files
they are given. Both have AddressSanitizer and UndefinedBehaviorSanitizer.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.build.compiler import WARNINGS, Compiler, Unit, find_compiler, identify
from harness.build.dependencies import Dependencies
from harness.build.native import _FORCED_INCLUDE, _INCLUDES, firmware_dir
from harness.build.sdkconfig import native_options, to_header
from harness.chips import chip_named
from harness.errors import LabError

CHIP = "esp32c3"
FRAGMENTS = ("profile.release", "lock.none", "test")
PROJECT, VERSION = "companion", "1.0.0"

_PORT_REPLACED = {
    "startup.c",
    "panic.c",
    "sanitizer.c",
    "twin_rpc.c",
    "freertos.c",
    "console_port.c",
    "tcp.c",
    "esp_timer.c",
}
"""Of the port: what starts a program, and what waits for somebody outside of it."""
_COMMON = (
    "memory_chip.c",
    "sha256.c",
    "update_rules.c",
    "public_keys.c",
    "cooperative_tasks.c",
    "memory_tcp.c",
    "memory_timer.c",
)
_WRAPPED = ("esp_ota_begin", "esp_ota_abort", "esp_ota_end", "psa_import_key", "psa_destroy_key")


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """One entry point for hostile input."""

    name: str
    what: str
    sources: tuple[str, ...]
    """Of ``firmware/fuzz/``, besides those that all targets share."""
    largest: int
    """Longest input that is worth trying, in bytes."""
    of_main: tuple[str, ...] = ()
    """Sources of the companion itself (``main/``) that belong to it."""
    wrapped: tuple[str, ...] = ()

    @property
    def regressions(self) -> Path:
        """Inputs that were findings, or that reach what must stay reachable."""
        return firmware_dir() / "fuzz" / "regressions" / self.name

    @property
    def dictionary(self) -> Path | None:
        """Words that mutation puts in; not every target has some."""
        path = firmware_dir() / "fuzz" / f"{self.name}.dict"
        return path if path.is_file() else None


TARGETS = {
    target.name: target
    for target in (
        FuzzTarget(
            "package",
            "the 256-byte package header",
            ("fuzz_package.c", "package_input.c"),
            largest=1024,
        ),
        FuzzTarget(
            "handler",
            "raw_ota_update() on boards in any state, with flash that fails",
            ("fuzz_handler.c", "package_input.c"),
            largest=16384,
        ),
        FuzzTarget(
            "http",
            "answers of HTTP servers, and raw_ota over them",
            ("fuzz_http.c",),
            largest=16384,
            of_main=("stock_ota.c",),
        ),
        FuzzTarget(
            "command_line",
            "bytes at the firmware's UART",
            ("fuzz_command_line.c",),
            largest=8192,
            of_main=(
                "command_line.c",
                "commands.c",
                "console.c",
                "crash.c",
                "cut_commands.c",
                "device_state.c",
                "events.c",
                "release_mode.c",
                "stock_ota.c",
                "test_commands.c",
                "uart_source.c",
                "update_commands.c",
            ),
            wrapped=("command_crash", "commands_dispatch"),
        ),
    )
}


def build_target(target: FuzzTarget, work: Path, *, libfuzzer: bool) -> Path:
    """Compiles a target, or takes it from the cache in `work`.

    Raises:
        LabError: no compiler (with `libfuzzer`: no clang), or the build failed; names the log.
    """
    firmware = firmware_dir()
    work.mkdir(parents=True, exist_ok=True)
    options = native_options(firmware, chip_named(CHIP), FRAGMENTS)
    config = work / "config"
    config.mkdir(exist_ok=True)
    (config / "sdkconfig.h").write_text(to_header(options), encoding="utf-8")
    command = _clang() if libfuzzer else find_compiler()
    checks = "address,undefined"
    compiled = f"fuzzer-no-link,{checks}" if libfuzzer else checks
    compiler = Compiler(
        command=command,
        identity=identify(command),
        folder=firmware,
        flags=(
            "-std=gnu11",
            "-O1",
            "-g1",
            *WARNINGS,
            "-Werror",
            "-fno-omit-frame-pointer",
            f"-fsanitize={compiled}",
            "-fno-sanitize-recover=all",
            "-include",
            _FORCED_INCLUDE,
            "-Ifuzz",
            *(f"-I{folder}" for folder in _INCLUDES),
            f"-I{config}",
        ),
        link_flags=(
            "-pthread",
            f"-fsanitize={f'fuzzer,{checks}' if libfuzzer else checks}",
            *(f"-Wl,--wrap={name}" for name in (*_WRAPPED, *target.wrapped)),
        ),
        cache=work,
        log=work / "build.log",
        dependencies=Dependencies(firmware, ("fuzz", *_INCLUDES), (_FORCED_INCLUDE,), options),
    )
    return compiler.link(compiler.compile(_units(firmware, target, libfuzzer=libfuzzer)), target.name)


def _units(firmware: Path, target: FuzzTarget, *, libfuzzer: bool) -> list[Unit]:
    found = sorted((firmware / "components/raw_ota").glob("*.c"))
    found += [
        path for path in sorted((firmware / "native/src").glob("*.c")) if path.name not in _PORT_REPLACED
    ]
    found += [firmware / "main" / name for name in target.of_main]
    if "events.c" not in target.of_main:
        found = [path for path in found if path.name != "network.c"]
    own = (*_COMMON, *target.sources, *(() if libfuzzer else ("replay.c",)))
    found += [firmware / "fuzz" / name for name in own]
    defines = {
        "app_desc.c": (f'PROJECT_VER="{VERSION}"', f'PROJECT_NAME="{PROJECT}"', "APP_SECURE_VERSION=0u")
    }
    return [Unit(path.relative_to(firmware), defines.get(path.name, ())) for path in found]


def _clang() -> tuple[str, ...]:
    found = shutil.which("clang")
    if found is None or sys.platform != "linux":
        raise LabError(
            "libFuzzer needs clang on Linux",
            todo="install clang and its runtime: `sudo apt install clang libclang-rt-14-dev llvm` on Debian 12",
        )
    return (found,)
