"""The machine: Python, esptool, the compiler, what else builds and emulates, free disk."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.build.compiler import find_compiler, identify
from harness.build.esp_idf import find_esp_idf
from harness.doctor.finding import Finding, good, note, wrong
from harness.errors import HarnessError
from harness.links import espemu
from harness.links.emulator import find_program
from harness.links.qemu import INSTALL as QEMU_INSTALL
from harness.links.qemu import MACHINES
from harness.power.uhubctl import find_uhubctl

OLDEST_PYTHON = (3, 10)
OLDEST_ESPTOOL = (5, 6)
NEWEST_ESPTOOL_MAJOR = 5
"""espefuse's and espsecure's public functions change with the major version (pyproject.toml says the same)."""

ENOUGH_DISK_BYTES = 2 << 30
"""An ESP-IDF build takes some 300 MB, a saved flash up to 16 MB, a run's artefacts some 10 MB."""
LITTLE_DISK_BYTES = 256 << 20


USUAL_IDF_FOLDERS = (Path("~/esp/esp-idf"), Path("~/esp-idf"), Path("/opt/esp-idf"), Path("/opt/esp/idf"))
"""Where Espressif's instructions and its container image put ESP-IDF."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that was looked for."""

    found: str | None
    """Path, or name and version."""
    problem: str | None = None
    todo: str | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What `probe_host` saw."""

    python: tuple[int, int, int]
    system: str
    esptool: str | None
    compiler: Tool
    idf: Tool
    qemu: Mapping[str, Tool]
    """By program name."""
    espemu: Tool
    uhubctl: Tool
    free_bytes: Mapping[str, int]
    """By folder."""


def probe_host(folders: Collection[Path]) -> HostFacts:
    """Looks at this machine. `folders` are those whose free space matters; they need not exist yet."""
    try:
        esptool: str | None = importlib.metadata.version("esptool")
    except importlib.metadata.PackageNotFoundError:
        esptool = None
    return HostFacts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        system=f"{platform.system()} {platform.machine()}",
        esptool=esptool,
        compiler=_compiler(),
        idf=probe_idf(os.environ.get("IDF_PATH")),
        qemu={
            machine.program: _program(machine.program, machine.variable, QEMU_INSTALL)
            for machine in MACHINES.values()
        },
        espemu=_program(espemu.PROGRAM, espemu.VARIABLE, espemu.INSTALL),
        uhubctl=_uhubctl(),
        free_bytes={
            str(folder): shutil.disk_usage(existing_part(folder)).free for folder in dict.fromkeys(folders)
        },
    )


def check_host(facts: HostFacts, links: Collection[str], *, power_by_hub: bool = False) -> list[Finding]:
    """Judges. `links` are the kinds that boards.yaml uses: what no board needs is a note when it is missing."""
    return [
        *_check_python(facts),
        *_check_esptool(facts.esptool),
        *(_check_disk(folder, free) for folder, free in facts.free_bytes.items()),
        _check_tool(
            "C compiler",
            facts.compiler,
            needed="twin" in links,
            otherwise="only twins that run an application need one",
        ),
        _check_idf(facts.idf),
        *_check_qemu(facts.qemu),
        _check_tool(
            "esp-emu", facts.espemu, needed=False, otherwise="only boards with 'link: espemu' need it"
        ),
        _check_tool(
            "uhubctl",
            facts.uhubctl,
            needed=power_by_hub,
            otherwise="only boards at a switched USB hub need it",
        ),
    ]


def _check_qemu(programs: Mapping[str, Tool]) -> list[Finding]:
    """One line where none of the two is there: they come together. A board that needs one says so itself."""
    otherwise = "only boards with 'link: qemu' need it"
    if any(tool.found for tool in programs.values()):
        return [_check_tool(name, tool, needed=False, otherwise=otherwise) for name, tool in programs.items()]
    first = next(iter(programs.values()))
    return [note("tools", f"QEMU: {' and '.join(programs)} are not there; {otherwise}", first.todo)]


def _check_python(facts: HostFacts) -> list[Finding]:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] < OLDEST_PYTHON:
        return [
            wrong(
                "host",
                f"Python {version} is too old",
                f"install Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer, and the harness into it",
            )
        ]
    found = [good("host", f"Python {version} on {facts.system}")]
    if facts.system.startswith("Windows"):
        found.append(
            note(
                "host",
                "twins do not run their application on Windows",
                "use WSL2 for them, with usbipd for boards",
            )
        )
    return found


def _check_esptool(version: str | None) -> list[Finding]:
    oldest = ".".join(map(str, OLDEST_ESPTOOL))
    todo = f"python -m pip install 'esptool>={oldest},<{NEWEST_ESPTOOL_MAJOR + 1}' into the harness's environment"
    if version is None:
        return [wrong("host", "esptool is not installed", todo)]
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST_ESPTOOL or numbers[0] > NEWEST_ESPTOOL_MAJOR:
        return [wrong("host", f"esptool {version} is not one that this harness was made for", todo)]
    return [good("host", f"esptool {version}")]


def _check_tool(name: str, tool: Tool, *, needed: bool, otherwise: str) -> Finding:
    if tool.found is not None:
        return good("tools", f"{name}: {tool.found}")
    text = f"{name}: {tool.problem or 'not found'}"
    if needed:
        return wrong("tools", text, tool.todo or "install it")
    return note("tools", f"{text}; {otherwise}", tool.todo)


def _check_idf(tool: Tool) -> Finding:
    if tool.found is not None:
        return good("tools", f"ESP-IDF: {tool.found}")
    if tool.problem is not None:
        return wrong("tools", f"ESP-IDF: {tool.problem}", tool.todo or "correct IDF_PATH, or unset it")
    return note(
        "tools",
        "ESP-IDF: not found; only building firmware for real chips and emulators needs it",
        tool.todo,
    )


def _check_disk(folder: str, free: int) -> Finding:
    text = f"{free / (1 << 30):.1f} GiB free for {folder}"
    if free < LITTLE_DISK_BYTES:
        return wrong(
            "host", text, "make room: a key that cannot be written stops a run before anything is burned"
        )
    if free < ENOUGH_DISK_BYTES:
        return note("host", text, "make room before firmware is built with ESP-IDF")
    return good("host", text)


# --- looking ---


def existing_part(folder: Path) -> Path:
    """`folder`, or the nearest folder above it that exists as far as this user may look."""
    return next((each for each in (folder, *folder.parents) if is_there(each)), folder)


def is_there(path: Path) -> bool:
    """Whether `path` exists; not, as far as this user is concerned, where it may not look."""
    try:
        return path.exists()
    except OSError:
        return False


def probe_idf(path: str | None) -> Tool:
    """ESP-IDF at `path`, the value of IDF_PATH; usable means that its own tools are installed, too."""
    if not path:
        found = next((each for each in USUAL_IDF_FOLDERS if is_there(each.expanduser() / "export.sh")), None)
        if found is not None:
            return Tool(
                None, todo=f"there is one in {found} that this shell does not know: . {found}/export.sh"
            )
        return Tool(
            None, todo="run ESP-IDF's export script in this shell, or use a build made elsewhere: --app DIR"
        )
    try:
        idf = find_esp_idf(Path(path))
    except HarnessError as error:
        return Tool(None, error.message, error.todo)
    return Tool(f"{idf.version} in {idf.path}")


def _compiler() -> Tool:
    try:
        command = find_compiler()
        first = identify(command).splitlines()[1:2]
    except HarnessError as error:
        return Tool(None, error.message, error.todo)
    return Tool(f"{command[0]} ({first[0].strip()})" if first else command[0])


def _program(name: str, variable: str, install: str) -> Tool:
    try:
        return Tool(find_program(name, given=None, variable=variable, install=install, board=None))
    except HarnessError as error:
        return Tool(None, error.message, error.todo)


def _uhubctl() -> Tool:
    try:
        return Tool(find_uhubctl())
    except HarnessError as error:
        return Tool(None, error.message, error.todo)
