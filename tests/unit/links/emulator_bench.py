"""What the tests of the emulator links share: stand-ins as executables, and reading until something comes."""

import os
import sys
import time
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "data" / "links"


def executable(folder: Path, source: str, name: str) -> Path:
    """A stand-in of tests/data/links as an executable program called `name`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable} -IS\n" + (DATA / source).read_text())
    program.chmod(0o755)
    return program


def read_until(port: Any, wanted: bytes, timeout_s: float = 60.0) -> bytes:
    """What comes from `port` up to and with `wanted`."""
    port.timeout = 0.05
    data = b""
    deadline = time.monotonic() + timeout_s
    while wanted not in data:
        assert time.monotonic() < deadline, f"{wanted!r} did not come, but {data!r}"
        data += port.read(4096)
    return data


def is_gone(pid: int, timeout_s: float = 60.0) -> bool:
    """Whether process `pid` ends within `timeout_s` seconds; a zombie has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False
