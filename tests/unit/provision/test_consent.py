"""Nothing irreversible happens to a physical board without consent that names it, three times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuse_bench import MAC, Bench

from harness.chips import ESP32, ESP32C3
from harness.errors import RefusedError, UsageError
from harness.provision import FlashRegion, Lock, Plan, Profile, check_consent
from harness.provision.device_record import RAW_UPDATE_BACK, RAW_UPDATE_THERE, ROLLBACK

OTHER = "02:00:00:aa:bb:99"


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    def bench(name: str) -> Bench:
        return Bench(ESP32C3, Path(tmp_path_factory.mktemp(name)))

    burning = FlashRegion("app", 0x20000, b"self-encrypting app", burns_up_to=Profile.DEVELOPMENT)
    return {
        "open": bench("a").plan(Profile.OPEN),
        "development": bench("b").plan(Profile.DEVELOPMENT),
        "release": bench("c").plan(Profile.RELEASE),
        "open, but the app burns": bench("d").plan(Profile.OPEN, regions=(burning,)),
    }


def consent(plan: Plan, **changes: Any) -> bool:
    """True when it goes ahead; a refusal raises."""
    given: dict[str, Any] = {
        "board_name": "desk-c3",
        "physical": True,
        "mac_declared": MAC,
        "mac_found": MAC,
        "burn_up_to": "release",
        "burn_names": ("desk-c3",),
        "plan": plan,
    }
    check_consent(**{**given, **changes})
    return True


@pytest.mark.parametrize("name", ["open", "development", "release", "open, but the app burns"])
def test_with_all_three_it_goes_ahead(plans, name):
    assert consent(plans[name])
    assert consent(plans[name], mac_declared=MAC.upper().replace(":", "-"))


def test_switching_download_off_wants_proof_on_that_very_board_and_says_what_is_missing(tmp_path):
    here = Bench(ESP32C3, tmp_path)
    here.run(Profile.RELEASE, Lock.NONE)
    plan = here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF)
    with pytest.raises(RefusedError) as refusal:
        consent(plan, record=here.records.read(MAC))
    for what in ("a raw update to the other slot", "a raw update back", "a rollback"):
        assert f"- {what} that passed on this very board" in str(refusal.value)
    for what in (RAW_UPDATE_THERE, RAW_UPDATE_BACK, ROLLBACK):
        with pytest.raises(RefusedError):
            consent(plan, record=here.records.read(MAC))
        here.records.note_proof(MAC, what, version="1.1.0", when="2025-01-01T00:00:00+00:00")
    assert consent(plan, record=here.records.read(MAC))
    with pytest.raises(RefusedError, match="a rollback"):
        consent(plan)


def test_consent_to_release_is_none_to_secure_boot(tmp_path):
    plan = Bench(ESP32C3, tmp_path).plan(Profile.DEVELOPMENT_SBV2)
    with pytest.raises(RefusedError, match=r"burn_up_to: development\+sbv2"):
        consent(plan)
    assert consent(plan, burn_up_to="development+sbv2")
    assert consent(plan, burn_up_to="release+sbv2")


def test_a_virtual_board_needs_none(plans):
    assert consent(plans["release"], physical=False, mac_declared=None, burn_up_to=None, burn_names=())


def test_an_open_board_may_be_flashed_without_consent_to_burn(plans):
    assert consent(plans["open"], burn_up_to=None, burn_names=())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mac_declared": None}, f'add to its entry:  mac: "{MAC}"'),
        ({"mac_declared": None, "mac_found": None}, "harness doctor --probe --board desk-c3"),
        ({"mac_found": None}, f"nothing proves that this is {MAC}"),
    ],
)
def test_a_board_that_is_not_identified_is_not_even_flashed(plans, changes, said):
    with pytest.raises(RefusedError, match=r"Nothing was written") as refusal:
        consent(plans["open"], **changes)
    assert said in str(refusal.value)


@pytest.mark.parametrize("name", ["development", "release", "open, but the app burns"])
@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"mac_declared": None}, ["'mac:'"]),
        ({"burn_up_to": None}, ["'burn_up_to: ", "which means never"]),
        ({"burn_up_to": "open"}, ["'burn_up_to: ", "it says open"]),
        ({"burn_names": ()}, ["'--burn desk-c3'"]),
        ({"burn_names": ("all", "rack-1")}, ["'--burn desk-c3'"]),
        (
            {"mac_declared": None, "burn_up_to": None, "burn_names": ()},
            ["'mac:'", "'burn_up_to: ", "'--burn desk-c3'"],
        ),
        ({"mac_found": None}, ["the chip's own MAC"]),
    ],
)
def test_each_missing_consent_is_named_and_the_plan_is_printed(plans, name, changes, missing):
    with pytest.raises(RefusedError) as refusal:
        consent(plans[name], **changes)
    text = str(refusal.value)
    assert "desk-c3" in text
    assert plans[name].text() in text
    for word in missing:
        assert word in text


def test_consent_to_development_is_none_to_release(plans):
    consent(plans["development"], burn_up_to="development")
    with pytest.raises(RefusedError, match="it says development"):
        consent(plans["release"], burn_up_to="development")


@pytest.mark.parametrize("name", ["open", "release"])
def test_another_chip_than_declared_is_refused_whatever_the_plan(plans, name):
    with pytest.raises(RefusedError, match=f"boards.yaml says {OTHER}, the chip says {MAC}"):
        consent(plans[name], mac_declared=OTHER)


def test_a_plan_for_another_chip_is_refused(plans):
    with pytest.raises(RefusedError, match="the plan is for"):
        consent(plans["release"], mac_declared=None, mac_found=OTHER)


def test_an_unknown_profile_in_the_entry_is_wrong_usage(plans):
    with pytest.raises(UsageError, match="'all' is not a profile"):
        consent(plans["release"], burn_up_to="all")


def test_a_board_that_is_there_already_needs_none(tmp_path):
    bench = Bench(ESP32, tmp_path)
    bench.run(Profile.RELEASE)
    assert consent(bench.plan(Profile.RELEASE), burn_up_to=None, burn_names=())
