"""A qualification carried out on a twin, whose companion firmware stands for somebody's app."""

from __future__ import annotations

from pathlib import Path

import pytest
from qualify_bench import CONFIRMED, STOCK_UPDATE, Bench, evidence_for, standings

from harness.console.render import read_boots
from harness.qualify.verification import verify_folder
from harness.rack.health import HealthBook
from harness.report.run_record import RunRecord

PROVEN, FAILED, NOT_PROVEN = "proven", "failed", "not proven"


def test_a_ship_unit_is_updated_proven_and_left_as_stated(bench: Bench) -> None:
    run = bench.qualify(requirements={"OTA-1": ["good-update", "survives-reset"], "SEC-9": "rollback"})
    told = standings(run)
    assert told.pop("rollback") == NOT_PROVEN
    assert told == dict.fromkeys(
        (
            "release-mode",
            "runs-before",
            "update-served",
            "good-update",
            "confirmed",
            "survives-reset",
            "end-state",
            "may-ship",
            "chip",
        ),
        PROVEN,
    )
    assert run.qualification is not None
    assert run.verdict == "not proven", "a requirement whose claim no case of a ship unit makes"
    assert [(row["id"], row["standing"]) for row in run.qualification["requirements"]] == [
        ("OTA-1", PROVEN),
        ("SEC-9", NOT_PROVEN),
    ]
    assert run.qualification["end_state"]["slot"] == "ota_1"
    left_out = " ".join(row["what"] for row in run.qualification["not_covered"])
    assert "another key" in left_out
    assert run.qualification["silicon"]["security_info"]
    booted = read_boots(bench.folder / "out" / "unit" / "serial.log").records
    assert [boot.slot for boot in booted if boot.app_started] == ["ota_0", "ota_1", "ota_1"]


def test_without_a_witness_confirmation_is_not_proven_and_neither_is_the_verdict(bench: Bench) -> None:
    run = bench.qualify(witness=None)
    told = standings(run)
    assert run.verdict == NOT_PROVEN
    assert {key for key, standing in told.items() if standing != PROVEN} == {"confirmed", "end-state"}
    assert "name witness.confirmed" in evidence_for(run, "confirmed")


def test_a_unit_that_must_not_be_shipped_does_not_pass_as_a_ship_unit(bench: Bench) -> None:
    bench.set_key_state("test-only")
    run = bench.qualify()
    assert run.verdict == NOT_PROVEN
    assert {key for key, standing in standings(run).items() if standing != PROVEN} == {"may-ship"}
    assert "harness keys hand-over" in evidence_for(run, "may-ship")


def test_a_unit_whose_device_record_is_damaged_may_be_one_that_must_not_be_shipped(bench: Bench) -> None:
    for path in (bench.folder / "state" / "devices").iterdir():
        if path.is_file():
            path.write_text("{")
    run = bench.qualify()
    assert standings(run)["may-ship"] == NOT_PROVEN
    assert "cannot be read" in evidence_for(run, "may-ship")


def test_a_retired_unit_does_not_pass_as_a_ship_unit_either(bench: Bench) -> None:
    HealthBook(bench.home).retire("unit", "its socket is worn")
    run = bench.qualify()
    assert run.verdict == NOT_PROVEN
    assert "retired" in evidence_for(run, "may-ship")
    assert any("its socket is worn" in mark for mark in run.boards[0].marks)


def test_a_qualification_that_breaks_off_leaves_a_report_that_says_why_and_proves_no_more(
    bench: Bench,
) -> None:
    run = bench.qualify(confirm=[{"by": "uart", "send": "{secret:missing}"}])
    told = standings(run)
    assert run.verdict == NOT_PROVEN
    assert "broken off" in run.reason
    assert "there is no secret 'missing'" in run.reason
    assert told["runs-before"] == told["update-served"] == PROVEN
    assert {told[key] for key in ("confirmed", "survives-reset", "end-state", "carried-out")} == {NOT_PROVEN}
    assert [test.id for test in run.tests][-1] == "qualify/broken-off"
    report = (bench.folder / "out" / "report.html").read_text(encoding="utf-8")
    assert "broken off: " in report
    assert verify_folder(bench.folder / "out", None).ok


def test_an_update_that_the_handler_refuses_fails_with_what_it_printed(bench: Bench) -> None:
    run = bench.qualify(
        trigger=[STOCK_UPDATE], witness={"failed": "esp_ota_ops: OTA image has invalid magic"}
    )
    assert run.verdict == FAILED
    assert standings(run)["good-update"] == FAILED
    assert "esp_ota" in evidence_for(run, "good-update")
    assert standings(run)["survives-reset"] == NOT_PROVEN


def test_the_record_and_the_reports_say_the_same(bench: Bench) -> None:
    run = bench.qualify()
    out = bench.folder / "out"
    again = RunRecord.model_validate_json((out / "run.json").read_text(encoding="utf-8"))
    assert again == run
    assert run.verdict == "passed"
    assert [test.id for test in run.tests] == ["qualify/arrival", "qualify/update", "qualify/end"]
    board = run.boards[0]
    assert board.log is not None
    assert (out / board.log).is_file()
    assert all(boot["evt_boot"] is None for boot in board.boots), "the companion's events were used"
    assert run.qualification is not None
    page = (out / "qualification.txt").read_text(encoding="utf-8")
    assert run.qualification["evidence_sha256"] in page
    assert "Approved by" in page
    report = (out / "report.html").read_text(encoding="utf-8")
    for words in (
        run.qualification["evidence_sha256"],
        "Approved by",
        "covered</h3>",
        "Security info after it",
    ):
        assert words in report


@pytest.mark.full
def test_a_sacrificial_unit_is_given_everything_that_must_not_harm_it(bench: Bench) -> None:
    witness = {"confirmed": CONFIRMED, "failed": '"id":901,"cmd":"ota","ok":false'}
    run = bench.qualify(unit="sacrificial", rollback=True, there_and_back=True, witness=witness)
    told = standings(run)
    bad = {
        key: evidence_for(run, key)
        for key, standing in told.items()
        if standing not in (PROVEN, "not applicable")
    }
    assert not bad
    assert {key for key in told if key.startswith(("refuses", "survives-cut", "rollback"))} == {
        "refuses-wrong-key",
        "refuses-wrong-slot",
        "refuses-plaintext",
        "refuses-truncated",
        "refuses-flipped-byte",
        "refuses-noise",
        "survives-cut-download",
        "survives-cut-at-end",
        "rollback",
    }


def test_what_the_holder_of_the_key_enciphered_is_served_as_it_is_and_every_file_is_listed(
    bench: Bench, tmp_path: Path
) -> None:
    served = bench.enciphered_for("ota_1", 0x1A0000, "app-1.1.0.bin")
    run = bench.qualify(image="file", served={"ota_1": served})
    assert run.verdict == "passed"
    assert served["sha256"] in evidence_for(run, "update-served")
    out = tmp_path / "out"
    listed = {line.split("  ")[1] for line in (out / "evidence.sha256").read_text().splitlines()}
    assert {"qualification.json", "unit/serial.log", "unit/serial.raw", "unit/qualify.yaml"} <= listed
    assert not {"run.json", "evidence.sha256", "qualification.txt"} & listed
