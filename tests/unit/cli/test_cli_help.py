"""What the command line says of itself."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.testing import CliRunner

from harness.cli.main import cli


def commands(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            each = command.get_command(context, name)
            assert each is not None
            yield from commands(each, (*path, name))


def test_every_help_has_whole_sentences_on_eighty_columns_and_an_example() -> None:
    runner = CliRunner()
    for path in commands():
        told = runner.invoke(cli, [*path, "--help"], prog_name="harness", terminal_width=80).output
        name = " ".join(["harness", *path])
        _, _, listed = told.partition("\nCommands:")
        assert "..." not in listed.replace("[ARGS]...", ""), f"{name}: a sentence is cut"
        is_group = bool(listed)
        assert is_group or told.count(name) > 1 or f"$({name}" in told, f"{name}: no example"
