"""Observations: nothing is sent to the unit, its ROM is never asked, and claims come of its log alone.

The logs are those of ESP-IDF's own OTA examples (v5.5.5, ESP32-C3, release mode, HTTPS, the stock handler), recorded
from the real binaries under QEMU while they were qualified.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from qualify_bench import HEAD, evidence_for, sha256_of, standings
from recorded_unit import PORT, RecordedPort, app_of
from ruamel.yaml import YAML

from harness.home import Home
from harness.inventory.entry import SerialEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.qualify.artefacts import load_artefacts
from harness.qualify.file import read_qualify_file
from harness.qualify.perform import perform, require_allowed, seal
from harness.report.run_record import RunRecord

DATA = Path(__file__).parents[2] / "data" / "qualify"
ROLLED_BACK = DATA / "native_ota_example-rolled-back.log"
ROLLED_BACK_ELVES = {"1.0.0": "01b0ab5e6000", "1.1.0": "55211d678000"}
UPDATED = DATA / "native_ota_example-updated.log"
"""Built without rollback."""
UPDATED_ELVES = {"1.0.0": "20981d74e000", "1.1.0": "d8738e6ce000"}

TIMES = {"boot_s": 5, "update_s": 5, "settle_s": 0.3, "steady_s": 0.3, "confirm_s": 0.5}


class Observed:
    """A unit that plays a recorded log, and a person who does what they are asked."""

    def __init__(
        self, folder: Path, home: Path, port: RecordedPort, project: str, elves: dict[str, str]
    ) -> None:
        self.folder = folder
        self.home = Home(home)
        self.port = port
        self.asked: list[str] = []
        self.boots_of_update = 0
        for version, elf in elves.items():
            (folder / f"app-{version}.bin").write_bytes(app_of(version, elf, project=project))

    def person(self, text: str) -> None:
        """Starts the update when asked to: the unit goes on, and boots as often as it did then."""
        self.asked.append(text)
        if text.startswith("start"):
            for _ in range(1 + self.boots_of_update):
                self.port.play()

    def qualify(self, **more: Any) -> RunRecord:
        told = {
            "version": 1,
            "unit": "ship",
            **{
                role: {"path": f"app-{version}.bin", "sha256": sha256_of(self.folder / f"app-{version}.bin")}
                for role, version in (("running", "1.0.0"), ("update", "1.1.0"))
            },
            "image": "plaintext",
            "server": {"by": "external", "url": "https://updates.example/app.bin"},
            "trigger": [{"by": "prompt", "text": "start the update to {version}"}],
            "times": TIMES,
            **more,
        }
        out = io.StringIO()
        YAML().dump(told, out)
        path = self.folder / "qualify.yaml"
        path.write_text(out.getvalue())
        plan = read_qualify_file(path)
        entry = SerialEntry(chip="esp32c3", link="serial", port=PORT, mac="7c:df:a1:ae:11:da")
        folder = self.folder / "out"
        folder.mkdir()
        require_allowed(plan, entry, "ship", observe=True)
        with Lab(self.home, Inventory(None, {"ship": entry}), folder, secret_from(None)) as lab:
            done = perform(
                lab,
                "ship",
                plan,
                load_artefacts(plan),
                observe=True,
                ask=self.person,
                head=HEAD,
            )
        return seal(folder, done.run, None)


def observed(
    log: Path, elves: dict[str, str], boots: int, folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Observed:
    port = RecordedPort.of_log(log)
    port.stop_at = b"Returned from app_main"
    monkeypatch.setattr("harness.links.serial_port.open_device", lambda _name, _baud: port)
    made = Observed(folder, home, port, "native_ota", elves)
    made.boots_of_update = boots
    return made


@pytest.fixture
def native(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Observed:
    """An update that the example takes back by itself: two more boots."""
    return observed(ROLLED_BACK, ROLLED_BACK_ELVES, 2, tmp_path, own_home, monkeypatch)


@pytest.fixture
def updated(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Observed:
    """An update that stays: one more boot."""
    return observed(UPDATED, UPDATED_ELVES, 1, tmp_path, own_home, monkeypatch)


def test_an_example_of_esp_idf_passes_by_its_log_alone(updated: Observed) -> None:
    run = updated.qualify(end={"otadata": "undefined", "slot": "ota_1"})
    told = standings(run)
    assert {key: standing for key, standing in told.items() if standing != "proven"} == {
        "update-served": "not applicable",
        "confirmed": "not applicable",
    }
    assert run.verdict == "passed"
    assert updated.port.written == b""
    assert not updated.port.asked_for_download
    assert run.qualification is not None
    assert run.qualification["observed"] is True
    assert run.qualification["silicon"]["not_read"] == "eFuses and ROM were not touched"


def test_an_observation_sends_nothing_and_uses_dtr_and_rts_for_a_reset_into_the_app_only(
    native: Observed,
) -> None:
    native.qualify()
    assert native.port.written == b""
    assert not native.port.asked_for_download
    rts = [value for line, value in native.port.lines if line == "rts"]
    assert rts == [True, False] * (len(rts) // 2)
    assert rts, "it was reset into its app"


def test_with_reset_none_no_line_is_touched_and_what_needs_a_reset_is_not_proven(native: Observed) -> None:
    native.port.play(until=b"Returned from app_main")
    run = native.qualify(reset="none")
    assert native.port.lines == []
    assert native.port.written == b""
    assert standings(run)["survives-reset"] == "not proven"


def test_an_example_that_takes_itself_back_fails_in_its_own_words(native: Observed) -> None:
    run = native.qualify()
    told = standings(run)
    assert told["release-mode"] == "proven"
    assert run.verdict == "failed"
    assert told["good-update"] == "failed"
    assert "Diagnostics failed!" in evidence_for(run, "good-update")
    assert told["survives-reset"] == "failed"
    assert told["end-state"] == "failed"


def test_a_unit_that_runs_something_else_is_not_updated(native: Observed) -> None:
    run = native.qualify(witness={"image": r"SHA-256 for current firmware: : ([0-9a-f]{64})"})
    assert standings(run)["runs-before"] == "failed", "its image is another one than was demanded"
    assert "not tried" in evidence_for(run, "good-update")
    assert native.asked == []
    assert run.verdict == "failed"
