"""Which boards of a rack take part, in what order, and what of that workers are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.rack.choice import Choice, choose
from harness.rack.demands import Wishes
from harness.rack.health import HealthBook

RACK = Inventory(
    None,
    {
        "a": TwinEntry(chip="esp32c3"),
        "b": TwinEntry(chip="esp32c3", profile="release", tags=["nightly"]),
        "c": TwinEntry(chip="esp32", tags=["nightly"]),
        "d": TwinEntry(chip="esp32", profile="development"),
    },
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def record(home: Home, name: str, profile: Profile, lock: Lock = Lock.NONE) -> None:
    """The twin `name` was provisioned."""
    fields = {"key_id": None, "key_state": None, "key_block": None, "fuses": {}, "flashed": {}}
    DeviceRecords(home.twin(name) / "devices").write(
        DeviceRecord(
            "7c:df:a1:00:00:01",
            "esp32c3",
            profile,
            lock,
            **fields,
            plan_id="p",
            updated="2026-11-26T12:00:00Z",
        )
    )


def test_a_retired_board_is_none_of_the_rack_unless_it_is_named_itself(home: Home) -> None:
    book = HealthBook(home)
    book.retire("b", "worn", None)

    def chosen(*names: str) -> set[str]:
        return {place.name for place in choose(home, RACK, names, Wishes()).places}

    assert chosen() == {"a", "c", "d"}
    assert chosen("nightly") == {"c"}
    assert chosen("b") == {"b"}
    assert not choose(home, RACK, (), Wishes()).broken, "nothing is wrong with it"
    book.mend("b")
    assert chosen() == {"a", "c", "d"}, "to mend is not to take back"
    book.take_back("b")
    assert chosen() == {"a", "b", "c", "d"}


def test_healthy_boards_come_first_then_the_one_that_was_not_used_for_longest(home: Home) -> None:
    book = HealthBook(home)
    for seconds, name in enumerate(["c", "a", "b"]):
        book.used(name)
        os.utime(home.root / "health" / f"{name}.used", (seconds + 1, seconds + 1))
    book.latch("d", "no boot", None)
    choice = choose(home, RACK, (), Wishes())
    assert [place.name for place in choice.places] == ["c", "a", "b", "d"]
    assert list(choice.broken) == ["d"]
    assert choice.workers == 3
    assert choice.rank("b") == 2


@pytest.mark.parametrize(
    ("names", "chips", "found"),
    [
        ((), (), "abcd"),
        (("nightly",), (), "bc"),
        (("a", "nightly"), (), "abc"),
        ((), ("esp32",), "cd"),
        (("nightly",), ("esp32",), "c"),
        ((), ("esp32s3",), ""),
    ],
)
def test_names_tags_and_chips_narrow_the_rack(
    home: Home, names: tuple[str, ...], chips: tuple[str, ...], found: str
) -> None:
    assert sorted(place.name for place in choose(home, RACK, names, Wishes(), chips).places) == list(found)


def test_a_name_that_there_is_not_is_refused(home: Home) -> None:
    with pytest.raises(UsageError, match="there is no board 'x'"):
        choose(home, RACK, ("x",), Wishes())


def test_what_a_board_is_shows_in_its_record(home: Home) -> None:
    record(home, "a", Profile.RELEASE, Lock.DOWNLOAD_OFF)
    record(home, "d", Profile.RELEASE)
    places = {place.name: place for place in choose(home, RACK, (), Wishes()).places}
    assert places["a"].profiles == (Profile.RELEASE,)
    assert "uart-download" not in places["a"].offers
    assert "uart-download" in places["b"].offers
    assert places["b"].profiles == (Profile.RELEASE,)
    assert places["c"].profiles == (Profile.OPEN,)
    assert places["d"].profiles == ()
    assert places["d"].refusal is not None
    assert "somebody moved it" in places["d"].refusal.text


def test_a_worker_is_told_all_of_it(home: Home) -> None:
    record(home, "d", Profile.RELEASE)
    HealthBook(home).latch("c", "no boot", None)
    choice = choose(home, RACK, (), Wishes())
    assert Choice.from_fields(json.loads(json.dumps(choice.to_fields()))) == choice
