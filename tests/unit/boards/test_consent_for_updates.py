"""Firmware that a board is only updated to burns its eFuses as well as what is flashed: it needs the same consent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.build.fuses_burned import APP, SelfBurn, SelfBurns
from harness.chips import chip_named
from harness.errors import RefusedError
from harness.home import Home
from harness.inventory.entry import Rfc2217Entry
from harness.preparation import Consent, Planned, carry_out_plan
from harness.provision.chip_state import unreachable_state
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.say import Say

MAC = "7c:df:a1:00:00:01"
BURNS = SelfBurns((SelfBurn(APP, "SECURE_VERSION up to 2", "when it confirms itself", Profile.DEVELOPMENT),))


def carry_out_empty_plan(home: Home, burns: SelfBurns, *, burn: frozenset[str], up_to: str | None) -> None:
    plan = Plan(
        chip_name="esp32c3",
        mac=MAC,
        profile=Profile.RELEASE,
        lock=Lock.NONE,
        state=unreachable_state(chip_named("esp32c3"), MAC),
        key_id=None,
        steps=(),
        goes_on=False,
        burns_up_to=None,
        now="release",
        remarks=(),
    )
    app: Any = None
    board: Any = SimpleNamespace(
        name="desk",
        mac=MAC,
        link=SimpleNamespace(physical=True),
        identity=SimpleNamespace(require=lambda: None, found=MAC),
    )
    fields = {"chip": "esp32c3", "link": "rfc2217", "url": "rfc2217://127.0.0.1:4000", "mac": MAC}
    entry = Rfc2217Entry.model_validate(fields | ({"burn_up_to": up_to} if up_to else {}))
    planned = Planned(plan, (), plan.state, app, burns)
    carry_out_plan(board, planned, Consent(entry, burn), home, say=Say(quiet=True))


def test_an_empty_plan_asks_for_consent_to_what_updates_will_burn(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as told:
        carry_out_empty_plan(Home(tmp_path), BURNS, burn=frozenset(), up_to=None)
    assert "SECURE_VERSION up to 2" in str(told.value)
    assert "'burn_up_to: development' in the entry of desk" in str(told.value)
    assert "'--burn desk' on this run" in str(told.value)


def test_with_that_consent_or_without_such_burns_it_does_nothing(tmp_path: Path) -> None:
    carry_out_empty_plan(Home(tmp_path), BURNS, burn=frozenset({"desk"}), up_to="development")
    carry_out_empty_plan(Home(tmp_path), SelfBurns(()), burn=frozenset(), up_to=None)
