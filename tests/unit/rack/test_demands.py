"""Which tests fit which boards, without opening one; and that nothing but a person's word moves a board."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.inventory.entry import (
    CommandEntry,
    EspEmuEntry,
    Network,
    QemuEntry,
    Rfc2217Entry,
    SerialEntry,
    TwinEntry,
)
from harness.provision.profile import Profile
from harness.rack.demands import Demands, Wishes, chips_named, fits, place_of
from harness.rack.offers import offers
from harness.scope import Scope

P = Profile
TWIN = TwinEntry(chip="esp32c3")
DESK = SerialEntry(chip="esp32c3", link="serial", mac="7c:df:a1:00:00:01", burn_up_to="release")
NEVER = SerialEntry(chip="esp32c3", link="serial", mac="7c:df:a1:00:00:01")
BURN = frozenset({"x"})


@pytest.mark.parametrize(
    ("entry", "now", "pin", "wishes", "profiles"),
    [
        # without a pin a board stays where it is
        (TWIN, None, None, Wishes(), (P.OPEN,)),
        (TWIN, P.DEVELOPMENT, None, Wishes(), (P.DEVELOPMENT,)),
        (DESK, P.RELEASE, None, Wishes(burn=BURN), (P.RELEASE,)),
        (DESK, None, None, Wishes(), (None,)),
        # --profile moves it as far as somebody agreed to
        (TWIN, None, None, Wishes((P.RELEASE, P.DEVELOPMENT)), (P.DEVELOPMENT, P.RELEASE)),
        (TWIN, P.RELEASE, None, Wishes((P.DEVELOPMENT, P.RELEASE)), (P.RELEASE,)),
        (TWIN, P.RELEASE, None, Wishes((P.DEVELOPMENT,)), ()),
        (DESK, P.OPEN, None, Wishes((P.RELEASE,)), ()),
        (DESK, P.OPEN, None, Wishes((P.RELEASE,), BURN), (P.RELEASE,)),
        (DESK, P.OPEN, None, Wishes((P.RELEASE_SBV2,), BURN), ()),
        (NEVER, P.OPEN, None, Wishes((P.RELEASE,), BURN), ()),
        (NEVER, P.RELEASE, None, Wishes((P.RELEASE,)), (P.RELEASE,)),
        (DESK, None, None, Wishes((P.RELEASE,)), (P.RELEASE,)),
        # a pin: a blank board goes there with consent, any other is where it is or takes no part
        (TWIN, None, P.RELEASE, Wishes(), (P.RELEASE,)),
        (TWIN, P.RELEASE, P.RELEASE, Wishes(), (P.RELEASE,)),
        (TWIN, P.DEVELOPMENT, P.RELEASE, Wishes(), ()),
        (TWIN, P.RELEASE, P.DEVELOPMENT, Wishes(), ()),
        (TWIN, P.RELEASE, P.RELEASE, Wishes((P.DEVELOPMENT,)), ()),
        (DESK, P.OPEN, P.RELEASE, Wishes(), ()),
        (DESK, P.OPEN, P.RELEASE, Wishes(burn=BURN), (P.RELEASE,)),
        (NEVER, P.OPEN, P.RELEASE, Wishes(burn=BURN), ()),
        (DESK, P.DEVELOPMENT, P.RELEASE, Wishes(burn=BURN), ()),
        (DESK, None, P.RELEASE, Wishes(), (P.RELEASE,)),
    ],
)
def test_a_board_takes_part_in_what_it_is_or_what_somebody_agreed_to(
    entry: TwinEntry | SerialEntry,
    now: Profile | None,
    pin: Profile | None,
    wishes: Wishes,
    profiles: tuple[Profile | None, ...],
) -> None:
    place = place_of("x", entry, now, frozenset(), wishes, pin=pin)
    assert place.profiles == profiles
    assert (place.refusal is None) is bool(profiles)
    if place.refusal is not None:
        assert "board x" in place.refusal.text


def test_a_board_that_a_person_moved_away_from_its_pin_says_so() -> None:
    refusal = place_of("x", TWIN, P.RELEASE, frozenset(), Wishes(), pin=P.DEVELOPMENT).refusal
    assert refusal is not None
    assert refusal.text.startswith("board x is in release, its entry pins development: somebody moved it")


SECURE_BOOT_ONLY = Scope((P.RELEASE,), secure_boot=True)


@pytest.mark.parametrize(
    ("demands", "misfit"),
    [
        (Demands(), None),
        (Demands(Scope((P.RELEASE,))), None),
        (Demands(Scope((P.OPEN,), (P.RELEASE,))), None),
        (Demands(Scope((P.OPEN,))), "profile"),
        (Demands(SECURE_BOOT_ONLY), "profile"),
        (Demands(needs=("power",)), None),
        (Demands(needs=("power", "telepathy")), "capability telepathy"),
        # only the firmware that it gets will tell
        (Demands(needs=("anti-rollback",)), None),
        (Demands(chips=("esp32", "esp32c3")), None),
        (Demands(chips=("esp32",)), "chip"),
    ],
)
def test_a_test_fits_a_board_that_gives_all_it_demands(demands: Demands, misfit: str | None) -> None:
    place = place_of("x", TWIN, P.RELEASE, offers("x", TWIN, ()), Wishes(), pin=None)
    profiles, why = fits(place, demands)
    assert (why.demand if why is not None else None) == misfit
    assert profiles == ((P.RELEASE,) if misfit is None else ())


def test_a_chip_is_named_as_people_write_it_and_a_wrong_one_is_refused() -> None:
    assert chips_named(["ESP32-C3", "esp32"]) == ("esp32c3", "esp32")
    with pytest.raises(UsageError, match="'esp99' is not supported"):
        chips_named(["esp99"])


WIFI = Network(ssid="lab")
SWITCH = CommandEntry(by="command", off=["off"], on=["on"])


@pytest.mark.parametrize(
    ("entry", "burn", "there", "missing"),
    [
        (TWIN, (), {"power", "network", "burnable", "uart-download", "flash-log"}, set()),
        (QemuEntry(chip="esp32c3", link="qemu"), (), {"power", "network", "burnable"}, {"flash-log"}),
        (EspEmuEntry(chip="esp32c3", link="espemu"), (), {"power", "burnable"}, {"network"}),
        (DESK, (), {"uart-download"}, {"power", "network", "burnable"}),
        (DESK, ("x",), {"burnable"}, {"power"}),
        (NEVER, ("x",), {"uart-download"}, {"burnable"}),
        (DESK.model_copy(update={"power": SWITCH, "network": WIFI}), (), {"power", "network"}, {"burnable"}),
        (
            Rfc2217Entry(chip="esp32", link="rfc2217", url="rfc2217://pi:4000"),
            (),
            {"uart-download"},
            {"power"},
        ),
    ],
    ids=lambda value: getattr(value, "link", None),
)
def test_what_a_board_offers_shows_in_its_entry(
    entry: TwinEntry, burn: tuple[str, ...], there: set[str], missing: set[str]
) -> None:
    found = offers("x", entry, burn)
    assert found >= there
    assert not found & missing
