"""What counts as broken after a cut."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.board import Board, Running, Snapshot
from harness.cuts.invariant import Expected, violations
from harness.errors import BoardError
from harness.ota.release import Release


def running(**fields: Any) -> Running:
    facts = {
        "slot": "ota_0", "version": "1", "offset": 0, "state": "valid", "agree": True, "next": "ota_1", "mac": "",
        "fe": "release", "release_ok": True, "otadata_slot": "ota_0",
    }  # fmt: skip
    return Running.from_fields(facts | fields)


NEW: dict[str, Any] = {"slot": "ota_1", "version": "2", "next": "ota_0"}
EXPECTED = Expected(Snapshot(running(), "old"), "ota_1", "2", "new", 100)


class Desk:
    """A board that says what it is told to say; after `confirm` and `repair` all is well with it."""

    def __init__(self, now: Running, **answers: Any) -> None:
        self.now = now
        self.answers = answers
        self.calls: list[str] = []

    def _answer(self, name: str) -> Any:
        self.calls.append(name)
        ok = self.answers.get(name, True)
        return SimpleNamespace(ok=ok, __str__=lambda: name)

    def status(self) -> Running:
        return self.now

    def slot_digest(self, label: str, *, size_bytes: int | None = None) -> str:
        return str(self.answers.get(label, "old" if size_bytes is None else "new"))

    def repair(self) -> Any:
        self.now = running(**{**self.now.fields, "agree": self.answers.get("repair", True)})
        return self._answer("repair")

    def confirm(self) -> Any:
        if self.answers.get("confirm", True):
            self.now = running(**{**self.now.fields, "state": "valid"})
        return self._answer("confirm")

    def restart(self) -> Any:
        if "restart" in self.answers:
            raise BoardError("does not boot")
        return SimpleNamespace(slot=self.now.slot, version=self.answers.get("again", self.now.version))

    def update(self, release: Any) -> Any:
        return self._answer("update")

    def reboot(self) -> Any:
        return SimpleNamespace(slot=self.now.next_slot, version=self.answers.get("booted", "3"))


def found(now: Running, **answers: Any) -> tuple[str, ...]:
    release = cast(Release, SimpleNamespace(version="3"))
    return violations(cast(Board, Desk(now, **answers)), EXPECTED, lambda: release)


@pytest.mark.parametrize(
    "now",
    [
        running(),
        running(agree=False),
        running(**NEW),
        running(**NEW, state="pending"),
    ],
    ids=["the old one", "the old one, otadata out of step", "the new one", "the new one on trial"],
)
def test_a_valid_version_that_takes_the_next_update_is_all_that_is_asked(now: Running) -> None:
    assert found(now) == ()


@pytest.mark.parametrize(
    ("now", "answers", "said"),
    [
        (running(version="0"), {}, "neither the old version nor the new one"),
        (running(**NEW | {"version": "1"}), {}, "neither the old version nor the new one"),
        (running(**NEW), {"ota_1": "half"}, "does not hold what was served"),
        (running(), {"ota_0": "other"}, "the slot of the old version, ota_0, was written to"),
        (running(**NEW), {"ota_0": "other"}, "the slot of the old version, ota_0, was written to"),
        (running(state="pending"), {}, "was confirmed, and is on trial again"),
        (running(agree=False), {"repair": False}, "otadata cannot be repaired"),
        (running(**NEW, state="pending"), {"confirm": False}, "2 cannot be confirmed"),
        (running(state="undefined"), {}, "otadata names ota_0 with state undefined"),
        (running(**NEW), {"again": "1"}, "after one more reset 1 runs from ota_1"),
        (running(), {"restart": False}, "does not boot"),
        (running(), {"update": False}, "the next good update fails"),
        (running(), {"booted": "1"}, "after the next good update 1 runs"),
        (running(), {"confirm": False}, "the next good update cannot be confirmed"),
    ],
)
def test_what_a_cut_broke_is_said(now: Running, answers: dict[str, Any], said: str) -> None:
    assert any(said in each for each in found(now, **answers)), found(now, **answers)
