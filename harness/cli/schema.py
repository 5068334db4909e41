"""`harness schema`: what an editor needs to check and complete boards.yaml and qualify.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from harness.inventory.schema import boards_schema, schema_text
from harness.qualify.schema import qualify_schema

SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "boards.yaml": boards_schema,
    "qualify.yaml": qualify_schema,
}


@click.command(
    epilog="Example: harness schema > boards.schema.json",
)
@click.argument("file", type=click.Choice(list(SCHEMAS)), default="boards.yaml")
def schema(file: str) -> None:
    """Print the JSON Schema of FILE (boards.yaml, qualify.yaml), for editors.

    Editors with yaml-language-server read the schema that the first line of a file names:
    # yaml-language-server: $schema=boards.schema.json
    """
    click.echo(schema_text(SCHEMAS[file]()), nl=False)
