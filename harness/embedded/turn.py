"""How long a `dut` goes on: one test, or as long as the widest fixture that uses it. Pure, but for pytest's nodes.

pytest-embedded's `dut` is of one test: each test resets the board and begins with an empty buffer. Where a fixture of a
class or a module uses it (or is called ``dut`` itself), where a test says so, or where pytest.ini says so for all, the
board goes on over the tests of that class or module, and so does its log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from harness.errors import UsageError

SCOPES = ("function", "class", "module", "package", "session")
"""Narrowest first."""
INI = "harness_dut_scope"
MARKER = "dut_scope"
DUT = "dut"


def scope_named(word: str) -> str:
    """`word`, if it is one of pytest's scopes.

    Raises:
        UsageError: it is none.
    """
    if word not in SCOPES:
        raise UsageError(f"there is no scope '{word}' for dut", todo=f"use one of: {', '.join(SCOPES)}")
    return word


def widest(scopes: Iterable[str]) -> str:
    """The longest of `scopes`; of none, ``function``."""
    return max((scope_named(each) for each in scopes), key=SCOPES.index, default="function")


def scope_of(item: pytest.Item) -> str:
    """How long the `dut` of this test goes on.

    Raises:
        UsageError: the marker or pytest.ini names no scope.
    """
    marker = item.get_closest_marker(MARKER)
    told = [str(each) for each in (marker.args if marker is not None else ())]
    told.append(str(item.config.getini(INI) or "function"))
    info: Any = getattr(item, "_fixtureinfo", None)
    chains: dict[str, Sequence[Any]] = getattr(info, "name2fixturedefs", {})
    for name, chain in chains.items():
        using = chain if name == DUT else [each for each in chain if DUT in each.argnames]
        told += [str(each.scope) for each in using if not _is_a_plugins(each)]
    return widest(told)


def _is_a_plugins(fixture: Any) -> bool:
    """The scope of pytest-embedded's own fixtures and of ours says nothing of what the test's author wants."""
    return str(fixture.func.__module__).split(".")[0] in ("harness", "pytest_embedded")


def turn_of(item: pytest.Item) -> str:
    """Two tests with the same turn share a `dut` that goes on."""
    scope = scope_of(item)
    kinds: dict[str, type[pytest.Collector]] = {
        "class": pytest.Class,
        "module": pytest.Module,
        "package": pytest.Package,
    }
    if scope == "session":
        return "session"
    node = item.getparent(kinds[scope]) if scope in kinds else None
    # As with pytest's own fixtures: outside of a class, a test is a class of its own.
    return f"{scope} {(node or item).nodeid}"
