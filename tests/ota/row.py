"""What every row of a scenario table has besides its own columns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    source: tuple[str, ...] = ()
    """Public cases that it comes from; they end up in the JUnit report."""
    full: bool = False
    """Only with ``--full``: another row of the default subset takes the same way through the code."""
    needs: tuple[str, ...] = ()
    """What the board's link must be able to do."""


def rows(table: Iterable[Any]) -> list[Any]:
    """The parameters for ``pytest.mark.parametrize``; a row's name is its id."""
    parameters = []
    for row in table:
        marks = [pytest.mark.source(*row.source)] if row.source else []
        marks += [pytest.mark.needs(*row.needs)] if row.needs else []
        marks += [pytest.mark.full] if row.full else []
        parameters.append(pytest.param(row, id=row.name, marks=marks))
    return parameters
