"""Answers a shell that asks what may come next: click's own completion, on commands made from the table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from harness.completion.board_words import words_in
from harness.completion.table import read_table, table_file, table_of

VARIABLE = "_HARNESS_COMPLETE"
"""Set by the shell's completion function; click's convention."""
PROGRAM = "harness"
DEFAULT_BOARDS = "boards.yaml"


def answer(instruction: str) -> int:
    """Prints what `instruction` (``bash_complete``, …) asks for; the exit status.

    A completion that fails says nothing: a traceback between somebody's words helps nobody.
    """
    if os.environ.get("HARNESS_DEBUG"):
        return _answer(instruction)
    try:
        return _answer(instruction)
    except Exception:  # noqa: BLE001 - whatever it is, it must not end up in the line that is being typed
        return 1


def _answer(instruction: str) -> int:
    shell, _, asked = instruction.partition("_")
    kind = get_completion_class(shell)
    if kind is None or asked != "complete":
        return 1
    commands = command_of(PROGRAM, read_table(table_file(), _table))
    completer = kind(commands, {}, PROGRAM, VARIABLE)
    # click's bash class would ask which version bash has; that was asked when the script was made.
    click.echo(completer.complete())
    return 0


def _table() -> dict[str, Any]:
    from harness.cli.main import cli

    return table_of(cli)


def script_for(shell: str) -> str:
    """The shell's part, as click has it.

    Raises:
        KeyError: no such shell.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise KeyError(shell)
    completer = kind(click.Group(PROGRAM), {}, PROGRAM, VARIABLE)
    return completer.source_template % completer.source_vars()


def command_of(name: str, table: Mapping[str, Any]) -> click.Command:
    """A command that takes what the table says, and does nothing."""
    params = [_parameter(each) for each in table["params"]]
    if "commands" not in table:
        return click.Command(name, params=params, help=table["help"], add_help_option=False)
    below = {each: command_of(each, found) for each, found in table["commands"].items()}
    return click.Group(name, commands=below, params=params, help=table["help"], add_help_option=False)


def _parameter(row: Mapping[str, Any]) -> click.Parameter:
    words = row["words"] or {}
    kind: click.ParamType[Any] | None = None
    if words.get("kind") == "choice":
        kind = click.Choice(words["choices"])
    elif words.get("kind") == "path":
        kind = click.Path(file_okay=words["files"])
    shared: dict[str, Any] = {"type": kind, "nargs": row["nargs"]}
    if words.get("kind") == "board":
        with_tags = words["tags"]
        shared["shell_complete"] = lambda context, _param, begun: _boards(context, begun, tags=with_tags)
    if "opts" not in row:
        return click.Argument([row["name"]], required=False, **shared)
    if row["flag"] or row["count"]:
        shared = {"is_flag": row["flag"], "count": row["count"]}
    return click.Option([row["name"], *row["opts"]], help=row["help"], multiple=row["multiple"], **shared)


def _boards(context: click.Context, begun: str, *, tags: bool) -> list[CompletionItem]:
    named = context.params.get("boards_file")
    words = words_in(Path(str(named) if named else DEFAULT_BOARDS).expanduser())
    return [
        CompletionItem(word.text, help=word.about)
        for word in words
        if word.text.startswith(begun) and (tags or not word.is_tag)
    ]
