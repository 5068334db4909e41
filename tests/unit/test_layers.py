"""Which part may look at which: CONTRIBUTING's picture, held against every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HARNESS = Path(__file__).parents[2] / "harness"

MAY_USE = {
    # pure: bytes in, bytes out
    "chips": {"errors"},
    "formats": {"chips", "errors"},
    # the other end of the wire
    "twin": {"chips", "errors", "formats"},
    # a program of another Python environment
    "labgrid_agent": set(),
    # the outside world
    "inventory": {"chips", "errors", "links"},
    "links": {"errors", "formats"},
    "power": {"errors", "links", "lock_file", "lock_note", "locks"},
    "vault": {"chips", "errors", "formats", "home", "late_names"},
    # what can be done with a board, and knows no board
    "console": {"errors", "links"},
    "network": {"console", "errors", "inventory", "ota"},
    "ota": {"chips", "console", "errors", "formats", "vault"},
    "provision": {"chips", "deadline", "errors", "formats", "interruption", "late_names", "links", "vault"},
    "build": {"chips", "errors", "formats", "inventory", "links", "ota", "provision", "vault"},
    # a run that has been, without what made it
    "history": {"errors", "home", "report"},
}
"""By part of the harness, the other parts that it uses."""

DOES_IO = {
    "asyncio",
    "http",
    "io",
    "os",
    "pathlib",
    "serial",
    "shutil",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
}
"""What a pure part has no need of; that it reads its own tables (`importlib.resources`) is no I/O of a caller's."""


def imports_of(file: Path) -> set[str]:
    """Full names of the modules that `file` imports anywhere, and of what it takes from them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level < 2:
            # A relative one stays in its own part.
            found |= {f"{node.module}.{each.name}" for each in node.names if not node.level}
    return found


def parts_used(file: Path) -> set[str]:
    """Parts of the harness, as folders and files of it are called, that `file` imports."""
    return {name.split(".")[1] for name in imports_of(file) if name.startswith("harness.")}


@pytest.mark.parametrize("part", MAY_USE)
def test_a_part_uses_only_what_is_below_it(part: str) -> None:
    used = {each: parts_used(each) - {part} for each in (HARNESS / part).rglob("*.py")}
    assert used, f"there is no {part}/"
    above = {file.name: parts - MAY_USE[part] for file, parts in used.items()}
    assert {name: parts for name, parts in above.items() if parts} == {}


def test_nothing_imports_the_twin_which_a_link_starts_as_a_process() -> None:
    inside = HARNESS / "twin"
    others = (file for file in HARNESS.rglob("*.py") if inside not in file.parents)
    assert [file.name for file in others if "twin" in parts_used(file)] == []


@pytest.mark.parametrize("part", ["formats", "chips"])
def test_a_pure_part_does_no_io(part: str) -> None:
    for file in (HARNESS / part).rglob("*.py"):
        assert not {name.split(".")[0] for name in imports_of(file)} & DOES_IO, file.name
