"""Boot records from what other ESP-IDF versions, other chips and failing boards print."""

from __future__ import annotations

import json

import pytest
from console_samples import PARTITIONS, booted, boots_of, c3_rom, esp32_rom, event_text

from harness.chips import CHIPS
from harness.console import boot_tracker
from harness.console.boot_record import Outcome, records_to_json
from harness.console.reset_reason import ResetKind, reset_name
from harness.twin.rom_facts import ROMS

PLAIN_BOOT = booted("ota_1", "1.1.0")


def in_format(line: str, style: str) -> str:
    """`line` as another configuration of ESP-IDF's log prints it."""
    if not (line[:2] in ("I ", "W ", "E ") and line[2] == "("):
        return line
    level, rest = line[0], line[line.index(") ") + 2 :]
    stamp = line[3 : line.index(")")]
    if style == "bare":
        return f"{level} {rest}"
    if style == "clock":
        return f"{level} (00:00:{int(stamp) // 1000:02d}.{int(stamp) % 1000:03d}) {rest}"
    if style == "date":
        return f"{level} (2026-11-21 00:00:00.{int(stamp) % 1000:03d}) {rest}"
    if style == "colour":
        return f"\x1b[0;3{'.EWI'.index(level) % 3 + 1}m{line}\x1b[0m"
    return line


@pytest.mark.parametrize("style", ["plain", "colour", "bare", "clock", "date"])
def test_boot_is_understood_in_every_log_format(style):
    (record,) = boots_of(in_format(line, style) for line in PLAIN_BOOT)
    assert (record.slot, record.offset, record.version, record.project) == (
        "ota_1",
        0x1A0000,
        "1.1.0",
        "companion",
    )
    assert (record.encryption, record.plaintext_flashes_left) == ("release", 0)
    assert record.outcome is Outcome.APP


@pytest.mark.parametrize(
    ("banner", "reset", "chip", "code", "kind"),
    [
        (
            "ets Jun  8 2016 00:22:57",
            "rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
            "esp32",
            1,
            "power-on",
        ),
        (
            "ets Jul 29 2019 12:21:46",
            "rst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
            "esp32",
            0xC,
            "software",
        ),
        (
            "ets Jul 29 2019 12:21:46",
            "rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
            "esp32",
            16,
            "watchdog",
        ),
        (
            "ets Jul 29 2019 12:21:46",
            "rst:0xf (RTCWDT_BROWN_OUT_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)",
            "esp32",
            15,
            "brownout",
        ),
        (
            "ESP-ROM:esp32s3-20210327",
            "rst:0x15 (USB_UART_CHIP_RESET),boot:0x8 (SPI_FAST_FLASH_BOOT)",
            "esp32s3",
            0x15,
            "usb",
        ),
        (
            "ESP-ROM:esp32c6-20220919",
            "rst:0x5 (SLEEP_WAKEUP),boot:0xc (SPI_FAST_FLASH_BOOT)",
            "esp32c6",
            5,
            "deep-sleep",
        ),
        (
            "ESP-ROM:esp8684-api2-20220127",
            "rst:0x3 (RTC_SW_SYS_RST),boot:0xc (SPI_FAST_FLASH_BOOT)",
            "esp32c2",
            3,
            "software",
        ),
        (
            "ESP-ROM:esp32h2-20221101",
            "rst:0x12 (SUPER_WDT),boot:0xc (SPI_FAST_FLASH_BOOT)",
            "esp32h2",
            0x12,
            "watchdog",
        ),
        (
            "ESP-ROM:esp32p4-eco2-20240710",
            "rst:0xb (HP_CORE_HP_WDT_RESET),boot:0x20f (SPI_FAST_FLASH_BOOT)",
            "esp32p4",
            11,
            "watchdog",
        ),
        (
            "ESP-ROM:esp32c3-api1-20210207",
            "rst:0x17 (POWER_GLITCH_RESET),boot:0xf (SPI_FAST_FLASH_BOOT)",
            "esp32c3",
            0x17,
            "glitch",
        ),
    ],
)
def test_rom_of_every_chip_is_understood(banner, reset, chip, code, kind):
    (record,) = boots_of([banner, "", reset])
    assert (record.chip, record.reset_code, record.reset_kind) == (chip, code, ResetKind(kind))
    assert not record.download


@pytest.mark.parametrize("chip", CHIPS)
def test_every_reset_word_that_the_twins_rom_prints_is_listed(chip):
    for code, word in ROMS[chip].reasons.items():
        assert reset_name(chip, code) == word


@pytest.mark.parametrize("line", ["mode:DIO, clock div:2", "SPI mode:DIO, clock div:1"])
def test_flash_mode_is_read_from_older_and_newer_roms(line):
    (record,) = boots_of(
        ["ESP-ROM:esp32c5-eco2-20250121", "rst:0x1 (POWERON),boot:0x18 (SPI_FAST_FLASH_BOOT)", line]
    )
    assert record.flash_mode == "DIO"


@pytest.mark.parametrize(
    ("rom", "mode"),
    [
        (
            [
                "ets Jul 29 2019 12:21:46",
                "rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))",
            ],
            3,
        ),
        (["ESP-ROM:esp32c3-api1-20210207", "rst:0x1 (POWERON),boot:0x7 (DOWNLOAD(USB/UART0/1))"], 7),
    ],
)
def test_download_mode_is_seen(rom, mode):
    (record,) = boots_of([*rom, "waiting for download"])
    assert (record.outcome, record.boot_code) == (Outcome.DOWNLOAD, mode)
    assert record.summary().endswith("→ download mode")


@pytest.mark.parametrize(
    "without",
    [
        {0},  # the banner
        {0, 1},
        {2},  # the reset line
        set(range(6)),  # the whole ROM, as UART_PRINT_CONTROL may have it
    ],
)
def test_second_boot_is_seen_though_rom_lines_are_missing(without):
    second = [line for index, line in enumerate(booted("ota_0", "1.0.0")) if index not in without]
    records = boots_of([*booted("ota_1", "1.1.0"), *second])
    assert [(r.number, r.slot, r.version) for r in records] == [(1, "ota_1", "1.1.0"), (2, "ota_0", "1.0.0")]


def test_boot_is_seen_when_rom_and_bootloader_are_silent():
    app = PLAIN_BOOT[PLAIN_BOOT.index("I (288) cpu_start: Unicore app") :]
    assert [r.version for r in boots_of([*app, *app, *app])] == ["1.1.0"] * 3


def test_boot_event_alone_makes_a_record():
    texts = [
        event_text(
            0,
            "boot",
            slot="ota_1",
            offset=0x1A0000,
            version="2.0",
            fe="development",
            sb=True,
            state="pending",
        )
    ]
    (record,) = boots_of(texts)
    assert (record.slot, record.version, record.encryption, record.secure_boot) == (
        "ota_1",
        "2.0",
        "development",
        True,
    )
    assert record.ota_state == "pending"
    assert not record.from_start


def test_two_boot_events_are_two_boots():
    assert len(boots_of([event_text(0, "boot", version="1"), event_text(0, "boot", version="2")])) == 2


def test_boot_event_overrules_what_was_only_concluded():
    lines = [line for line in PLAIN_BOOT if "flash_encrypt" not in line and "Checking flash" not in line]
    assert boots_of(lines)[0].encryption == "off"
    assert boots_of([*lines, event_text(0, "boot", fe="release", sb=True)])[0].encryption == "release"


def test_log_that_begins_in_the_middle_of_a_boot_says_so():
    (record,) = boots_of(PLAIN_BOOT[9:])
    assert not record.from_start
    assert record.slot == "ota_1"
    assert "beginning not seen" in record.summary()


def test_old_idf_prints_the_version_under_another_tag():
    texts = [
        *esp32_rom(),
        "I (27) boot: ESP-IDF v4.4.6 2nd stage bootloader",
        "I (100) boot: Loaded app from partition at offset 0x10000",
        "I (110) boot: Disabling RNG early entropy source...",
        "I (200) cpu_start: Application information:",
        "I (201) cpu_start: App version:      0.9",
        "I (300) cpu_start: Starting scheduler on PRO CPU.",
    ]
    (record,) = boots_of(texts)
    assert (record.bootloader_version, record.version, record.app_started) == ("v4.4.6", "0.9", True)
    assert (record.encryption, record.secure_boot, record.slot) == ("off", False, None)


def test_fallback_boot_names_the_slot_that_was_given_up():
    extra = [
        "E (180) esp_image: image at 0x1a0000 has invalid magic byte (nothing flashed here?)",
        "E (190) boot: OTA app partition slot 1 is not bootable",
    ]
    (record,) = boots_of(booted("ota_0", "1.0.0", extra=extra))
    assert record.not_bootable == ("ota_1",)
    assert record.slot == "ota_0"
    assert [error.phase for error in record.errors] == ["bootloader", "bootloader"]


def test_debug_bootloader_states_a_rollback():
    extra = ["D (60) boot: otadata[1] is marking as ABORTED", "D (61) boot_comm: Only otadata[0] is valid"]
    (record,) = boots_of(booted("ota_0", "1.0.0", extra=extra))
    assert record.rollback_notes == ("otadata[1] is marking as ABORTED",)


def test_bootloader_that_finds_nothing_is_one_record_with_a_count():
    failing = [
        *c3_rom("0x3 (RTC_SW_SYS_RST)"),
        "I (1) boot: ESP-IDF v5.5.5 2nd stage bootloader",
        *PARTITIONS,
        "E (50) boot: OTA app partition slot 0 is not bootable",
        "E (51) boot: OTA app partition slot 1 is not bootable",
        "E (52) boot: No bootable app partitions in the partition table",
    ]
    (record,) = boots_of(failing * 20)
    assert record.outcome is Outcome.BOOTLOADER_FAILED
    assert record.repeats == 19
    assert "No bootable app partitions" in record.summary()
    assert "20 boots alike" in record.summary()


def blank_flash(resets: int, lines: int) -> list[str]:
    rom = ["ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021"]
    texts = []
    for boot in range(resets):
        reset = "0x7 (TG0WDT_SYS_RST)" if boot else "0x1 (POWERON)"
        texts += [
            *rom,
            f"rst:{reset},boot:0xf (SPI_FAST_FLASH_BOOT)",
            *["invalid header: 0xffffffff"] * lines,
        ]
    return texts


def test_invalid_header_loop_is_one_record_that_counts():
    (record,) = boots_of(blank_flash(30, 40))
    assert record.outcome is Outcome.ROM_FAILED
    assert (record.rom_header_word, record.rom_header_lines, record.repeats) == (0xFFFFFFFF, 1200, 29)
    assert record.reset_kind is ResetKind.POWER_ON
    assert record.summary() == (
        "boot 1: POWERON → no bootloader: invalid header 0xffffffff (1200 lines, 30 boots alike)"
    )


def test_loop_that_the_reader_counted_keeps_its_count():
    texts = [*blank_flash(1, 5), ">>> repeated: 5000 more times invalid header: 0xffffffff"]
    assert boots_of(texts)[0].rom_header_lines == 5005


def test_another_header_word_is_another_record():
    texts = [*blank_flash(3, 2), *c3_rom("0x7 (TG0WDT_SYS_RST)")[:3], "invalid header: 0x12345678"]
    assert [r.rom_header_word for r in boots_of(texts)] == [0xFFFFFFFF, 0x12345678]


@pytest.mark.parametrize("mark", [">>> reset: EN", ">>> flash: esptool has the port", ">>> power: on"])
def test_loop_is_cut_by_what_the_harness_does(mark):
    records = boots_of([*blank_flash(2, 2), mark, *blank_flash(2, 2)])
    assert [r.repeats for r in records] == [1, 1]


def test_good_boot_after_a_loop_is_the_next_number():
    records = boots_of([*blank_flash(9, 3), *booted("ota_0", "1.0.0")])
    assert [(r.number, r.outcome) for r in records] == [(1, Outcome.ROM_FAILED), (2, Outcome.APP)]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["flash read err, 1000", "ets_main.c 371 "], "flash read err, 1000"),
        (["csum err:0x5a!=0xef"], "csum err:0x5a!=0xef"),
        (["Checksum failure. Calculated 0x3 stored 0x4"], "Checksum failure"),
        (["SHA-256 comparison failed:", "Attempting to boot anyway..."], "SHA-256 comparison failed"),
        (["Invalid chip id. Expected 5 read 0. Bootloader for wrong chip?"], "Invalid chip id"),
        (["Sig block 0 signed with untrusted key", "secure boot verification failed"], "Sig block 0"),
        (["Falling back to built-in command interpreter."], "command interpreter"),
    ],
)
def test_rom_failures_are_errors_of_the_rom(texts, said):
    (record,) = boots_of([*esp32_rom()[:5], *texts])
    assert record.outcome is Outcome.ROM_FAILED
    assert said in record.errors[0].text
    assert record.errors[0].phase == "rom"


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        (
            ["SHA-256 simple hash comparison failed.", "secure boot verification failed", "ets_main.c 333 "],
            True,
        ),
        (["Sig block 0 invalid: Image digest does not match", "secure boot verification failed"], True),
        (["flash read err, 1000", "ets_main.c 371 "], False),
        (["Sig block 0 invalid: Image digest does not match", "secure boot verification succeeded"], False),
    ],
)
def test_a_rom_that_refuses_a_signature_has_said_its_last_word(texts, refused):
    """In an emulator no watchdog ends the wait that follows."""
    (record,) = boots_of([*c3_rom()[:5], *texts])
    assert record.rom_refused is refused
    assert not record.errors or record.errors[0].text == texts[0].strip(".")


GURU = [
    "Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.",
    "",
    "Core  0 register dump:",
    "PC      : 0x400d1234  PS      : 0x00060030  A0      : 0x800d5678  A1      : 0x3ffb5e10",
    "Backtrace: 0x400d1234:0x3ffb5e10 0x400d5675:0x3ffb5e30 |<-CORRUPTED",
    "ELF file SHA256: 0123abcd5",
    "Rebooting...",
]


@pytest.mark.parametrize(
    ("texts", "kind", "text", "pc"),
    [
        (GURU, "exception", "LoadProhibited", 0x400D1234),
        (
            [
                "Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.",
                "MEPC    : 0x42007b3a",
            ],
            "exception",
            "Load access fault",
            0x42007B3A,
        ),
        (
            ["Guru Meditation Error: Core  1 panic'ed (Interrupt wdt timeout on CPU1)."],
            "interrupt-watchdog",
            "Interrupt wdt timeout on CPU1",
            None,
        ),
        (["abort() was called at PC 0x400d1234 on core 0"], "abort", "abort() was called", 0x400D1234),
        (
            ["assert failed: app_main main.c:12 (ok)", "abort() was called at PC 0x400d1234 on core 0"],
            "assert",
            "assert failed: app_main main.c:12 (ok)",
            None,
        ),
        (
            ["ESP_ERROR_CHECK failed: esp_err_t 0x105 (ESP_ERR_NOT_FOUND) at 0x400d1234"],
            "error-check",
            "ESP_ERROR_CHECK failed: esp_err_t 0x105 (ESP_ERR_NOT_FOUND) at 0x400d1234",
            None,
        ),
        (
            ["***ERROR*** A stack overflow in task main has been detected."],
            "stack-overflow",
            "A stack overflow in task main has been detected",
            None,
        ),
        (
            ["E (5000) task_wdt: Task watchdog got triggered. The following tasks/users did not reset it"],
            "task-watchdog",
            "Task watchdog got triggered",
            None,
        ),
        (["E BOD: Brownout detector was triggered"], "brownout", "Brownout detector was triggered", None),
    ],
)
def test_panics_are_typed(texts, kind, text, pc):
    records = boots_of([*PLAIN_BOOT, *texts, *booted("ota_1", "1.1.0")])
    panic = records[0].panic
    assert (panic.kind, panic.text, panic.pc) == (kind, text, pc)
    assert records[0].panics == 1
    assert records[1].panic is None


def test_backtrace_is_kept_with_the_panic():
    assert boots_of([*PLAIN_BOOT, *GURU])[0].panic.backtrace.startswith("0x400d1234:0x3ffb5e10")


def test_reset_in_the_middle_of_a_line_begins_the_next_boot():
    first, second = booted("ota_1", "1.1.0"), booted("ota_0", "1.0.0")
    glued = [*first, "I (4741) app: READY vers" + second[0], *second[1:]]
    assert [(r.slot, r.reset_reason) for r in boots_of(glued)] == [
        ("ota_1", "RTC_SW_CPU_RST"),
        ("ota_0", "RTC_SW_CPU_RST"),
    ]


def test_text_glued_to_the_reset_line_is_read_too():
    texts = [*c3_rom()[:2], c3_rom()[2] + "I (1) boot: ESP-IDF v5.5.5 2nd stage bootloader (x)"]
    (record,) = boots_of(texts)
    assert (record.boot_mode, record.bootloader_version) == ("SPI_FAST_FLASH_BOOT", "v5.5.5")


def test_gap_ends_a_boot_and_what_follows_is_another():
    records = boots_of([*c3_rom()[:3], ">>> returned: after 1.0 s", *PLAIN_BOOT[9:]])
    assert [(r.outcome, r.from_start) for r in records] == [(Outcome.UNFINISHED, True), (Outcome.APP, False)]


def test_commands_tell_of_updates_and_confirmation():
    texts = [
        *booted("ota_0", "1.0.0", state="pending"),
        event_text(1, "ack", id=1, cmd="confirm", ok=True),
        event_text(2, "done", id=1, ok=True),
        event_text(3, "ack", id=2, cmd="ota", ok=True),
        event_text(5, "done", id=2, ok=True),
    ]
    (record,) = boots_of(texts)
    assert record.confirmed
    assert record.ota_state == "pending"
    assert record.updates == ("command 'ota' done",)
    assert record.missed_events == 1


def test_failed_command_is_no_update():
    texts = [
        *booted("ota_0", "1.0.0"),
        event_text(1, "ack", id=2, cmd="ota", ok=True),
        event_text(2, "done", id=2, ok=False, err="wrong-slot"),
    ]
    assert boots_of(texts)[0].updates == ()


def test_errors_of_a_noisy_boot_are_bounded_and_the_rest_counted():
    record = boots_of([*PLAIN_BOOT, *[f"E ({n}) wifi: lost {n}" for n in range(500)]])[0]
    assert len(record.errors) + record.errors_dropped == 500
    assert len(record.errors) < 100
    assert record.boot_errors == ()


def test_records_of_a_board_that_crashes_all_night_are_bounded(monkeypatch):
    monkeypatch.setattr(boot_tracker, "MAX_RECORDS", 30)
    crash = [*booted("ota_0", "1.0.0"), "abort() was called at PC 0x400d1234 on core 0"]
    records = boots_of(crash * 50)
    assert len(records) == 31
    assert records[-1].number == 50


def test_json_has_a_format_version_and_survives_a_round_trip():
    texts = [*booted("ota_0", "1.0.0", state="valid"), *GURU, *blank_flash(2, 2)]
    document = json.loads(json.dumps(records_to_json(boots_of(texts))))
    first, second = document["boots"]
    assert document["format"] == first["format"] == 1
    assert (first["slot"], first["offset"], first["reset_kind"], first["outcome"]) == (
        "ota_0",
        0x20000,
        "software",
        "app",
    )
    assert first["panic"]["kind"] == "exception"
    assert first["evt_boot"]["state"] == "valid"
    assert second["repeats"] == 1


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([">>> reset: into run", *PLAIN_BOOT], "reset: into run"),
        ([">>> power: on (hub 1 port 2)", *PLAIN_BOOT], "power: on (hub 1 port 2)"),
        (
            [">>> opened: x", ">>> reset: opening /dev/ttyUSB0 (…)", *PLAIN_BOOT],
            "reset: opening /dev/ttyUSB0 (…)",
        ),
        ([">>> reset: into download", ">>> reset: into run", *PLAIN_BOOT], "reset: into run"),
        # The beginning was lost while the device was off the bus.
        ([">>> reset: into run", ">>> gap: port vanished", *PLAIN_BOOT[-4:]], "reset: into run"),
        # By itself: long after the reset, after the port was lent, or in the middle of a boot.
        ([">>> reset: into run", *[">>> note: x"] * 11, *PLAIN_BOOT], None),
        ([">>> reset: into download", ">>> returned: after 1 s", *PLAIN_BOOT], None),
        ([">>> opened: x", ">>> reset: opening /dev/ttyUSB0 (…)", *PLAIN_BOOT[-4:]], None),
        (PLAIN_BOOT, None),
    ],
)
def test_a_boot_that_the_harness_caused_says_by_what(texts, expected):
    records = boots_of(texts)
    assert records[0].caused_by == expected
    assert records_to_json(records)["boots"][0]["caused_by"] == expected


def test_only_the_first_boot_after_a_reset_is_its_own():
    causes = [record.caused_by for record in boots_of([">>> reset: into run", *PLAIN_BOOT, *PLAIN_BOOT])]
    assert causes == ["reset: into run", None]


def test_a_boot_after_a_command_that_restarts_names_the_command():
    restart = [event_text(0, "ack", id=7, cmd="reboot", ok=True)]
    causes = [record.caused_by for record in boots_of([*PLAIN_BOOT, *restart, *PLAIN_BOOT])]
    assert causes == [None, "command 'reboot'"]
