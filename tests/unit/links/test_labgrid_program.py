"""Where labgrid is found, and what is said when it is not there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.links.labgrid_program import INSTALL, labgrid_python

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs of an environment lie in bin/")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """As `python3 -m venv` and pip leave it."""
    folder = tmp_path / "labgrid" / "bin"
    folder.mkdir(parents=True)
    (folder / "python3").symlink_to(sys.executable)
    program = folder / "labgrid-client"
    program.write_text(f"#!{folder / 'python3'}\nimport sys\n")
    program.chmod(0o755)
    return folder.parent


def test_it_is_named_by_the_entry_the_environment_or_the_path(environment: Path) -> None:
    python, program = environment / "bin" / "python3", environment / "bin" / "labgrid-client"
    nothing: dict[str, str] = {"PATH": "/nowhere"}
    assert labgrid_python(str(environment), environment=nothing) == python
    assert labgrid_python(str(program), environment=nothing) == python
    assert labgrid_python(environment=nothing | {"HARNESS_LABGRID": str(environment)}) == python
    assert labgrid_python(environment={"PATH": str(environment / "bin")}) == python
    # pip writes a first line that is too long for the system in another way.
    program.write_text("#!/bin/sh\n'''exec' /very/long \"$0\" \"$@\"\n' '''\n")
    link = environment.parent / "link"
    link.symlink_to(program)
    assert labgrid_python(str(link), environment=nothing).samefile(python)


def test_one_sentence_says_how_it_is_installed(environment: Path, tmp_path: Path) -> None:
    (environment / "bin" / "labgrid-client").write_text("no script\n")
    (environment / "bin" / "python3").unlink()
    for named, said in (
        (None, "labgrid is not installed"),
        (str(tmp_path), f"there is no labgrid at {tmp_path}"),
        (str(environment), "no Python is found that runs"),
    ):
        with pytest.raises(LabError, match=said) as error:
            labgrid_python(named, board="desk", environment={"PATH": "/nowhere"})
        assert error.value.todo == INSTALL
        assert "python3 -m venv" in INSTALL
