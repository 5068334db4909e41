"""The page for the bench keeps in step with what it describes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.inventory.inventory import parse_inventory
from harness.links.espemu import EspEmuLink
from harness.links.qemu import QemuLink
from harness.links.rfc2217 import Rfc2217Link
from harness.links.serial_port import SerialLink
from harness.links.twin import TwinLink

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "real-board.md").read_text(encoding="utf-8")
SCENARIOS = sorted((ROOT / "tests" / "ota").glob("test_*.py"))
ROBUSTNESS = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
YAML = re.findall(r"```yaml\n(.*?)```", PAGE + ROBUSTNESS, re.DOTALL)


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_every_example_of_a_boards_yaml_is_valid(text: str) -> None:
    assert parse_inventory(text, Path("boards.yaml")).boards


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_every_file_of_scenarios_is_in_the_table_with_all_it_needs(file: Path) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{file.name}`" in line]
    assert rows, f"{file.name} is missing in docs/real-board.md"
    needed = set(re.findall(r'needs\("([a-z-]+)"\)', file.read_text(encoding="utf-8")))
    assert needed <= set(re.findall(r"`([a-z-]+)`", " ".join(rows)))


def test_the_table_of_capabilities_says_what_the_links_say() -> None:
    for links, column in (
        ((TwinLink,), 1),
        ((QemuLink, EspEmuLink), 2),
        ((SerialLink, Rfc2217Link), 3),
    ):
        for word in ("uart-download", "power", "flash-log", "fault-injection"):
            row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{word}`:"))
            cell = [cell.strip() for cell in row.strip("|").split("|")][column]
            has = [word in link.capabilities for link in links]
            assert has == [cell.startswith("yes")] * len(links), (word, cell)


def test_every_step_that_burns_is_marked() -> None:
    burning = [part for part in PAGE.split("\n## ") if "--burn" in part]
    assert len(burning) == 1
    assert burning[0].startswith("7. ⚠ IRREVERSIBLE")
