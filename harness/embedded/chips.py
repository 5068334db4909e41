"""For which chips a test of pytest-embedded's kind is: by its `target`, and by markers named as chips."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from harness.chips import CHIPS

_CHIP_MARKER = re.compile(r"esp32([a-z]\d+)?|linux")

ANOTHER = "another chip"
"""Stands for chips that the harness does not know."""

ALL = ("supported_targets", "preview_targets", "all_targets")
"""ESP-IDF's words for whatever it supports."""


def chips_of(item: pytest.Item | Any, option: str | None) -> frozenset[str] | None:
    """The chips that the test is for; None: it does not say.

    Args:
        option: pytest-embedded's ``--target``.
    """
    told: set[str] | None = None
    for marker in item.iter_markers("parametrize"):
        values = _values_of(marker, "target")
        if values is not None:
            told = _both(told, {chip for each in values for chip in _chips_in(each)})
    # Also those that the harness does not know: a test for them alone is for none of its boards.
    named = {marker.name for marker in item.iter_markers() if _CHIP_MARKER.fullmatch(marker.name)}
    if any(marker.name in ALL for marker in item.iter_markers()):
        named = set(CHIPS)
    if named:
        told = _both(told, named)
    if option and option != "auto":
        told = _both(told, _chips_in(option))
    return None if told is None else frozenset(told & CHIPS.keys())


def _both(told: set[str] | None, more: set[str]) -> set[str]:
    return more if told is None else told & more


def _chips_in(value: object) -> set[str]:
    words = str(value).split("|")
    return set(CHIPS) if any(word in ALL for word in words) else {w for w in words if w in CHIPS}


def _values_of(marker: pytest.Mark, wanted: str) -> list[object] | None:
    """What ``@pytest.mark.parametrize`` gives the argument `wanted`; None: it is about others."""
    names = marker.args[0] if marker.args else marker.kwargs.get("argnames", "")
    rows: Iterable[Any] = marker.args[1] if len(marker.args) > 1 else marker.kwargs.get("argvalues", ())
    listed: Sequence[str] = (
        [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    )
    if wanted not in listed:
        return None
    at = listed.index(wanted)
    found = []
    for row in rows:
        values = getattr(row, "values", row)
        # A pytest.param has a tuple of values; a dictionary's values is a method.
        values = row if callable(values) else values
        is_row = isinstance(values, (tuple, list))
        found.append(values[at] if is_row and (len(listed) > 1 or hasattr(row, "marks")) else values)
    return found


def is_for_this_chip(item: pytest.Item, chip: str) -> bool:
    """Whether the `target` that this item was parametrised with is `chip`, or there is none."""
    callspec = getattr(item, "callspec", None)
    told = callspec.params.get("target") if callspec is not None else None
    return not isinstance(told, str) or chip in _chips_in(told)
