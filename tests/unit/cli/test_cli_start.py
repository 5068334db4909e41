"""What a command, or the plugin, imports before it has done anything: a person waits for it each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from harness.cli.main import COMMANDS, cli

HEAVY = {
    "aiohttp",
    "asyncio",
    "cryptography",
    "espefuse",
    "espsecure",
    "esptool",
    "jinja2",
    "pexpect",
    "pydantic",
    "pytest",
    "pytest_embedded",
    "ruamel.yaml",
    "serial",
    "sqlite3",
}

IMPORTED_BY = """
import sys
from harness.cli import main
sys.argv[0] = "harness"
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
print("\\n".join(sys.modules), file=sys.stderr)
"""


PLUGIN = "import sys, harness.plugin; print(*sys.modules, file=sys.stderr)"


def imported_by(*args: str, code: str = IMPORTED_BY, cwd: Path | None = None) -> set[str]:
    """All modules that a process of `harness ARGS`, or of `code`, has imported at its end."""
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
    )
    return set(done.stderr.split())


def test_help_imports_no_command_and_none_of_their_libraries() -> None:
    imported = imported_by("--help")
    assert "harness.cli.main" in imported
    assert not imported & HEAVY
    assert not imported & {f"harness.cli.{place.partition(':')[0]}" for place, _ in COMMANDS.values()}


def test_a_list_of_boards_imports_nothing_that_opens_or_updates_one(tmp_path: Path) -> None:
    imported = imported_by("boards", cwd=tmp_path)
    assert "harness.cli.boards" in imported
    assert not imported & (HEAVY - {"pydantic", "ruamel.yaml", "serial"})


def test_a_session_of_pytest_that_opens_no_board_imports_nothing_that_boards_need() -> None:
    imported = imported_by(code=PLUGIN)
    assert "harness.plugin" in imported
    assert not imported & {"aiohttp", "cryptography", "espefuse", "espsecure", "esptool", "jinja2"}
    assert not imported & {"harness.board", "harness.lab", "harness.preparation"}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_names_what_there_is_in_a_line(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help
    assert command.get_short_help_str(limit=80) == COMMANDS[name][1]


def test_a_command_that_was_mistyped_is_not_looked_for_among_modules() -> None:
    assert cli.get_command(click.Context(cli), "options") is None
