"""What the evidence makes of a claim; every row is one thing that was, or was not, seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.console.boot_record import BootError, BootRecord, Panic
from harness.qualify import claims as c
from harness.qualify.claims import Attempt
from harness.qualify.file import ConfirmedEntry
from harness.qualify.otadata_told import otadata_told, why_not_read
from harness.qualify.sighting import ImageFacts, Readings, Seen, first_try, unsteady
from harness.qualify.witness import words_of
from harness.report.verdict import Standing

PROVEN, FAILED, NOT_PROVEN, NONE = (
    Standing.PROVEN,
    Standing.FAILED,
    Standing.NOT_PROVEN,
    Standing.NOT_APPLICABLE,
)
OLD = ImageFacts("running", "lock", "1.0.0", "aa11" * 16, "ab" * 32, "cd" * 32, 1000)
NEW = ImageFacts("update", "lock", "1.1.0", "bb22" * 16, "ef" * 32, "12" * 32, 1000)


def boot(**fields: object) -> BootRecord:
    """One whose app has started, and which said nothing else."""
    blank = BootRecord(number=1, started_at=0.0, first_line=7, last_line=9, app_started=True)
    return replace(blank, **fields)  # type: ignore[arg-type]


SILENT = boot()
RUNS_OLD = boot(version="1.0.0", project="lock", elf_sha256="aa11aa11", slot="ota_0", offset=0x20000)
RUNS_NEW = boot(
    version="1.1.0",
    project="lock",
    elf_sha256="bb22bb22",
    slot="ota_1",
    offset=0x1A0000,
    caused_by="reset: into run",
)


@pytest.mark.parametrize(
    ("seen", "readings", "standing"),
    [
        (RUNS_NEW, Readings(), PROVEN),
        (boot(elf_sha256="bb22bb22"), Readings(), PROVEN),
        (SILENT, Readings(version="1.1.0"), PROVEN),
        (SILENT, Readings(image="EF" * 32), PROVEN),
        (SILENT, Readings(image="12" * 32), PROVEN),
        (None, Readings(version="1.1.0"), NOT_PROVEN),
        (None, Readings(version="1.0.0"), FAILED),
        (replace(RUNS_NEW, app_started=False), Readings(), NOT_PROVEN),
        (replace(RUNS_NEW, app_started=False), Readings(answers=True), PROVEN),
        (RUNS_OLD, Readings(), FAILED),
        (boot(version="1.1.0", elf_sha256="dead"), Readings(), FAILED),
        (boot(version="1.1.0", project="toaster"), Readings(), FAILED),
        (RUNS_NEW, Readings(image="00" * 32), FAILED),
        (
            boot(app_started=False, errors=(BootError("bootloader", "boot", "No bootable app", 3),)),
            Readings(),
            FAILED,
        ),
        (SILENT, Readings(), NOT_PROVEN),
        (boot(app_started=False), Readings(), NOT_PROVEN),
        (None, Readings(), NOT_PROVEN),
        (SILENT, Readings(image="ef"), FAILED),
    ],
    ids=[
        "log says all",
        "ELF digits alone",
        "a witness of the version",
        "a witness of the appended digest",
        "a witness of the file's digest",
        "a witness and no boot in the log",
        "a witness of another version and no boot in the log",
        "the version, and an app that hangs before its main function",
        "the version, and an app without a log that says it is ready",
        "another version",
        "the version, but another ELF",
        "another project",
        "the version, but another image",
        "no app, an error",
        "silence",
        "unfinished",
        "no boot",
        "a digest too short to tell",
    ],
)
def test_what_runs_is_claimed_by_what_was_seen_of_it(
    seen: BootRecord | None, readings: Readings, standing: Standing
) -> None:
    assert c.judge_running(c.UPDATE, NEW, Seen(seen, readings)).standing is standing


TWIN_OF_OLD = replace(OLD, name="update", elf_sha256="aa11aa11" + "cc" * 28, image_sha256="34" * 32)
"""Another app of the same version, whose ELF digest begins with the same digits."""


@pytest.mark.parametrize(
    ("seen", "readings", "standing"),
    [
        (boot(version="1.0.0", project="lock"), Readings(), NOT_PROVEN),
        (SILENT, Readings(version="1.0.0"), NOT_PROVEN),
        (None, Readings(version="1.0.0"), NOT_PROVEN),
        (boot(version="1.0.0", elf_sha256="aa11aa11"), Readings(), NOT_PROVEN),
        (boot(version="1.0.0", elf_sha256="aa11aa11cc"), Readings(), PROVEN),
        (boot(version="1.0.0"), Readings(image="34" * 8), PROVEN),
        (boot(version="1.0.0", elf_sha256="aa11aa11aa"), Readings(), FAILED),
        (boot(version="1.0.0", project="lock"), Readings(image="ab" * 32), FAILED),
    ],
)
def test_two_apps_of_one_version_are_told_apart_by_what_differs_or_not_at_all(
    seen: BootRecord | None, readings: Readings, standing: Standing
) -> None:
    new = replace(TWIN_OF_OLD, rival=OLD)
    assert c.judge_running(c.UPDATE, new, Seen(seen, readings)).standing is standing
    survived = c.judge_survival(
        "refuses-noise", Attempt(4096), replace(OLD, rival=new), new, Seen(seen, readings)
    )
    assert (survived.standing is PROVEN) is (standing is FAILED), "one of them runs, or nothing tells"


def test_no_digits_of_a_digest_and_the_project_alone_tell_nothing() -> None:
    for seen in (boot(elf_sha256="..."), boot(elf_sha256="bb22"), boot(project="lock")):
        assert c.judge_running(c.UPDATE, replace(NEW, rival=OLD), Seen(seen)).standing is NOT_PROVEN


@pytest.mark.parametrize(
    ("after", "readings", "standing"),
    [
        (RUNS_NEW, Readings(), PROVEN),
        (None, Readings(version="1.1.0"), NOT_PROVEN),
        (replace(RUNS_NEW, caused_by=None), Readings(), NOT_PROVEN),
        (replace(RUNS_NEW, reset_reason="RTC_SW_CPU_RST"), Readings(), NOT_PROVEN),
        (replace(RUNS_NEW, reset_reason="TG0WDT_SYS_RST"), Readings(), NOT_PROVEN),
        (replace(RUNS_NEW, reset_reason="USB_UART_CHIP_RESET"), Readings(), PROVEN),
        (boot(version="1.1.0", slot="ota_0"), Readings(), FAILED),
        (boot(version="1.1.0"), Readings(slot="ota_0"), FAILED),
        (RUNS_OLD, Readings(), FAILED),
    ],
)
def test_a_reset_is_survived_by_a_boot_that_the_log_shows_from_the_same_slot(
    after: BootRecord | None, readings: Readings, standing: Standing
) -> None:
    assert c.judge_same_place(c.SURVIVES, NEW, Seen(RUNS_NEW), Seen(after, readings)).standing is standing


ROM_FAILS = boot(
    app_started=False,
    rom_header_lines=3,
    reset_reason="POWERON_RESET",
    caused_by="power: on",
)
LATE = replace(RUNS_NEW, number=3, caused_by=None, reset_reason="RTCWDT_RTC_RESET")


@pytest.mark.parametrize(
    ("boots", "standing"),
    [
        ((ROM_FAILS, LATE), PROVEN),
        (
            (ROM_FAILS, replace(ROM_FAILS, number=2, caused_by=None, reset_reason="RTCWDT_RTC_RESET"), LATE),
            PROVEN,
        ),
        ((replace(ROM_FAILS, caused_by=None), LATE), NOT_PROVEN),
        ((replace(ROM_FAILS, reset_reason="SW_CPU_RESET"), LATE), NOT_PROVEN),
        ((replace(ROM_FAILS, bootloader_version="v5.5", rom_header_lines=0), LATE), NOT_PROVEN),
        ((replace(ROM_FAILS, app_started=True), LATE), NOT_PROVEN),
        ((LATE,), NOT_PROVEN),
    ],
    ids=[
        "a second try of the ROM",
        "a third try",
        "a ROM that was not reset",
        "a ROM that software started",
        "a bootloader had begun",
        "an app had begun",
        "no try before",
    ],
)
def test_a_further_try_of_the_rom_comes_of_the_reset_that_began_the_first(
    boots: tuple[BootRecord, ...], standing: Standing
) -> None:
    after = Seen(boots[-1], first_try=first_try(boots[-1], boots))
    assert c.judge_same_place(c.SURVIVES, NEW, Seen(RUNS_NEW), after).standing is standing


@pytest.mark.parametrize(("cause", "standing"), [("power: on", PROVEN), ("reset: into run", NOT_PROVEN)])
def test_a_brown_out_is_what_a_chip_prints_of_a_supply_that_was_switched(
    cause: str, standing: Standing
) -> None:
    after = replace(RUNS_NEW, caused_by=cause, reset_reason="RTCWDT_BROWN_OUT_RESET")
    assert c.judge_same_place(c.SURVIVES, NEW, Seen(RUNS_NEW), Seen(after)).standing is standing


def test_who_sees_no_app_start_is_told_how_an_app_without_a_log_is_seen() -> None:
    silent = Seen(boot(app_started=False), Readings(version="1.1.0"))
    assert "name witness.ready" in c.judge_running(c.UPDATE, NEW, silent).claim.evidence


@pytest.mark.parametrize(
    ("before", "after", "readings", "standing"),
    [
        (RUNS_OLD, RUNS_NEW, Readings(), PROVEN),
        (RUNS_OLD, replace(RUNS_NEW, offset=RUNS_OLD.offset), Readings(), FAILED),
        (boot(version="1.0.0", offset=0x20000), boot(version="1.1.0"), Readings(slot="ota_0"), NOT_PROVEN),
        (RUNS_OLD, boot(version="1.1.0", slot="ota_0"), Readings(), FAILED),
        (None, RUNS_NEW, Readings(), NOT_PROVEN),
        (RUNS_OLD, boot(version="1.1.0"), Readings(), NOT_PROVEN),
        (RUNS_OLD, boot(version="1.1.0"), Readings(slot="ota_1"), PROVEN),
        (RUNS_OLD, SILENT, Readings(), NOT_PROVEN),
    ],
)
def test_a_switch_needs_the_new_version_and_both_places(
    before: BootRecord | None, after: BootRecord, readings: Readings, standing: Standing
) -> None:
    assert c.judge_switch(c.UPDATE, NEW, Seen(before), Seen(after, readings)).standing is standing


@pytest.mark.parametrize(
    ("said", "standing"),
    [
        ("valid", PROVEN),
        ("ESP_OTA_IMG_VALID", PROVEN),
        ("Confirmed", PROVEN),
        ("true", PROVEN),
        ("successfully", NOT_PROVEN),
        ("1", NOT_PROVEN),
        ("error", NOT_PROVEN),
        ("NOT_VALID", NOT_PROVEN),
        ("img_new", NOT_PROVEN),
        ("", NOT_PROVEN),
        ("ESP_OTA_IMG_PENDING_VERIFY", FAILED),
        ("undefined", FAILED),
        ("unconfirmed", FAILED),
        ("not confirmed", FAILED),
        ("pending", FAILED),
        ("NEW", FAILED),
        ("false", FAILED),
        ("0", FAILED),
        (None, NOT_PROVEN),
    ],
)
def test_confirmation_is_what_its_witness_says(said: str | None, standing: Standing) -> None:
    judged = c.judge_confirmed(c.CONFIRMED, SILENT, Readings(confirmed=said), demanded="valid")
    assert judged.standing is standing


@pytest.mark.parametrize(
    ("witness", "said", "standing"),
    [
        ("Diagnostics completed successfully", "Diagnostics completed successfully", PROVEN),
        ({"pattern": "Diagnostics (.*)", "is": "passed"}, "Passed", PROVEN),
        ({"pattern": "state (.*)", "is": ["good", "fine"]}, "fine", PROVEN),
        ({"pattern": "state (.*)", "is": 2}, "2", PROVEN),
        ({"pattern": "ok=(.*)", "is": True}, "true", PROVEN),
        ({"pattern": "state (.*)", "is": "good"}, "valid", NOT_PROVEN),
        ({"pattern": "state (.*)", "is": "good"}, "pending", FAILED),
        ("state (.*)", "good", NOT_PROVEN),
    ],
)
def test_what_means_confirmed_is_what_the_owner_of_the_app_stated(
    witness: object, said: str, standing: Standing
) -> None:
    entry = ConfirmedEntry.model_validate(witness)
    readings = Readings(confirmed=said, confirmed_words=words_of(entry, said))
    assert c.judge_confirmed(c.CONFIRMED, SILENT, readings, demanded="valid").standing is standing


@pytest.mark.parametrize(
    ("seen", "standing"), [(RUNS_NEW, PROVEN), (SILENT, PROVEN), (None, PROVEN), (RUNS_OLD, FAILED)]
)
def test_a_confirmation_that_the_next_boot_disproves_has_failed(
    seen: BootRecord | None, standing: Standing
) -> None:
    said = c.Judged.of(c.CONFIRMED, PROVEN, "the witness says 'valid'")
    assert c.judge_confirmed_later(said, NEW, Seen(seen)).standing is standing


@pytest.mark.parametrize(
    ("seen", "standing"), [(RUNS_NEW, PROVEN), (SILENT, PROVEN), (None, PROVEN), (RUNS_OLD, NOT_PROVEN)]
)
def test_an_update_that_the_next_reset_undoes_is_not_proven_by_what_was_printed_before(
    seen: BootRecord | None, standing: Standing
) -> None:
    said = c.judge_switch(c.UPDATE, NEW, Seen(RUNS_OLD), Seen(RUNS_NEW))
    assert said.standing is PROVEN
    assert c.judge_switch_later(said, NEW, Seen(seen)).standing is standing


def test_confirmation_is_also_what_the_app_prints_of_its_state_and_not_asked_of_one_without_rollback() -> (
    None
):
    def judged(seen: BootRecord, demanded: str) -> Standing:
        return c.judge_confirmed(c.CONFIRMED, seen, Readings(), demanded=demanded).standing

    assert judged(boot(ota_state="valid"), "valid") is PROVEN
    assert judged(boot(ota_state="pending"), "valid") is NOT_PROVEN
    assert judged(SILENT, "undefined") is NONE


@pytest.mark.parametrize(
    ("profile", "encryption", "rom", "standing"),
    [
        ("release", "release", None, PROVEN),
        ("release", None, "release", PROVEN),
        ("release", "release", "development", FAILED),
        ("release", "development", None, FAILED),
        ("release", "enabled", None, NOT_PROVEN),
        ("release", "off", None, NOT_PROVEN),
        ("release", None, None, NOT_PROVEN),
        ("open", "off", None, NOT_PROVEN),
        ("open", "off", "open", PROVEN),
        ("open", "enabled", None, FAILED),
    ],
)
def test_a_profile_is_never_concluded_from_silence(
    profile: str, encryption: str | None, rom: str | None, standing: Standing
) -> None:
    assert c.judge_profile(profile, boot(encryption=encryption), rom).standing is standing


@pytest.mark.parametrize(
    ("attempt", "seen", "falls", "standing"),
    [
        (Attempt(4096), RUNS_OLD, None, PROVEN),
        (Attempt(None, "E (1) ota: bad"), RUNS_OLD, None, PROVEN),
        (Attempt(0), RUNS_OLD, None, NOT_PROVEN),
        (Attempt(None), RUNS_OLD, None, NOT_PROVEN),
        (Attempt(4096), RUNS_NEW, None, FAILED),
        (Attempt(4096), SILENT, None, NOT_PROVEN),
        (Attempt(4096), boot(app_started=False), None, FAILED),
        (Attempt(4096), None, None, NOT_PROVEN),
        (Attempt(4096), RUNS_OLD, "it dies", FAILED),
        (Attempt(4096, decided=False), RUNS_OLD, None, NOT_PROVEN),
        (Attempt(4096, decided=False), RUNS_NEW, None, FAILED),
    ],
)
def test_a_bad_update_is_survived_when_it_was_tried_and_the_old_version_runs(
    attempt: Attempt, seen: BootRecord | None, falls: str | None, standing: Standing
) -> None:
    judged = c.judge_survival("refuses-noise", attempt, OLD, NEW, Seen(seen, falls=falls))
    assert judged.standing is standing


def test_the_old_version_in_another_slot_is_not_what_was_left_running() -> None:
    moved = replace(RUNS_OLD, number=2, slot="ota_1", offset=0x1A0000)

    def judged(seen: BootRecord, *, may_run: bool = False) -> Standing:
        return c.judge_survival(
            "refuses-noise",
            Attempt(4096),
            OLD,
            NEW,
            Seen(seen),
            new_may_run=may_run,
            before=Seen(RUNS_OLD),
        ).standing

    assert judged(RUNS_OLD) is PROVEN
    assert judged(moved) is FAILED
    assert judged(moved, may_run=True) is PROVEN


@pytest.mark.parametrize(
    ("seen", "standing"),
    [(boot(chip="esp32c3"), PROVEN), (boot(chip="esp32c6"), FAILED), (SILENT, None), (None, None)],
)
def test_the_chip_is_the_one_whose_banner_is_in_the_log(
    seen: BootRecord | None, standing: Standing | None
) -> None:
    judged = c.judge_chip("esp32c3", seen)
    assert (judged.standing if judged is not None else None) is standing


@pytest.mark.parametrize(
    ("seen", "rom", "standing"),
    [
        (boot(rom_verified=True, secure_boot=True), None, PROVEN),
        (boot(secure_boot=True), None, PROVEN),
        (SILENT, True, PROVEN),
        (boot(app_signature_verified=True), None, NOT_PROVEN),
        (boot(app_signature_verified=True), True, PROVEN),
        (boot(rom_verified=True, secure_boot=True), False, FAILED),
        (boot(secure_boot=False), None, NOT_PROVEN),
        (SILENT, None, NOT_PROVEN),
    ],
)
def test_secure_boot_is_what_the_rom_does_and_not_a_signature_that_a_bootloader_checks(
    seen: BootRecord, rom: bool | None, standing: Standing
) -> None:
    assert c.judge_secure_boot(seen, rom).standing is standing


def test_after_a_cut_at_the_end_either_version_is_right_but_no_third_one() -> None:
    def judged(seen: BootRecord) -> Standing:
        attempt = Attempt(4096)
        return c.judge_survival(
            "survives-cut-at-end", attempt, OLD, NEW, Seen(seen), new_may_run=True
        ).standing

    assert judged(RUNS_OLD) is PROVEN
    assert judged(RUNS_NEW) is PROVEN
    assert judged(boot(version="0.9.0")) is FAILED


@pytest.mark.parametrize(
    ("seen", "later", "steady"),
    [
        (RUNS_NEW, (), True),
        (RUNS_NEW, (boot(number=2, caused_by="reset: into run"),), True),
        (RUNS_NEW, (boot(number=2),), False),
        (replace(RUNS_NEW, panic=Panic("abort", "abort() was called", 8)), (), False),
        (None, (), True),
    ],
)
def test_an_app_runs_when_it_neither_dies_nor_starts_again_by_itself(
    seen: BootRecord | None, later: tuple[BootRecord, ...], steady: bool
) -> None:
    assert (unsteady(seen, later) is None) is steady


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (Seen(), "After: no boot was seen."),
        (
            Seen(SILENT),
            "After: nothing tells which slot the bootloader started (boot 1); its state was not printed.",
        ),
        (
            Seen(replace(RUNS_OLD, ota_state="pending", confirmed=True, not_bootable=("ota_1",))),
            "After: the bootloader gave up ota_1; the bootloader followed otadata to ota_0 (boot 1); "
            "its state is valid by the log.",
        ),
        (
            Seen(replace(RUNS_OLD, slot="factory", otadata_unreadable=True), Readings(confirmed="undefined")),
            "After: no valid record was found; the bootloader started factory, which no record names (boot 1); "
            "the witness says of its state: 'undefined'.",
        ),
        (
            Seen(replace(RUNS_NEW, ota_state="pending", otadata_written=True)),
            "After: the bootloader followed otadata to ota_1 (boot 1); it wrote the record of that slot anew; "
            "its state is pending by the log.",
        ),
    ],
)
def test_of_otadata_the_report_says_what_the_log_tells_and_why_no_more(seen: Seen, told: str) -> None:
    locked = why_not_read(observed=False, is_open=False)
    assert otadata_told(Seen(), seen, locked)[1:] == (
        told,
        "The two records and their sequence numbers are not known: its ROM gives no flash any more.",
    )


def test_a_claim_without_evidence_is_not_proven_whoever_makes_it() -> None:
    assert c.Judged.of(c.UPDATE, PROVEN, "").standing is NOT_PROVEN
    assert c.Judged.of(c.UPDATE, FAILED, "").standing is NOT_PROVEN
