"""The host's C compiler: found, asked who it is, run; objects and programs cached by what they are made of."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness.build.dependencies import Dependencies
from harness.errors import LabError, UsageError

COMPILE_TIMEOUT_S = 120
WARNINGS = ("-Wall", "-Wextra")
SANITIZERS = ("address", "undefined", "thread")
"""What HARNESS_SANITIZE may name, with commas; ``address`` and ``thread`` exclude each other."""
MAKING_PREFIX = ".making-"
"""Of folders for what is being made; a build that is killed leaves them."""
_INSTALL = {
    "Linux": "install one: `sudo apt install gcc` (Debian, Ubuntu, WSL2), `sudo dnf install gcc` (Fedora), "
    "`apk add build-base` (Alpine)",
    "Darwin": "install one: `xcode-select --install`",
    "Windows": "run the harness in WSL2: the twin's application is a POSIX program",
}


@dataclass(frozen=True, slots=True)
class Unit:
    """One source file and the macros it is compiled with; the path is relative to the compiler's folder."""

    source: Path
    defines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler and the options of one build.

    ``folder`` is where it runs: relative paths keep the results the same wherever the sources lie.
    """

    command: tuple[str, ...]
    identity: str
    """Version text and machine: part of every cache key."""
    folder: Path
    flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    cache: Path
    log: Path
    dependencies: Dependencies
    """Tells when a source has to be compiled anew."""
    place_flags: tuple[str, ...] = ()
    """Flags that only say where the options lie that `dependencies` knows of."""
    jobs: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))

    def compile(self, units: Sequence[Unit]) -> list[Path]:
        """Object files of `units`, in their order.

        Raises:
            LabError: one does not compile; the message holds the compiler's first error line.
        """
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(self._object, units))

    def link(self, objects: Sequence[Path], name: str) -> Path:
        """The program that these objects make, stripped.

        Raises:
            LabError: they do not link.
        """
        digest = hashlib.sha256(f"{self.identity}\0{self.link_flags}\0{name}".encode())
        for path in objects:
            digest.update(path.name.encode())
        target = self.cache / "programs" / digest.hexdigest()
        if not target.exists():
            self._make(target, [*map(str, objects), *self.link_flags], f"linking {name}")
        return target

    def _object(self, unit: Unit) -> Path:
        digest = hashlib.sha256(f"{self.identity}\0{self.flags}\0{unit.defines}\0".encode())
        digest.update(self.dependencies.digest(unit.source).encode())
        target = self.cache / "objects" / f"{digest.hexdigest()}.o"
        if not target.exists():
            defines = [f"-D{define}" for define in unit.defines]
            self._make(
                target,
                [*self.flags, *self.place_flags, *defines, "-c", str(unit.source)],
                f"compiling {unit.source}",
            )
        return target

    def _make(self, target: Path, arguments: Sequence[str], what: str) -> None:
        """Runs the compiler with its output beside `target`, and moves it there when it is whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=MAKING_PREFIX) as folder:
            # The same name each time: some linkers put it into the file.
            output = Path(folder) / "output"
            run_tool(
                [*self.command, *arguments, "-o", str(output)], folder=self.folder, log=self.log, what=what
            )
            output.replace(target)


def run_tool(command: Sequence[str], *, folder: Path, log: Path, what: str) -> None:
    """Runs one step of a build; everything it says goes to `log`.

    Raises:
        LabError: it fails or takes too long; the message holds its first error line and the log's path.
    """
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(
            f"{what} did not work: {error}", todo="see whether the compiler works by itself"
        ) from error
    said = done.stdout + done.stderr
    if said:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n{said}\n")
    if done.returncode != 0:
        raise LabError(f"{what} failed: {first_error(said)}", todo=f"read {log}")


def first_error(said: str) -> str:
    """The first line of a compiler's output that tells an error, else the first line at all."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for line in lines:
        if "error" in line.lower() or "undefined reference" in line:
            return line
    return lines[0] if lines else "the compiler said nothing"


def find_compiler() -> tuple[str, ...]:
    """The command of the C compiler: the environment's CC (with its arguments), else cc, gcc or clang.

    Raises:
        LabError: there is none; says what to install on this system.
    """
    system = platform.system()
    named = shlex.split(os.environ.get("CC", ""))
    candidates = [named] if named else [["cc"], ["gcc"], ["clang"]]
    for candidate in candidates:
        found = shutil.which(candidate[0])
        if found is not None and system != "Windows":
            return (found, *candidate[1:])
    wanted = f"the C compiler that CC names, '{named[0]}'," if named else "a C compiler (cc, gcc or clang)"
    raise LabError(
        f"{wanted} is not there, so the twin's application cannot be built",
        todo=f"{_INSTALL.get(system, 'install one')}; everything but the twin's application works without",
    )


def identify(command: Sequence[str]) -> str:
    """Who this compiler is, for cache keys.

    Raises:
        LabError: it does not even tell its version.
    """
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, errors="replace", timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(
            f"{command[0]} cannot be run: {error}", todo="install a C compiler, or name one in CC"
        ) from error
    if done.returncode != 0:
        raise LabError(
            f"{command[0]} --version fails: {first_error(done.stderr + done.stdout)}",
            todo="install a C compiler, or name one in CC",
        )
    return f"{shlex.join(command)}\n{done.stdout}\n{platform.machine()} {sys.platform}"


def extra_flags() -> tuple[str, ...]:
    """Options from HARNESS_CFLAGS, for compiling and linking."""
    return tuple(shlex.split(os.environ.get("HARNESS_CFLAGS", "")))


def sanitizers() -> tuple[str, ...]:
    """The sanitizers that HARNESS_SANITIZE asks for, ``address,undefined`` for instance; none when it is not set.

    Raises:
        UsageError: it names something else, or two that exclude each other.
    """
    named = tuple(filter(None, os.environ.get("HARNESS_SANITIZE", "").split(",")))
    if not set(named) <= set(SANITIZERS) or {"address", "thread"} <= set(named):
        raise UsageError(
            f"HARNESS_SANITIZE is '{','.join(named)}'",
            todo="use address, undefined or both, or thread (with or without undefined)",
        )
    return named


def sanitizer_flags(named: Sequence[str], folder: Path) -> tuple[str, ...]:
    """Options for compiling with the sanitizers `named`; a finding ends the program.

    With line tables, so that a report tells files (relative to `folder`, where the compiler runs) and lines. The program
    has to fit a slot, so the tables are compressed and the code is not position independent, which ThreadSanitizer
    alone insists on.
    """
    if not named:
        return ()
    return (
        f"-fsanitize={','.join(named)}",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-g1",
        "-gz",
        f"-ffile-prefix-map={folder}=.",
        *(() if _is_position_independent(named) else ("-fno-pie",)),
    )


def sanitizer_link_flags(named: Sequence[str]) -> tuple[str, ...]:
    """Options for linking what `sanitizer_flags` were given to."""
    if not named:
        return ()
    return (f"-fsanitize={','.join(named)}", *(() if _is_position_independent(named) else ("-no-pie",)))


def _is_position_independent(named: Sequence[str]) -> bool:
    return "thread" in named or sys.platform == "darwin"


def warnings_are_errors() -> bool:
    """Whether HARNESS_WERROR=1 asks for it; a person's newer compiler must not break the first command."""
    return os.environ.get("HARNESS_WERROR") == "1"
