"""Names for what rows of tables hold: short, and the same in every worker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness.build.compiler import find_compiler
from harness.chips import Chip


@pytest.hookimpl(tryfirst=True)
def pytest_make_parametrize_id(val: object) -> str | None:
    """A chip and a function by name, bytes by their number; everything else as pytest does."""
    if isinstance(val, Chip):
        return val.name
    if isinstance(val, bytes) and len(val) > 8:
        return f"{len(val)} bytes"
    name = getattr(val, "__name__", None)
    return name if callable(val) and isinstance(name, str) else None


@pytest.fixture(scope="session")
def sanitizers_link(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where the compiler has no sanitizers (some distributions pack them apart); fails in CI."""
    folder: Path = tmp_path_factory.mktemp("sanitizers")
    (folder / "empty.c").write_text("int main(void) { return 0; }\n")
    for name in ("address,undefined", "thread"):
        command = [*find_compiler(), f"-fsanitize={name}", "empty.c", "-o", "empty"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            said = f"the C compiler links no sanitizers: {done.stderr.strip()[-200:]}"
            if os.environ.get("CI") == "true":
                pytest.fail(said, pytrace=False)
            pytest.skip(said)
