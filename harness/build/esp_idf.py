"""ESP-IDF on this host: found, asked for its version, run in its own Python environment.

`idf.py` never runs in the harness's environment: ESP-IDF v5 pins esptool 4, the harness needs esptool 5.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import LabError, UsageError
from harness.links import supervise
from harness.links.environment import child_environment

OLDEST = (5, 3)
"""What the firmware is written for: v5.3 to v6.x."""

EXPORT_TIMEOUT_S = 60.0
KILL_WAIT_S = 10.0

_INSTALL = (
    "install it once: `git clone --recursive -b v5.5.5 https://github.com/espressif/esp-idf.git`, `./install.sh`, "
    "then `. ./export.sh` in this shell; or name its folder with IDF_PATH or --idf"
)
# Beyond what every child gets: what idf.py, CMake, ccache and Windows need. A list, not a prefix: IDF_… also
# holds access tokens of the component registry.
_KEPT = (
    "APPDATA",
    "CCACHE_DIR",
    "CCACHE_DISABLE",
    "CMAKE_BUILD_PARALLEL_LEVEL",
    "COMSPEC",
    "ESP_IDF_VERSION",
    "ESP_ROM_ELF_DIR",
    "HOMEDRIVE",
    "HOMEPATH",
    "IDF_CCACHE_ENABLE",
    "IDF_MAINTAINER",
    "IDF_PYTHON_CHECK_CONSTRAINTS",
    "IDF_PYTHON_ENV_PATH",
    "IDF_SKIP_CHECK_SUBMODULES",
    "IDF_TOOLS_PATH",
    "LOCALAPPDATA",
    "OPENOCD_SCRIPTS",
    "PATHEXT",
    "PROGRAMDATA",
    "SYSTEMDRIVE",
    "USERPROFILE",
    "WINDIR",
)


@dataclass(frozen=True, slots=True)
class EspIdf:
    """One ESP-IDF, ready to build."""

    path: Path
    version: str
    """As an image's description has it, e.g. ``v5.5.5``."""
    identity: str
    """Version, place and commit: part of every cache key."""
    python: Path
    """Interpreter of ESP-IDF's own environment."""
    environment: Mapping[str, str] = field(repr=False)
    """The whole environment of a child process."""

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs ``idf.py`` with `arguments`."""
        return [str(self.python), str(self.path / "tools" / "idf.py"), *arguments]

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        log: Path,
        timeout_s: float,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> int:
        """Runs ``idf.py`` in `folder`, appending everything it says to `log`; gives its exit code.

        Its children end with it: when the time is over, when this process is interrupted, when `on_line` raises.

        Raises:
            LabError: it cannot be started, or takes longer than `timeout_s`.
        """
        command = self.command(*arguments)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(command)}\n")
            file.flush()
            with _running(command, folder, {**self.environment, **_cached_as_any(folder)}) as process:
                expired = threading.Event()

                def end() -> None:
                    expired.set()
                    _end(process)

                timer = threading.Timer(timeout_s, end)
                timer.daemon = True
                timer.start()
                try:
                    assert process.stdout is not None
                    for line in process.stdout:
                        file.write(line)
                        on_line(line.rstrip("\r\n"))
                    code = process.wait()
                finally:
                    timer.cancel()
        if expired.is_set():
            raise LabError(f"idf.py was not done after {timeout_s:.0f} s", todo=f"read {log}")
        return code


def _cached_as_any(folder: Path) -> dict[str, str]:
    """Makes ccache find what a build in another folder has compiled: most of ESP-IDF is the same in every profile.

    Paths below `folder` are hashed as relative ones, and the working directory is not hashed.
    """
    return {"CCACHE_BASEDIR": str(folder.absolute()), "CCACHE_NOHASHDIR": "true"}


@contextmanager
def _running(
    command: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """The process, under a supervisor that ends it and what it started with the block, or with this process."""
    # What a build leaves half done is thrown away. Without groups (Windows) idf.py alone can be ended.
    ending = ["SIGKILL", "0", "--group"] if os.name == "posix" else ["SIGTERM", "0"]
    supervised = [sys.executable, "-I", "-S", str(Path(supervise.__file__)), *ending]
    try:
        process = subprocess.Popen(
            [*supervised, *command],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise LabError(
            f"idf.py cannot be started: {error}", todo="run ESP-IDF's install script again"
        ) from error
    try:
        assert process.stdout is not None
        first = process.stdout.readline().strip()
        if not first.isdecimal():
            raise LabError(f"idf.py cannot be started: {first}", todo="run ESP-IDF's install script again")
        yield process
    finally:
        _end(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_WAIT_S)
        if process.stdout is not None:
            process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Ends idf.py and what it started (ninja, compilers), if it runs; may be called twice."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


def find_esp_idf(given: Path | None = None) -> EspIdf:
    """ESP-IDF at `given`, else where the environment's IDF_PATH says.

    Its Python environment is that of the exported shell, else the one its install script made.

    Raises:
        LabError: there is none, it is too old, or it was never installed; says how to.
        UsageError: the folder that was named is no ESP-IDF.
    """
    named = str(given) if given is not None else os.environ.get("IDF_PATH", "")
    if not named:
        raise LabError("ESP-IDF is needed to build for a chip, and there is none here", todo=_INSTALL)
    path = Path(named).expanduser().absolute()
    version = _version(path)
    if version < OLDEST:
        raise LabError(
            f"ESP-IDF at {path} is v{'.'.join(map(str, version))}; the firmware needs v5.3 or later",
            todo="install v5.3 or later, and name it with IDF_PATH or --idf",
        )
    text = f"v{'.'.join(map(str, version))}"
    environment = _environment(path, version)
    own = environment.get("IDF_PYTHON_ENV_PATH")
    python = _interpreter(Path(own)) if own is not None else Path(str(_python_of_shell(path, environment)))
    if not python.exists():
        raise _not_installed(path, f"its Python environment lacks {python}")
    environment["PATH"] = os.pathsep.join([str(python.parent), environment.get("PATH", "")])
    return EspIdf(path, text, f"{text}\n{path}\n{_commit(path)}", python, environment)


def _version(path: Path) -> tuple[int, int, int]:
    file = path / "tools" / "cmake" / "version.cmake"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path} is not an ESP-IDF: {file.relative_to(path)} cannot be read ({error.strerror})",
            todo=f"name the folder that has tools/idf.py in it, or {_INSTALL}",
        ) from error
    found = dict(re.findall(r"set\(IDF_VERSION_(MAJOR|MINOR|PATCH) (\d+)\)", text))
    if len(found) != 3 or not (path / "tools" / "idf.py").is_file():
        raise UsageError(f"{path} is not a whole ESP-IDF", todo=_INSTALL)
    return int(found["MAJOR"]), int(found["MINOR"]), int(found["PATCH"])


def _commit(path: Path) -> str:
    """What HEAD points at, as far as that can be read without git; empty for a release archive."""
    try:
        head = (path / ".git" / "HEAD").read_text(encoding="utf-8").strip()
        if head.startswith("ref: "):
            return (path / ".git" / head[5:]).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    return head


def _environment(path: Path, version: tuple[int, int, int]) -> dict[str, str]:
    """What children see: the cleaned environment of this process, and what ESP-IDF's export script adds."""
    environment = child_environment(_KEPT)
    # Ours could point anywhere; nothing that idf.py runs may look for modules of this environment.
    environment["IDF_PATH"] = str(path)
    named = os.environ.get("IDF_PATH")
    exported = named is not None and Path(named).absolute() == path.absolute()
    by_hand = exported and "IDF_PYTHON_ENV_PATH" not in environment and _python_of_shell(path, environment)
    if not by_hand and not (exported and "IDF_PYTHON_ENV_PATH" in environment):
        environment.pop("IDF_PYTHON_ENV_PATH", None)
        environment.update(_exported(path, version, environment))
    # The firmware needs no component from the registry: nothing is fetched, nothing is written into its sources.
    environment["IDF_COMPONENT_MANAGER"] = "0"
    environment["PYTHONUNBUFFERED"] = "1"
    if shutil.which("ccache", path=environment.get("PATH")):
        environment.setdefault("IDF_CCACHE_ENABLE", "1")
    return environment


def _python_of_shell(path: Path, environment: Mapping[str, str]) -> str | None:
    """The interpreter of a shell that somebody has set up without ESP-IDF's scripts: its ``idf.py`` is this one's."""
    places = environment.get("PATH")
    tool = shutil.which("idf.py", path=places)
    if tool is None or Path(tool).resolve().parent != (path / "tools").resolve():
        return None
    return shutil.which("python", path=places) or shutil.which("python3", path=places)


def _exported(path: Path, version: tuple[int, int, int], environment: Mapping[str, str]) -> dict[str, str]:
    """What ``export.sh`` would add, as ESP-IDF's own tool tells it."""
    default = Path(environment.get("HOME", environment.get("USERPROFILE", "~"))).expanduser() / ".espressif"
    tools = Path(environment.get("IDF_TOOLS_PATH", default))
    candidates = sorted((tools / "python_env").glob(f"idf{version[0]}.{version[1]}_py*_env"))
    if not candidates:
        raise _not_installed(path, f"there is no Python environment for it in {tools / 'python_env'}")
    folder = candidates[-1]
    command = [
        str(_interpreter(folder)),
        str(path / "tools" / "idf_tools.py"),
        "export",
        "--format",
        "key-value",
    ]
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=EXPORT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_installed(path, str(error)) from error
    if done.returncode != 0:
        said = next((line for line in done.stderr.splitlines() if "ERROR" in line), "it does not say why")
        raise _not_installed(path, said)
    values = {"IDF_PYTHON_ENV_PATH": str(folder)}
    for line in done.stdout.splitlines():
        name, separator, value = line.partition("=")
        if separator and re.fullmatch(r"[A-Z_]+", name):
            old = environment.get("PATH", "")
            values[name] = value.replace("$PATH", old).replace("%PATH%", old)
    return values


def _not_installed(path: Path, why: str) -> LabError:
    return LabError(
        f"ESP-IDF at {path} is not installed for this user: {why}",
        todo=f"run {path / 'install.sh'} once; or run `. {path / 'export.sh'}` in this shell to see what is missing",
    )


def _interpreter(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def digest_of(*parts: str | bytes) -> str:
    """The first 16 hexadecimal digits of a SHA-256 over `parts` and their lengths: names cache folders."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]
