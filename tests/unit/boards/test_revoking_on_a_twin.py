"""A board is rotated away from a boot key in use: it runs on, takes updates, and the old key is worth nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.board import Board
from harness.build.boot_key import BootKey
from harness.build.signing import sign
from harness.errors import RefusedError
from harness.home import Home
from harness.inventory.entry import SecureBoot, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.ota import variants
from harness.preparation import Consent, Demand, make_plan, prepare
from harness.provision.consumables import Resource
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.profile import Lock, Profile
from harness.say import Say

QUIET = Say(quiet=True)
PROFILE = Profile.DEVELOPMENT_SBV2
ENTRY = TwinEntry(chip="esp32c3", secure_boot=SecureBoot(keys=["vault", "vault"]))


@pytest.fixture
def lab(tmp_path: Path, home: Home) -> Iterator[Lab]:
    with Lab(home, Inventory(None, {}), tmp_path, secret_from(None)) as lab:
        yield lab


def update_signed_by(board: Board, key: BootKey, version: str) -> str | None:
    """Which error an update has whose image this key alone has signed; None: it is taken."""
    if board.status().state == "pending":
        assert board.confirm().ok
    recipe = board.recipe(board.release(version), board.slot(board.status().next_slot))
    answer = board.take(variants.with_image_signed_by(recipe, lambda image: sign(image, [key], recipe.chip)))
    return None if answer.ok else answer.error


def test_a_board_runs_and_updates_without_the_key_and_refuses_what_that_key_alone_has_signed(
    lab: Lab,
) -> None:
    board = lab.throwaway("esp32c3", entry=ENTRY)
    consent = Consent(ENTRY)
    prepare(board, Demand(PROFILE), consent, lab.home, say=QUIET)
    keys = board.boot_keys.open(board.vault)
    assert update_signed_by(board, keys[0], "1.1.0") is None
    assert board.reboot().version == "1.1.0"

    done = prepare(board, Demand(PROFILE, revoke=(0,)), consent, lab.home, say=QUIET)
    assert [step.text().split(" (")[0] for step in done.plan.burns] == ["burn SECURE_BOOT_KEY_REVOKE0"]
    assert done.running is not None
    assert (done.running.slot, done.running.version) == ("ota_0", "1.0.0")
    assert done.running.encryption == "development"
    ledger = ConsumptionLedger(board.records.folder)
    assert ledger.spent(done.plan.mac) == {Resource.REVOCATIONS: 1}

    assert update_signed_by(board, keys[0], "2.0.0") == "image-invalid"
    assert update_signed_by(board, keys[1], "2.1.0") is None
    assert board.reboot().version == "2.1.0"
    assert board.confirm().ok
    assert board.update(board.release("2.2.0")).ok
    assert board.reboot().version == "2.2.0"
    assert board.confirm().ok

    assert make_plan(board, Demand(PROFILE), lab.home, say=QUIET).plan.empty
    with pytest.raises(RefusedError, match="slot 0 is revoked already"):
        make_plan(board, Demand(PROFILE, revoke=(0,)), lab.home, say=QUIET)
    with pytest.raises(RefusedError, match="no trusted key is left"):
        make_plan(board, Demand(PROFILE, revoke=(1,)), lab.home, say=QUIET)
    assert ledger.spent(done.plan.mac) == {Resource.REVOCATIONS: 1}
    locked = Demand(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)
    assert prepare(board, locked, consent, lab.home, say=QUIET).running is not None
