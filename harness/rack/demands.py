"""What a test demands of a board, and whether a board of the rack can give it. Pure: no board is opened."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from harness.chips import CHIPS
from harness.errors import UsageError
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.provision.profile import Profile
from harness.rack.offers import LEFT_TO_THE_RUN
from harness.scope import Scope


@dataclass(frozen=True, slots=True)
class Demands:
    """What one test demands, by its markers."""

    scope: Scope = field(default_factory=Scope)
    """``profiles``"""
    needs: tuple[str, ...] = ()
    """``needs``: capabilities."""
    chips: tuple[str, ...] = ()
    """``chips``; none: every chip."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a board and a test do not go together."""

    demand: str
    """Which demand fails, in a word or two: ``chip``, ``profile``, ``capability power``."""
    text: str
    """A sentence that names the board."""
    is_wrong: bool = False
    """The board is not what its entry says; else it only was not asked for."""


@dataclass(frozen=True, slots=True)
class Place:
    """How a board of the rack takes part in a run: in which profiles, and what it can do."""

    name: str
    chip: str
    profiles: tuple[Profile | None, ...]
    """Nearest first. None: in the one that it is in, whichever that is."""
    offers: frozenset[str]
    refusal: Misfit | None = None
    """Why it takes part in none."""


def chips_named(names: Sequence[object]) -> tuple[str, ...]:
    """The chips of ``@pytest.mark.chips(*names)``.

    Raises:
        UsageError: one is not supported.
    """
    found = []
    for each in names:
        name = str(each).lower().replace("-", "")
        if name not in CHIPS:
            raise UsageError(
                f"@pytest.mark.chips: chip '{each}' is not supported", todo=f"use one of: {', '.join(CHIPS)}"
            )
        found.append(name)
    return tuple(found)


def fits(place: Place, demands: Demands) -> tuple[tuple[Profile | None, ...], Misfit | None]:
    """The profiles in which a test runs on a board; when there are none, why."""
    if demands.chips and place.chip not in demands.chips:
        return (), Misfit(
            "chip", f"board {place.name} is an {place.chip}, this test is for {' or '.join(demands.chips)}"
        )
    for word in demands.needs:
        if word not in place.offers and word not in LEFT_TO_THE_RUN:
            return (), Misfit(f"capability {word}", f"board {place.name} has no {word}")
    if place.refusal is not None:
        return (), place.refusal
    fitting = tuple(profile for profile in place.profiles if profile is None or demands.scope.admits(profile))
    if not fitting:
        there = " and ".join(profile.value for profile in place.profiles if profile is not None)
        wanted = _wanted(demands.scope)
        return (), Misfit("profile", f"board {place.name} is for {there}, this test for {wanted}")
    return fitting, None


def _wanted(scope: Scope) -> str:
    names = [profile.value for profile in (*scope.first, *scope.more)] or ["any profile"]
    boot = {None: "", True: " with secure boot", False: " without secure boot"}[scope.secure_boot]
    return " or ".join(names) + boot


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says of profiles and consent."""

    only: tuple[Profile, ...] = ()
    """``--profile``"""
    burn: Collection[str] = field(default=frozenset())
    """``--burn``"""


def place_of(
    name: str,
    entry: AnyEntry,
    now: Profile | None,
    offered: frozenset[str],
    wishes: Wishes,
    *,
    pin: Profile | None,
) -> Place:
    """How a board takes part, given the profile it is in (`now`; None: not known before it is opened).

    Nothing moves a board but what a person wrote: a blank board goes to its pin, and any board to what ``--profile``
    says, both only with consent; a physical one needs ``--burn`` and ``burn_up_to`` for each. Else it stays.
    """
    profiles, refusal = _profiles(name, entry, now, wishes, pin)
    return Place(name, entry.chip, profiles, offered, refusal)


_Found = tuple[tuple[Profile | None, ...], Misfit | None]


def _profiles(name: str, entry: AnyEntry, now: Profile | None, wishes: Wishes, pin: Profile | None) -> _Found:
    if pin is not None:
        return _pinned(name, entry, now, wishes, pin)
    virtual = not isinstance(entry, PhysicalEntry)
    here = now if now is not None or not virtual else Profile.OPEN
    if not wishes.only:
        return (here,), None
    if here is None and name not in wishes.burn:
        # What it is in shows when it is opened; then a test for another profile is refused.
        return wishes.only, None
    reached = [
        profile
        for profile in sorted(wishes.only, key=lambda each: each.distance)
        if profile is here
        or (profile.covers(here or Profile.OPEN) and _may_burn(name, entry, wishes, profile))
    ]
    if reached:
        return tuple(reached), None
    wanted = " and ".join(profile.value for profile in wishes.only)
    assert here is not None
    backwards = not any(profile.covers(here) for profile in wishes.only)
    why = "no way leads back" if backwards else _missing_consent(name)
    return (), Misfit("profile", f"board {name} is in {here.value}, the run is for {wanted}: {why}")


def _pinned(name: str, entry: AnyEntry, now: Profile | None, wishes: Wishes, pin: Profile) -> _Found:
    if wishes.only and pin not in wishes.only:
        wanted = " and ".join(profile.value for profile in wishes.only)
        return (), Misfit(
            "pinned profile", f"board {name} is pinned to {pin.value} by its entry, the run is for {wanted}"
        )
    virtual = not isinstance(entry, PhysicalEntry)
    here = now if now is not None or not virtual else Profile.OPEN
    if here is None or here is pin:
        return (pin,), None
    if here is not Profile.OPEN:
        return (), Misfit(
            "pinned profile",
            f"board {name} is in {here.value}, its entry pins {pin.value}: somebody moved it; nothing is changed "
            "until its entry says what it is to be",
            is_wrong=True,
        )
    if not _may_burn(name, entry, wishes, pin):
        return (), Misfit(
            "pinned profile",
            f"board {name} is blank, its entry pins {pin.value}: {_missing_consent(name)}",
            is_wrong=True,
        )
    return (pin,), None


def _may_burn(name: str, entry: AnyEntry, wishes: Wishes, profile: Profile) -> bool:
    if not isinstance(entry, PhysicalEntry):
        return True
    allowed = entry.burn_up_to
    return name in wishes.burn and allowed is not None and Profile(allowed).covers(profile)


def _missing_consent(name: str) -> str:
    return f"burning needs --burn {name} and burn_up_to in its entry"
