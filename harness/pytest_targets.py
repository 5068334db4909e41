"""On which boards, or throwaway twins, and in which profiles a test runs that is not given out over a rack."""

from __future__ import annotations

import pytest

from harness.chips import CHIPS, TWINS
from harness.inventory.entry import AnyEntry, PhysicalEntry, SecureBoot, TwinEntry
from harness.inventory.inventory import Inventory
from harness.provision.profile import Profile
from harness.rack.demands import Demands
from harness.rack.registration import twin_chip
from harness.rack.target import Target
from harness.scope import profile_named

DEFAULT_CHIP = "esp32c3"


def targets_of(config: pytest.Config, inventory: Inventory, demands: Demands, *, full: bool) -> list[Target]:
    """Boards times profiles for one test."""
    scope, for_chips = demands.scope, demands.chips
    only = [profile_named(word) for word in config.getoption("--profile")]
    wanted = scope.chosen(only, full=full)
    names = config.getoption("--board")
    if names:
        # A board that stays goes from profile to profile, and no way leads back.
        wanted = tuple(sorted(wanted, key=lambda profile: profile.distance))
        chosen = inventory.select(names)
        burn = config.getoption("--burn")
        return [
            Target(name, entry, profile, throwaway=False)
            for name, entry in chosen.items()
            if not for_chips or entry.chip in for_chips
            for profile in _profiles_on(entry, wanted, stays=not only and name not in burn)
        ]
    twins: dict[str, TwinEntry] = inventory.twins()
    chips = [twin_chip(word) for word in config.getoption("--chip")]
    if not chips and for_chips and not any(entry.chip in for_chips for entry in twins.values()):
        # A test that names its chips needs no --chip.
        chips = [chip for chip in TWINS if chip in for_chips]
        chips = [DEFAULT_CHIP] if DEFAULT_CHIP in chips else chips
    if chips or not twins:
        twins = {_twin_name(chip): _twin(chip) for chip in chips or [DEFAULT_CHIP]}
    if full and not chips:
        there = {entry.chip for entry in twins.values()}
        twins |= {_twin_name(chip): _twin(chip) for chip in TWINS if chip not in there}
    if for_chips:
        twins = {name: entry for name, entry in twins.items() if entry.chip in for_chips}
    return [Target(n, e, p, throwaway=True) for n, e in twins.items() for p in wanted]


def _profiles_on(entry: AnyEntry, wanted: tuple[Profile, ...], *, stays: bool) -> tuple[Profile | None, ...]:
    """Those in which a test runs on a board that it names: its pinned one alone; a physical one stays where it is."""
    if entry.profile is not None:
        return (Profile(entry.profile),)
    return (None,) if isinstance(entry, PhysicalEntry) and stays else wanted


def _twin_name(chip: str) -> str:
    return f"twin-{chip}"


def _twin(chip: str) -> TwinEntry:
    """With secure boot it knows two keys, where the chip has room for them: then one can be revoked."""
    keys = ["vault"] * min(2, CHIPS[chip].secure_boot.digest_slots)
    return TwinEntry(chip=chip, secure_boot=SecureBoot(keys=keys))
