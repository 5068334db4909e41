"""What the record of a run calls a pytest item and its board, and the command that runs it again."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

import pytest

from harness.inventory.entry import PhysicalEntry
from harness.rack.spread import LOAD, share_id
from harness.rack.target import Target
from harness.report.run_record import BoardRecord


def node_id(item: pytest.Item) -> str:
    """As without xdist, which adds the group to it."""
    marker = item.get_closest_marker("xdist_group")
    group = (marker.args[0] if marker.args else marker.kwargs.get("name", "default")) if marker else None
    return item.nodeid.removesuffix(f"@{group}") if group else item.nodeid


def plain_name(item: pytest.Item) -> str:
    """For a person: in words, without board and profile, which stand beside it."""
    target = target_of(item)
    function, bracket, parameters = item.name.partition("[")
    words = function.removeprefix("test_").replace("_", " ")
    if target is not None:
        named = re.escape(_id_in_name(item, target))
        form = rf"(?<![^-]){named}-|-{named}(?=[-\]])|^{named}(?=\])"
        parameters = re.sub(form, "", parameters, count=1)
    return f"{words} [{parameters}" if bracket and parameters.strip("]") else words


def target_of(item: pytest.Item) -> Any:
    """Board and profile that it is parametrised with (`harness.rack.target.Target`); None without."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("_target") if callspec is not None else None


def _id_in_name(item: pytest.Item, target: Target) -> str:
    """How the id of a test names its board and profile in this run."""
    spread = item.config.getoption("--rack-dist") == LOAD and not target.throwaway
    return share_id(target) if spread else target.id


def board_name(item: pytest.Item) -> str | None:
    """Of the board that a test would have had."""
    target = target_of(item)
    return None if target is None else str(target.id if target.throwaway else target.name)


def profile_of_item(item: pytest.Item) -> str | None:
    """The profile that it is parametrised with; None: whatever its board is in."""
    target = target_of(item)
    return target.profile.value if target is not None and target.profile is not None else None


def repeat_line(item: pytest.Item) -> str:
    """`repeat_command`, quoted for a POSIX shell."""
    return shlex.join(repeat_command(item))


def repeat_command(item: pytest.Item) -> Sequence[str]:
    """The words of the command that runs `item` again, from where pytest was started."""
    config, target = item.config, target_of(item)
    # Not the path of its id: that is empty for a file outside of pytest's root folder.
    _path, colons, rest = node_id(item).partition("::")
    here = os.path.relpath(item.path, config.invocation_params.dir)
    if target is not None:
        # A run on one board has its name in the ids of tests.
        function, bracket, parameters = rest.partition("[")
        named = rf"(?<![^-]){re.escape(_id_in_name(item, target))}(?=[-\]])"
        rest = function + bracket + re.sub(named, lambda _: target.id, parameters, count=1)
    words = ["pytest", f"{here}{colons}{rest}"]
    if target is not None:
        if not target.throwaway:
            words += ["--board", target.name]
        elif target.name == f"twin-{target.entry.chip}":
            words += ["--chip", target.entry.chip]
        if target.profile is not None:
            words += ["--profile", target.profile.value]
    for option, value in (("--rootdir", config.option.rootdir), ("-c", config.option.inifilename)):
        if value:
            words += [option, str(value)]
    for name in config.option.plugins or ():
        if not name.startswith("no:"):
            words += ["-p", name]
    for option in ("--boards", "--idf", "--vault-key-file"):
        if config.getoption(option):
            words += [option, str(config.getoption(option))]
    for option in ("--app", "--fragment", "--burn", "--consume", "--accept-unknown-burns"):
        for value in config.getoption(option):
            words += [option, str(value)]
    return words


def entry_facts(target: Target, problem: str | None) -> BoardRecord:
    """What is known of a board that was not opened: what its entry says, and why it was not."""
    entry = target.entry
    physical = isinstance(entry, PhysicalEntry)
    return BoardRecord(
        name=target.id if target.throwaway else target.name,
        link=entry.link,
        chip=entry.chip,
        virtual=not physical,
        mac=entry.mac if physical else None,
        profile=target.profile.value if target.profile is not None else None,
        problem=problem,
    )
