"""What a controller of pytest-xdist and its workers must agree on before a worker collects.

A worker is started with the command line alone: what the controller has made of it, it must be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

TOLD = "harness"
"""Under this name in ``workerinput``."""

DEADLINE = "deadline"
"""When the run may be ended from outside, seconds since 1970."""
BY_BOARD = "by board"
"""Whether its controller gives out tests by board."""
CHOICE = "choice"
"""`harness.rack.choice.Choice`, with ``--rack``."""


def gives_out_by_board(config: pytest.Config) -> bool:
    """Whether tests go to workers by board, since a board has one user; the command line may say otherwise (``--dist``).

    Asked in a worker, it is what the controller decided. Without pytest-xdist: False.
    """
    if hasattr(config, "workerinput"):
        return bool(told(config).get(BY_BOARD))
    return getattr(config.option, "dist", None) in ("load", "loadgroup") and bool(config.option.tx)


def tell(node: Any, facts: Mapping[str, Any]) -> None:
    """Tells a worker that is about to start `facts`, of types that JSON has, and whether it gets tests by board."""
    before = node.workerinput.get(TOLD, {BY_BOARD: gives_out_by_board(node.config)})
    node.workerinput[TOLD] = {**before, **facts}


def told(config: pytest.Config) -> Mapping[str, Any]:
    """What this worker's controller told it; nothing in a controller, or without xdist."""
    facts: Mapping[str, Any] = getattr(config, "workerinput", {}).get(TOLD, {})
    return facts
