"""docs/ci.md: what it tells people to write is YAML, is shell, and names only options that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from harness.cli.main import EPILOG, EXIT_INTERNAL, EXIT_INTERRUPTED, cli
from harness.errors import HarnessError
from harness.rack.broken_boards import BOARDS_NOT_RUN

PAGE = (Path(__file__).parents[3] / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def scripts() -> list[str]:
    """What the jobs run, one text each."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            found.extend(str(node[key]) for key in ("run",) if key in node)
            if "script" in node:
                found.append("\n".join(map(str, node["script"])))
        for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(each)

    for block in BLOCKS:
        walk(YAML(typ="safe").load(block))
    return found


def commands(program: str) -> list[list[str]]:
    """The words after each call of `program`."""
    lines = [line.removeprefix("exec ") for text in scripts() for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def test_the_page_has_the_jobs_it_promises() -> None:
    assert len(BLOCKS) == 3
    assert len(scripts()) == 5
    assert all("artifact" in block for block in BLOCKS)
    assert len(commands("pytest")) == 2
    assert len(commands("harness")) == 3


@pytest.mark.parametrize("script", scripts(), ids=range(len(scripts())))
def test_every_script_is_one_that_a_shell_reads(script: str) -> None:
    told = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert told.stderr == ""
    # Of a secret only the name of its file is anywhere.
    assert not re.search(r"secrets\.|PASSPHRASE|PASSWORD", script)


def test_a_deadline_lies_before_the_end_of_the_job() -> None:
    for text in scripts():
        for expression in re.findall(r"HARNESS_DEADLINE=\$\(\( \$\(date \+%s\) \+ (\d+) \* 60 \)\)", text):
            assert int(expression) < 60
    assert PAGE.count("HARNESS_DEADLINE=$((") == 2


@pytest.mark.parametrize("words", commands("harness"), ids=range(len(commands("harness"))))
def test_every_command_of_the_harness_takes_what_is_given_to_it(words: list[str]) -> None:
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    known = {opt for param in command.params for opt in param.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("words", commands("pytest"), ids=range(len(commands("pytest"))))
def test_every_option_of_pytest_is_one(words: list[str], pytestconfig: pytest.Config) -> None:
    for word in words:
        if word.startswith("-") and (word != "-n" or pytestconfig.pluginmanager.hasplugin("xdist")):
            # Raises ValueError for an option that there is not.
            pytestconfig.getoption(word)
    assert (Path(__file__).parents[3] / words[0]).is_dir()


def subclasses(kind: type[HarnessError]) -> list[type[HarnessError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in subclasses(below))]


def test_every_exit_code_is_in_the_table() -> None:
    table = PAGE.split("## Exit codes", 1)[1]
    told = {
        int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")
    }
    codes = {each.exit_code for each in subclasses(HarnessError)} | {0, EXIT_INTERNAL, EXIT_INTERRUPTED}
    assert codes <= told, codes - told
    assert f"and {BOARDS_NOT_RUN} from the harness" in PAGE
    assert {int(code) for code in re.findall(r"(\d) \w", EPILOG.split("State", 1)[0])} <= told
