"""Records of runs as they could be, with their logs, made without any board: from one test to two hundred."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.console.boot_tracker import BootTracker
from harness.console.log_file import read_log, stamp
from harness.report.run_record import (
    AppFacts,
    BoardRecord,
    ClaimRecord,
    Event,
    Extent,
    FlashChange,
    FlashMap,
    FlashStep,
    OtadataSector,
    OtadataView,
    Outcome,
    PartitionRow,
    RunRecord,
    TestRecord,
)

BEGAN_S = 1795717619.0
IMAGE = 97600
SLOTS = {"ota_0": 0x20000, "ota_1": 0x1A0000}
PARTITIONS = (
    PartitionRow(label="bootloader", offset=0x0, size=0x10000, kind="bootloader"),
    PartitionRow(label="partition-table", offset=0x10000, size=0x1000, kind="table"),
    PartitionRow(label="nvs", offset=0x11000, size=0x6000, kind="data"),
    PartitionRow(label="otadata", offset=0x17000, size=0x2000, kind="otadata"),
    PartitionRow(label="phy_init", offset=0x19000, size=0x1000, kind="data"),
    PartitionRow(label="ota_0", offset=0x20000, size=0x180000, kind="app"),
    PartitionRow(label="ota_1", offset=0x1A0000, size=0x180000, kind="app"),
)


def extent(offset: int, size: int, content: str, source: str) -> Extent:
    """One stretch of flash."""
    return Extent.model_validate({"offset": offset, "size": size, "content": content, "source": source})


PROVISIONED = (
    extent(0x0, 3488, "ciphertext", "written"),
    extent(0x10000, 3072, "ciphertext", "written"),
    extent(0x17000, 0x2000, "ciphertext", "written"),
    extent(0x20000, IMAGE, "ciphertext", "written"),
    extent(0x20000 + IMAGE, 0x180000 - IMAGE, "erased", "observed"),
)


@dataclass
class Bench:
    """A board in the making: its log grows with each test."""

    name: str
    chip: str
    profile: str
    at_s: float = BEGAN_S
    lines: list[str] = field(default_factory=list)
    slot: str = "ota_0"
    version: str = "1.0.0"
    sequence: int = 1
    updates: int = 0

    def say(self, text: str, *, sign: str = "|", wait_s: float = 0.002) -> int:
        """Appends a line; gives its number."""
        self.at_s += wait_s
        self.lines.append(f"{stamp(self.at_s)} {sign} {text}")
        return len(self.lines) - 1

    def boot(self, reason: str = "RTC_SW_CPU_RST", *, state: str = "valid") -> dict[str, int]:
        """What a board prints from reset to its first event; the lines that events point to."""
        offset = SLOTS[self.slot]
        at = {"rom": self.say("ESP-ROM:esp32c3-api1-20210207")}
        code = "1" if reason == "POWERON" else "c"
        self.say(f"rst:0x{code} ({reason}),boot:0x8 (SPI_FAST_FLASH_BOOT)")
        at["bootloader"] = self.say("I (24) boot: ESP-IDF v5.5.5 2nd stage bootloader")
        self.say("I (58) boot: ## Label            Usage          Type ST Offset   Length")
        self.say("I (83) boot:  3 ota_0            OTA app          00 10 00020000 00180000")
        self.say("I (90) boot:  4 ota_1            OTA app          00 11 001a0000 00180000")
        at["slot"] = self.say(f"I (128) boot: Loaded app from partition at offset 0x{offset:x}")
        self.say("I (142) flash_encrypt: flash encryption is enabled (0 plaintext flashes left)")
        at["app"] = self.say("I (154) app_init: Project name:     companion", wait_s=0.012)
        self.say(f"I (154) app_init: App version:      {self.version}")
        self.say("I (154) app_init: ESP-IDF:          v5.5.5")
        self.say("I (154) flash_encrypt: Flash encryption mode is RELEASE")
        self.say("I (156) main_task: Calling app_main()")
        self.say(
            f'@evt {{"n":0,"ev":"boot","proto":1,"project":"companion","version":"{self.version}","slot":"{self.slot}",'
            f'"offset":{offset},"state":"{state}","fe":"release","sb":false}}'
        )
        return at


def flash(bench: Bench, written: tuple[str, ...]) -> FlashMap:
    """The flash with these slots written by updates."""
    extents = list(PROVISIONED)
    for slot in written:
        extents = [e for e in extents if not SLOTS[slot] <= e.offset < SLOTS[slot] + 0x180000]
        extents.append(extent(SLOTS[slot], IMAGE, "ciphertext", "told"))
        extents.append(extent(SLOTS[slot] + IMAGE, 0x20000, "erased", "told"))
    return FlashMap(size=4 << 20, partitions=PARTITIONS, extents=tuple(extents))


def otadata(sequence: int, state: str) -> OtadataView:
    """Both sectors when `sequence` was written last."""

    def sector(number: int) -> OtadataSector:
        if number < 1:
            return OtadataSector(sequence=None, state="blank")
        slot = f"ota_{(number - 1) % 2}"
        return OtadataSector(sequence=number, state=state if number == sequence else "valid", slot=slot)

    newest = (sequence - 1) % 2
    sectors = (sector(sequence), sector(sequence - 1))
    return OtadataView(sectors=sectors if newest == 0 else sectors[::-1], active=newest, source="observed")


def update_test(bench: Bench, n: int, name: str, outcome: Outcome, updates: int = 1) -> TestRecord:
    """A test in which a board is updated `updates` times."""
    began, first = bench.at_s, len(bench.lines)
    events: list[Event] = []
    steps: list[FlashStep] = []
    claims: list[ClaimRecord] = []
    before = flash(bench, () if bench.updates == 0 else ("ota_1",))
    otadata_before = otadata(bench.sequence, "valid")
    events.append(
        Event(at_s=bench.at_s, kind="mark", text="test begins", line=bench.say(f"note: {name}", sign=">>>"))
    )
    for _ in range(updates):
        bench.updates += 1
        slot = "ota_1" if bench.slot == "ota_0" else "ota_0"
        version = f"1.{bench.updates}.0"
        bench.say(f"sent: ota id=5 url=http://127.0.0.1:43929/d/****/{version}.pkg crc=15a35f6d", sign=">>>")
        for phase, count, took in (
            ("header", 256, 0.001),
            ("erase", 98304, 0.45),
            ("write", IMAGE, 0.31),
            ("verify", IMAGE, 0.021),
        ):
            at = bench.at_s
            line = bench.say(
                f'@evt {{"ev":"ota","phase":"{phase}","bytes":{count},"total":{IMAGE}}}', wait_s=took
            )
            events.append(Event(at_s=at, kind="update", text=phase, duration_s=took, size=count, line=line))
        events.append(
            Event(
                at_s=bench.at_s - 0.4, kind="served", text=f"{version}.pkg, 200", duration_s=0.33, size=97856
            )
        )
        selected = bench.say(f"I (308) raw_ota: {slot} (version {version}) is selected for the next boot")
        base, sector = SLOTS[slot], bench.sequence % 2
        steps.append(
            FlashStep(
                text=f"update to {version}",
                at_s=bench.at_s,
                by="firmware",
                source="told",
                line=line,
                changes=(
                    FlashChange(kind="erase", offset=base, size=98304),
                    FlashChange(kind="write", offset=base, size=IMAGE, encrypted=True),
                ),
            )
        )
        steps.append(
            FlashStep(
                text=f"otadata names {slot}",
                at_s=bench.at_s,
                by="firmware",
                source="told",
                line=selected,
                changes=(
                    FlashChange(kind="erase", offset=0x17000 + sector * 0x1000, size=0x1000),
                    FlashChange(kind="write", offset=0x17000 + sector * 0x1000, size=32, encrypted=True),
                ),
            )
        )
        bench.sequence += 1
        bench.slot, bench.version = slot, version
        reset = bench.say("sent: reboot id=6 crc=0177d452", sign=">>>", wait_s=1.7)
        events.append(Event(at_s=bench.at_s, kind="reset", text="command 'reboot'", line=reset))
        at = bench.boot(state="pending")
        times = [bench.at_s - 0.03, bench.at_s - 0.026, bench.at_s - 0.012]
        kinds = (
            ("rom", "ROM", "rom"),
            ("bootloader", "bootloader", "bootloader"),
            ("app", f"app {version}", "app"),
        )
        for moment, (kind, text, where) in zip(times, kinds, strict=True):
            events.append(Event(at_s=moment, kind=kind, text=text, duration_s=0.01, line=at[where]))
        claims.append(
            ClaimRecord(
                text=f"the log proves the switch to {version}",
                standing="proven",
                evidence=f"{slot} @ 0x{base:x}, {version}",
                line=at["slot"],
            )
        )
        bench.say('@evt {"n":4,"ev":"done","id":7,"cmd":"confirm","ok":true,"state":"valid"}')
    cause = detail = None
    if outcome == "failed":
        line = bench.say("E (512) esp_image: invalid segment length 0xf3a91c07")
        events.append(Event(at_s=bench.at_s, kind="error", text="invalid segment length", line=line))
        claims.append(
            ClaimRecord(
                text="the version stays after a restart", standing="failed", evidence="ota_0 runs", line=line
            )
        )
        cause = f"After the restart ota_0 ran 1.0.0, expected {bench.slot} with {bench.version}."
        detail = f"def test_it(board):\n>   assert boot.slot == {bench.slot!r}\nE   AssertionError: {cause}"
    elif outcome == "error":
        cause = "The board did not answer 'status' within 5 s."
    elif outcome == "not proven":
        claims.append(ClaimRecord(text="the log says the encryption", standing="not proven", evidence=""))
        cause = "The log was silent about flash encryption."
    return TestRecord(
        id=f"tests/ota/test_switch.py::{name}[{bench.name}-{bench.profile}]",
        name=name,
        outcome=outcome,
        began_s=began,
        duration_s=bench.at_s - began,
        board=bench.name,
        profile=bench.profile,
        cause=cause,
        detail=detail,
        repeat=f"pytest 'tests/ota/test_switch.py::{name}' --board {bench.name} --profile {bench.profile}",
        claims=tuple(claims),
        events=tuple(events),
        first_line=first,
        last_line=len(bench.lines) - 1,
        flash_before=before,
        flash_after=flash(bench, ("ota_1",) if bench.updates == 1 else ("ota_0", "ota_1")),
        flash_steps=tuple(steps),
        otadata_before=otadata_before,
        otadata_after=otadata(bench.sequence, "valid"),
        sources=("esp-idf #6172",) if n % 7 == 0 else (),
        properties={"requirement": f"OTA-{n}"} if n % 5 == 0 else {},
    )


def skipped_test(bench: Bench, name: str, outcome: Outcome, cause: str) -> TestRecord:
    """A test that was left out."""
    return TestRecord(
        id=f"tests/ota/test_busy.py::{name}[{bench.name}]",
        name=name,
        outcome=outcome,
        began_s=bench.at_s,
        duration_s=0.0,
        board=bench.name,
        profile=bench.profile,
        cause=cause,
    )


NAMES = (
    "the main job, there and back",
    "a dropped connection costs nothing",
    "a second update while one runs is refused",
    "an older version is refused",
    "the power cut in the middle of an erase",
    "a package for another slot is refused before anything is erased",
)


def board_record(bench: Bench, folder: Path) -> BoardRecord:
    """What the bench is, with its log written into `folder`."""
    log = Path(bench.name) / f"serial-{bench.profile}.log"
    (folder / log).parent.mkdir(parents=True, exist_ok=True)
    (folder / log).write_text("\n".join(bench.lines) + "\n", encoding="utf-8")
    tracker = BootTracker()
    for line in read_log(folder / log):
        tracker.feed(line)
    return BoardRecord(
        name=bench.name,
        link="twin",
        chip=bench.chip,
        virtual=True,
        mac="7c:df:a1:8e:74:4a",
        revision="v0.3",
        profile=bench.profile,
        lock="secure-download",
        fuses={
            "SPI_BOOT_CRYPT_CNT": "0x7 (flash encryption on, for good)",
            "DIS_DOWNLOAD_MANUAL_ENCRYPT": "1",
            "ENABLE_SECURITY_DOWNLOAD": "1",
            "KEY_PURPOSE_0": "XTS_AES_128_KEY, not readable, not writeable",
        },
        app=AppFacts(
            project="companion", version="1.0.0", sha256="5c" * 32, idf_version="v5.5.5", kind="native"
        ),
        plan_text=(
            f"Plan 217163c56a990492: {bench.chip} 7c:df:a1:8e:74:4a to {bench.profile}, lock secure-download",
            "   1   make a flash key for this chip, store it in the vault, read it back",
            "   2 ! burn the flash key into BLOCK_KEY0 with purpose XTS_AES_128_KEY",
            "   3 ! burn ENABLE_SECURITY_DOWNLOAD; from then on the UART takes flash writes only",
        ),
        log=log.as_posix(),
        boots=tuple(record.to_json() for record in tracker.records),
        prepared=TestRecord(
            id=f"prepare/{bench.name}",
            name="preparation",
            outcome="passed",
            began_s=BEGAN_S,
            duration_s=0.05,
            board=bench.name,
            profile=bench.profile,
            events=(Event(at_s=BEGAN_S, kind="reset", text="into run", line=0),),
            first_line=0,
            last_line=14,
            flash_after=flash(bench, ()),
        ),
        marks=("key 5819ec36a25ec8ce is test-only: do not ship this device",),
    )


def made_run(folder: Path, tests: int = 8, boards: int = 2, *, all_pass: bool = False) -> RunRecord:
    """A run of `tests` tests over `boards` boards, two in twelve not passed unless `all_pass`; logs in `folder`."""
    chips = ("esp32c3", "esp32s3", "esp32", "esp32c6")
    benches = [Bench(f"desk-{n}", chips[n % 4], "release") for n in range(boards)]
    for bench in benches:
        bench.say(f"opened: {bench.name}, local time is UTC+0000, monotonic clock 34921.575 s", sign=">>>")
        bench.boot("POWERON")
    records = []
    for n in range(tests):
        bench = benches[n % boards]
        name = NAMES[n % len(NAMES)] if n < len(NAMES) else f"{NAMES[n % len(NAMES)]}, row {n}"
        kind: Outcome = "passed"
        if not all_pass:
            odd: dict[int, Outcome] = {
                1: "failed",
                5: "skipped",
                7: "not proven",
                9: "not applicable",
                11: "error",
            }
            kind = odd.get(n % 12 if n < 24 else n % 48, "passed")
        if kind in ("skipped", "not applicable"):
            cause = {
                "skipped": "needs power: the link of this board can only reset",
                "not applicable": "no key: the device made its own",
            }[kind]
            records.append(skipped_test(bench, name, kind, cause))
        else:
            records.append(update_test(bench, n, name, kind, updates=2 if n == 0 else 1))
    failed = any(record.outcome in ("failed", "error") for record in records)
    return RunRecord(
        id="20261126-182659-4f3a",
        kind="pytest",
        subject=f"tests/ota on {boards} boards",
        command="pytest tests/ota --rack -n auto",
        began_s=BEGAN_S,
        ended_s=max(bench.at_s for bench in benches),
        verdict="failed" if failed else "passed",
        reason="2 tests failed: the first is 'a dropped connection costs nothing'." if failed else "",
        user="jo",
        host="bench-1",
        versions={
            "harness": "0.1.0",
            "python": "3.11.7",
            "esptool": "5.6.0",
            "pytest": "8.3",
            "esp-idf": "v5.5.5",
        },
        boards=tuple(board_record(bench, folder) for bench in benches),
        tests=tuple(records),
        notes=("12 rows of which another one takes the same way through the code were left out (--full).",),
    )
