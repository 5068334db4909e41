"""A group of commands each of which is imported when it is run: all of them together would take a second."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from harness.interruption import Interrupted

PACKAGE = "harness.cli"


class LazyGroup(click.Group):
    """click's group, which knows of a command where it is and what a list says of it, until it is asked for.

    Args:
        places: by a command's name, ``module:function`` in `PACKAGE` and its line in the list.
    """

    def __init__(self, *args: Any, places: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.places = places
        # Stand-ins: click looks among them for what somebody may have meant.
        self.commands = {
            name: click.Command(name, short_help=short_help) for name, (_, short_help) in places.items()
        }

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Imports it."""
        if cmd_name not in self.places:
            return None
        place, short_help = self.places[cmd_name]
        module, _, function = place.partition(":")
        try:
            command: click.Command = getattr(import_module(f"{PACKAGE}.{module}"), function)
        except Interrupted as interrupted:
            interrupted.where = "before anything began"
            raise
        command.short_help = short_help
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """The list in ``--help``, for which click would ask each command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in sorted(self.places.items())])
