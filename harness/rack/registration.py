"""From pytest's command line to the plugins of a run on boards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.chips import CHIPS, TWINS
from harness.embedded.chips import ANOTHER, chips_of
from harness.errors import UsageError
from harness.home import Home
from harness.inventory.inventory import Inventory, read_inventory
from harness.rack import workers
from harness.rack.choice import Choice, choose
from harness.rack.demands import Demands, Wishes, chips_named
from harness.rack.lease import holder_of
from harness.rack.run import LEASE_WAIT_S, BoardRun
from harness.rack.spread import LOAD
from harness.rack.turn import Turns, WorkerTurns
from harness.scope import Scope, profile_named

_INVENTORY = pytest.StashKey[Inventory]()
_CHOICE = pytest.StashKey[Choice]()


def inventory_of(config: pytest.Config) -> Inventory:
    """The boards.yaml of ``--boards``, or that of the root folder; read once, it takes tenths of a second.

    Raises:
        UsageError: it is wrong.
    """
    if _INVENTORY not in config.stash:
        named = config.getoption("--boards")
        config.stash[_INVENTORY] = read_inventory(Path(named) if named else None, folder=config.rootpath)
    return config.stash[_INVENTORY]


def demands_of(item: pytest.Item) -> Demands:
    """What a test demands, by its markers.

    Raises:
        UsageError: a profile or a chip that there is not.
    """
    profiles, needs, chips = (item.get_closest_marker(name) for name in ("profiles", "needs", "chips"))
    return Demands(
        Scope.of_marker(profiles.args, profiles.kwargs) if profiles is not None else Scope(),
        tuple(str(word) for word in needs.args) if needs is not None else (),
        chips_named(chips.args) if chips is not None else embedded_chips(item),
    )


def embedded_chips(item: pytest.Item) -> tuple[str, ...]:
    """The chips of a test in pytest-embedded's manner (`target`, markers named as chips); none: every chip."""
    chips = chips_of(item, item.config.getoption("target", None))
    if chips is None:
        return ()
    return tuple(chip for chip in CHIPS if chip in chips) or (ANOTHER,)


def twin_chip(word: str) -> str:
    """The chip that ``--chip`` names, for a throwaway twin.

    Raises:
        UsageError: it has no twin.
    """
    name = word.lower().replace("-", "")
    if name not in TWINS:
        problem = "has no twin" if name in CHIPS else "is not supported"
        raise UsageError(f"chip '{word}' {problem}", todo=f"use one of: {', '.join(TWINS)}")
    return name


def choice_of(config: pytest.Config) -> Choice | None:
    """The boards of this run, with ``--rack``: chosen once, and handed to the workers.

    Raises:
        UsageError: the command line or boards.yaml is wrong.
    """
    if not config.getoption("--rack"):
        return None
    told = workers.told(config).get(workers.CHOICE)
    if _CHOICE not in config.stash:
        config.stash[_CHOICE] = Choice.from_fields(told) if told is not None else _chosen(config)
    return config.stash[_CHOICE]


def _chosen(config: pytest.Config) -> Choice:
    inventory = inventory_of(config)
    only = tuple(profile_named(word) for word in config.getoption("--profile"))
    wishes = Wishes(only, frozenset(config.getoption("--burn")))
    chips = chips_named(config.getoption("--chip"))
    home = Home.of_user()
    choice = choose(home, inventory, config.getoption("--board"), wishes, chips)
    if config.getoption("--rack-dist") == LOAD:
        entries = {place.name: inventory.boards[place.name] for place in choice.places}
        held = (
            name for name, entry in entries.items() if holder_of(name, entry, inventory, home) is not None
        )
        choice = replace(choice, held=frozenset(held))
    if not choice.places:
        of = f" of {' or '.join(chips)}" if chips and inventory.boards else ""
        raise UsageError(
            f"--rack: there is no board{of} in {inventory.path or 'boards.yaml, which is not here'}",
            todo="name your boards there (harness init), or give the right file with --boards FILE",
        )
    return choice


def check_rack_options(config: pytest.Config) -> None:
    """What ``--rack`` and ``--lease-wait`` say.

    Raises:
        UsageError: they are wrong.
    """
    _lease_wait_s(config)
    choice_of(config)
    if not config.getoption("--rack"):
        _check_pins(config)
    if not config.getoption("--rack"):
        for option, value in (("--rack-strict", True), ("--rack-dist", LOAD)):
            if config.getoption(option) == value:
                raise UsageError(f"{option} is for runs over the rack", todo="say --rack, too")
    if not config.getoption("--rack") or hasattr(config, "workerinput"):
        return
    dist = getattr(config.option, "dist", "no")
    if dist not in ("no", "load", "loadgroup"):
        raise UsageError(f"--rack gives out tests by board, --dist {dist} does not", todo="leave --dist out")


def _check_pins(config: pytest.Config) -> None:
    """A board that is named is brought into no other profile than its entry pins. A rack chooses among the others."""
    only = [profile_named(word).value for word in config.getoption("--profile")]
    named = config.getoption("--board")
    for name, entry in inventory_of(config).select(named).items() if named and only else ():
        if entry.profile is not None and only != [entry.profile]:
            raise UsageError(
                f"--profile {', '.join(only)}: the entry of board {name} pins profile {entry.profile}",
                todo="leave --profile out, name another board, or change 'profile:' in its entry",
            )


def _lease_wait_s(config: pytest.Config) -> float:
    said = config.getoption("--lease-wait")
    if said is None:
        return LEASE_WAIT_S if config.getoption("--rack") else 0.0
    try:
        seconds = float(said)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"--lease-wait is '{said}', not a number of seconds", todo="write --lease-wait 600")
    return seconds


def register_run(config: pytest.Config) -> BoardRun:
    """Registers what this process needs to run tests on boards."""
    waits = config.getoption("--rack") or config.getoption("--lease-wait") is not None
    home = Home.of_user()

    def held_by(name: str) -> str | None:
        if not waits:
            return None
        inventory = inventory_of(config)
        lease = holder_of(name, inventory.boards[name], inventory, home)
        return lease.text() if lease is not None else None

    supplied, is_worker = workers.gives_out_by_board(config), hasattr(config, "workerinput")
    lease_wait_s, choice = _lease_wait_s(config), choice_of(config)
    broken = choice.broken if choice is not None else {}
    turns: Turns
    if supplied and is_worker:
        turns = WorkerTurns(held_by, lease_wait_s=lease_wait_s, is_skipped=broken.__contains__)
    else:
        # A worker of another scheduler of xdist cannot put anything off.
        turns = Turns(
            (lambda _: None) if is_worker else held_by,
            lease_wait_s=lease_wait_s,
            is_skipped=broken.__contains__,
        )
    run = BoardRun(config, choice, held_by, lease_wait_s, supplied, turns)
    config.pluginmanager.register(run, "harness-board-run")
    config.pluginmanager.register(turns, "harness-turns")
    return run
