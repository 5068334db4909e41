"""Which boards of the rack take part in a run, and in what order: decided once, where the run begins.

Workers of pytest-xdist are told, since health, records and leases change from moment to moment, and all workers must
collect the same tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import HarnessError
from harness.home import Home
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.inventory.inventory import Inventory
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.rack.demands import Misfit, Place, Wishes, place_of
from harness.rack.health import HealthBook, order
from harness.rack.offers import offers
from harness.state_folder import state_folder


@dataclass(frozen=True, slots=True)
class Choice:
    """The boards of one run, in the order in which they are to be taken."""

    places: tuple[Place, ...]
    broken: Mapping[str, str]
    """Boards that are latched broken, and the sentence that says so."""
    held: frozenset[str] = frozenset()
    """Boards that another job had when the run began; asked only where tests are spread over boards."""

    @property
    def passed_over(self) -> frozenset[str]:
        """Boards that get no test where another one can have it."""
        return self.held | frozenset(self.broken)

    @property
    def workers(self) -> int:
        """How many workers can be of use: one for each board that is not known to be of none."""
        able = [each for each in self.places if each.refusal is None and each.name not in self.broken]
        return max(1, len(able))

    def rank(self, name: str) -> int:
        """The place of a board in the order of choice, from 0."""
        return next((n for n, place in enumerate(self.places) if place.name == name), len(self.places))

    def to_fields(self) -> dict[str, Any]:
        """For a worker."""
        return {
            "places": [_place_fields(place) for place in self.places],
            "broken": dict(self.broken),
            "held": sorted(self.held),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Choice:
        return cls(
            tuple(_place(each) for each in fields["places"]),
            dict(fields["broken"]),
            frozenset(fields["held"]),
        )


def choose(
    home: Home, inventory: Inventory, names: Sequence[str], wishes: Wishes, chips: Sequence[str] = ()
) -> Choice:
    """The boards called `names` (names or tags; none: all) of these `chips` (none: all).

    Retired ones are none of the rack, unless somebody names them themselves, not a tag. Healthy ones come first, then
    those that were not used for longest.

    Raises:
        UsageError: there is no such board.
    """
    chosen = inventory.select(names) if names else dict(inventory.boards)
    chosen = {name: entry for name, entry in chosen.items() if not chips or entry.chip in chips}
    book = HealthBook(home)
    chosen = {name: entry for name, entry in chosen.items() if name in names or book.of(name).retired is None}
    places, broken = [], {}
    for name in order(chosen, book):
        entry = chosen[name]
        record = record_of(home, inventory, name, entry)
        offered = offers(name, entry, wishes.burn)
        if record is not None and record.lock is Lock.DOWNLOAD_OFF:
            offered -= {"uart-download"}
        now = record.profile if record is not None else None
        places.append(place_of(name, entry, now, offered, wishes, pin=pin_of(entry)))
        health = book.of(name)
        if health.broken is not None:
            broken[name] = health.text()
    return Choice(tuple(places), broken)


def pin_of(entry: AnyEntry) -> Profile | None:
    """The profile that the entry says the board is to be in."""
    return Profile(entry.profile) if entry.profile is not None else None


def record_of(home: Home, inventory: Inventory, name: str, entry: AnyEntry) -> DeviceRecord | None:
    """What is known of the board without opening it; None: nothing, or which chip it is shows only then."""
    try:
        if isinstance(entry, PhysicalEntry):
            return DeviceRecords(home.root / "devices").read(entry.mac) if entry.mac is not None else None
        records = DeviceRecords(state_folder(home, inventory.path, name, entry) / "devices").all()
    except HarnessError:
        # A damaged record is for whoever opens the board to tell.
        return None
    return records[0] if len(records) == 1 else None


def _place_fields(place: Place) -> dict[str, Any]:
    refusal = place.refusal
    return {
        "name": place.name,
        "chip": place.chip,
        "profiles": [None if profile is None else profile.value for profile in place.profiles],
        "offers": sorted(place.offers),
        "refusal": None if refusal is None else [refusal.demand, refusal.text, refusal.is_wrong],
    }


def _place(fields: Mapping[str, Any]) -> Place:
    refusal = fields["refusal"]
    return Place(
        fields["name"],
        fields["chip"],
        tuple(None if word is None else Profile(word) for word in fields["profiles"]),
        frozenset(fields["offers"]),
        None if refusal is None else Misfit(*refusal),
    )
