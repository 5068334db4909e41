"""Observations: nothing is sent to the unit, its ROM is never asked, and claims come of its log alone.

The logs are those of ESP-IDF's own OTA examples (v5.5.5, ESP32-C3, release mode, HTTPS, the stock handler), recorded
from the real binaries under QEMU while they were qualified.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from qualify_bench import HEAD, evidence_for, sha256_of, standings
from recorded_unit import PORT, RecordedPort, app_of, boots_of
from ruamel.yaml import YAML

from harness.cli.main import cli
from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import SerialEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.qualify.artefacts import load_artefacts
from harness.qualify.file import read_qualify_file
from harness.qualify.perform import perform, require_allowed, seal
from harness.report.run_record import RunRecord

DATA = Path(__file__).parents[2] / "data" / "qualify"


@dataclass(frozen=True)
class Recorded:
    """One log, and what tells the apps in it from others."""

    log: Path
    project: str
    elves: dict[str, str]
    """The first digits of each version's ELF, as it prints them."""
    boots: int
    """How often it starts between the trigger of the update and the next reset."""


UPDATED = Recorded(
    DATA / "native_ota_example-updated.log",
    "native_ota",
    {"1.0.0": "20981d74e000", "1.1.0": "d8738e6ce000"},
    1,
)
"""Built without rollback."""
SIMPLE = Recorded(
    DATA / "simple_ota_example-updated.log",
    "simple_ota",
    {"1.0.0": "c08b91d6b000", "1.1.0": "9585ddf94000"},
    1,
)
ADVANCED = Recorded(
    DATA / "advanced_https_ota-updated.log",
    "advanced_https_ota",
    {"1.0.0": "18561f03c000", "1.1.0": "5b097a945000"},
    1,
)
"""Built with rollback: it confirms itself as soon as it has a network, and says so once."""
ROLLED_BACK = Recorded(
    DATA / "native_ota_example-rolled-back.log",
    "native_ota",
    {"1.0.0": "01b0ab5e6000", "1.1.0": "55211d678000"},
    2,
)
PANICS = Recorded(
    DATA / "native_ota_example-panics.log",
    "native_ota",
    {"1.0.0": "1968d32b4000", "1.1.0": "000000000000"},
    0,
)

TIMES = {"boot_s": 60, "update_s": 60, "settle_s": 0.3, "steady_s": 0.3, "confirm_s": 0.5}


class Observed:
    """A unit that plays a recorded log, and a person who does what they are asked."""

    def __init__(self, folder: Path, home: Path, port: RecordedPort, recorded: Recorded) -> None:
        self.folder = folder
        self.home = Home(home)
        self.port = port
        self.asked: list[str] = []
        self.leaves = False
        self.boots_of_update = recorded.boots
        for version, elf in recorded.elves.items():
            app = app_of(version, elf, project=recorded.project)
            (folder / f"app-{version}.bin").write_bytes(app)

    def person(self, text: str) -> None:
        """Starts the update when asked to: the unit goes on, and boots as often as it did then."""
        self.asked.append(text)
        if self.leaves:
            raise KeyboardInterrupt
        if text.startswith("start"):
            for _ in range(1 + self.boots_of_update):
                self.port.play()

    def write_file(self, **more: Any) -> Path:
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
        return path

    def qualify(self, **more: Any) -> RunRecord:
        plan = read_qualify_file(self.write_file(**more))
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


Observe = Callable[[Recorded], Observed]


@pytest.fixture
def observe(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Observe:
    def made(recorded: Recorded) -> Observed:
        port = RecordedPort.of_log(recorded.log)
        port.stop_at = b"Returned from app_main"
        monkeypatch.setattr("harness.links.serial_port.open_device", lambda _name, _baud: port)
        return Observed(tmp_path, own_home, port, recorded)

    return made


@pytest.fixture
def native(observe: Observe) -> Observed:
    """The example that takes its update back by itself."""
    return observe(ROLLED_BACK)


@pytest.mark.parametrize("recorded", [UPDATED, SIMPLE], ids=["native_ota_example", "simple_ota_example"])
def test_an_example_of_esp_idf_passes_by_its_log_alone(observe: Observe, recorded: Recorded) -> None:
    updated = observe(recorded)
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
    assert run.qualification["silicon"]["revision"] == "v0.3 (as its bootloader printed)"
    assert run.boards[0].revision == "v0.3 (as its bootloader printed)"
    assert told["chip"] == "proven"
    update = next(test for test in run.tests if test.id == "qualify/update")
    assert update.flash_before is not None
    assert update.flash_after is not None
    slots = [row.offset for row in update.flash_after.partitions if row.label.startswith("ota_")]
    assert [each.offset for each in update.flash_before.extents] == slots[:1]
    stored = [(each.offset, each.content, each.source) for each in update.flash_after.extents]
    assert stored == [(slot, "ciphertext", "inferred") for slot in slots]
    assert [step.text for step in update.flash_steps] == ["update to 1.1.0"]
    first, last, why = update.otadata_told
    assert first.startswith("Before: the bootloader followed otadata to ota_0 (boot 1)")
    assert last == "After: the bootloader followed otadata to ota_1 (boot 3); its state was not printed."
    assert why.endswith("are not known: an observation touches no flash.")
    page = (updated.folder / "out" / "report.html").read_text()
    assert "followed otadata to ota_1 (boot 3)" in page
    left_out = [row["what"] for row in run.qualification["not_covered"]]
    assert "that the unit is the one with MAC 7c:df:a1:ae:11:da" in left_out


def test_an_example_that_confirms_itself_once_is_confirmed_after_its_next_reset_too(observe: Observe) -> None:
    updated = observe(ADVANCED)
    run = updated.qualify(
        witness={"confirmed": "App is valid, rollback cancelled successfully"}, end={"slot": "ota_1"}
    )
    told = standings(run)
    assert {key for key, standing in told.items() if standing != "proven"} == {"update-served"}
    assert told["confirmed"] == told["end-state"] == "proven"
    assert run.verdict == "passed"


@pytest.mark.parametrize("claim", ["update-served", "confirmed"])
def test_what_is_demanded_and_cannot_be_shown_is_not_proven_and_neither_is_the_verdict(
    observe: Observe, claim: str
) -> None:
    run = observe(UPDATED).qualify(end={"otadata": "undefined"}, requirements={"REQ-1": claim})
    assert standings(run)[claim] == "not proven"
    assert "REQ-1 demands it" in evidence_for(run, claim)
    assert run.verdict == "not proven"
    assert run.qualification is not None
    assert [row["standing"] for row in run.qualification["requirements"]] == ["not proven"]


def test_a_unit_that_cannot_be_opened_leaves_a_report_that_says_so(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Observed(tmp_path, own_home, RecordedPort([]), UPDATED).write_file()
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    (tmp_path / "boards.yaml").write_text(
        "version: 1\nboards:\n  ship: {chip: esp32c3, link: serial, port: /dev/ttyNOT0, mac: '7c:df:a1:ae:11:da'}\n"
    )
    arguments = ["qualify", "qualify.yaml", "--board", "ship", "--observe", "--out", "out"]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, arguments, standalone_mode=False)
    assert isinstance(done.exception, LabError)
    run = RunRecord.model_validate_json((tmp_path / "out" / "run.json").read_text())
    assert run.verdict == "not proven"
    assert "the unit was not looked at" in run.reason
    assert run.qualification is None
    assert (tmp_path / "out" / "report.html").exists()


def test_what_a_person_breaks_off_leaves_a_report_all_the_same(observe: Observe) -> None:
    unit = observe(UPDATED)
    unit.leaves = True
    run = unit.qualify(end={"otadata": "undefined"})
    assert run.verdict == "not proven"
    assert standings(run)["carried-out"] == standings(run)["good-update"] == "not proven"
    assert standings(run)["runs-before"] == "proven"
    assert (unit.folder / "out" / "report.html").exists()


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


def test_an_app_that_says_its_version_and_panics_does_not_run(observe: Observe) -> None:
    unit = observe(PANICS)
    unit.port.stop_at = None
    run = unit.qualify()
    assert standings(run)["runs-before"] == "failed"
    assert "it dies: error-check: ESP_ERROR_CHECK failed" in evidence_for(run, "runs-before")
    assert unit.asked == []


OLD, NEW, AGAIN = boots_of(UPDATED.log)
"""Three boots: of 1.0.0 until it restarts, of 1.1.0 by that restart, and of 1.1.0 after a reset."""
BY_ITSELF = OLD.replace(b"rst:0x1 (POWERON)", b"rst:0xc (RTC_SW_CPU_RST)")
LIES = b"""I (20000) app_init: App version:      1.1.0\r
I (20001) app_init: ELF file SHA256:  d8738e6ce000...\r
I (20002) main: update to version 1.1.0 done, rebooted, running from ota_1\r
"""
RETURNED = b"I (3770) main_task: Returned from app_main()\r\n"
HANGS = [each[: each.index(b"main_task: Started")] for each in (NEW, AGAIN)]
MOVED = [
    each.replace(b"app from partition at offset 0x1d0000", b"app from partition at offset 0x20000")
    for each in (NEW, AGAIN)
]


@pytest.mark.parametrize(
    ("boots", "lost"),
    [
        ([OLD, BY_ITSELF + LIES, OLD + LIES], ("good-update", "survives-reset", "end-state")),
        ([OLD + LIES, b"", OLD], ("good-update", "survives-reset", "end-state")),
        ([OLD, NEW, OLD], ("good-update", "survives-reset", "end-state")),
        ([OLD, BY_ITSELF, OLD], ("good-update", "survives-reset", "end-state")),
        ([OLD, *MOVED], ("good-update",)),
        ([OLD, *HANGS], ("good-update", "survives-reset", "end-state")),
        ([OLD, NEW.replace(RETURNED, b"") + NEW, AGAIN], ("good-update",)),
        ([OLD, NEW, NEW.replace(RETURNED, b"") + NEW], ("survives-reset", "end-state")),
        ([OLD, NEW, NEW], ("survives-reset",)),
        ([OLD, NEW, b""], ("survives-reset", "end-state")),
    ],
    ids=[
        "the old app restarts and says that it is the new one",
        "the old app says that it is the new one and does not restart",
        "the old app prints the boot of the new one",
        "the old slot is started again",
        "the new version is started from the slot of the old one",
        "the new version hangs before its main function",
        "the new version restarts by itself once",
        "the new version restarts by itself after the reset",
        "the reset does nothing and the app restarts by itself",
        "nothing is heard after the reset",
    ],
)
def test_what_only_looks_like_an_update_is_never_proven(
    observe: Observe, boots: list[bytes], lost: tuple[str, ...]
) -> None:
    unit = observe(UPDATED)
    unit.port.queue(boots)
    told = standings(unit.qualify(end={"otadata": "undefined"}, times={**TIMES, "boot_s": 1, "update_s": 1}))
    assert [key for key in lost if told[key] == "proven"] == []


def test_a_unit_whose_rom_reads_the_flash_only_at_its_second_try_survives_the_reset(observe: Observe) -> None:
    unit = observe(UPDATED)
    banner, first_line = AGAIN.split(b"rst:")[0], b"rst:0x1 (POWERON)"
    fails = (
        banner + first_line + b",boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n" + b"invalid header: 0xffffffff\r\n" * 3
    )
    by_watchdog = AGAIN.replace(first_line, b"rst:0x7 (TG0WDT_SYS_RST)")
    assert by_watchdog != AGAIN
    unit.port.queue([OLD, NEW, fails + by_watchdog])
    told = standings(unit.qualify(end={"otadata": "undefined"}))
    assert (told["survives-reset"], told["good-update"]) == ("proven", "proven")


def test_a_witness_that_says_the_same_of_both_versions_proves_neither(observe: Observe) -> None:
    witness = {"version": {"pattern": "Starting (OTA) example task"}}
    told = standings(observe(UPDATED).qualify(witness=witness, end={"otadata": "undefined"}))
    assert "proven" not in (told["runs-before"], told["good-update"], told["end-state"])


def test_somebody_elses_server_gets_the_update_by_a_command(observe: Observe) -> None:
    unit = observe(UPDATED)
    copy = [sys.executable, "-c", "import shutil, sys; shutil.copy(sys.argv[1], 'published')", "{file}"]
    server = {"by": "external", "url": "https://updates.example/app.bin?token=Zugang99", "publish": copy}
    unit.port.queue([OLD, b"I (1) ota: from https://updates.example/app.bin?token=Zugang99\r\n" + NEW, AGAIN])
    run = unit.qualify(server=server, end={"otadata": "undefined"})
    assert run.verdict == "passed"
    assert (unit.folder / "published").read_bytes() == (unit.folder / "app-1.1.0.bin").read_bytes()
    assert unit.asked == ["start the update to 1.1.0"]
    assert run.qualification is not None
    for file in (unit.folder / "out").rglob("*"):
        assert not file.is_file() or b"Zugang99" not in file.read_bytes(), f"the token is in {file}"
    assert (
        "url: https://updates.example/app.bin?token=<redacted>"
        in (unit.folder / "out" / "ship" / "qualify.yaml").read_text()
    )
    assert run.qualification["server"] == "external: https://updates.example/app.bin?token=<redacted>"
