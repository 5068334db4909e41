"""A board at its link, whatever app runs on it: its ROM, its resets and boots, its log, its flash from outside.

What it takes an app that speaks for (commands, updates) is `harness.board`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.build.app_dir import AppDirectory
from harness.chips import Chip
from harness.console.boot_record import BootRecord, Outcome
from harness.console.inference import Finding, boots_to_json, find, with_findings
from harness.console.reader import Console
from harness.dut import HarnessDut
from harness.embedded.app import HarnessApp
from harness.errors import BoardError, NotApplicableError, UsageError
from harness.formats.flash_encryption import decrypt, encrypt, pad_to_block
from harness.formats.otadata import OTADATA_SIZE_BYTES, OtaData
from harness.formats.partition_table import Partition, PartitionTable
from harness.links.flash_log import END_OF_FLASH_LOG, FlashChange, merged
from harness.links.link import BootMode, Link
from harness.power import Power
from harness.power.noted import NotedPower
from harness.provision.chip_state import ChipState
from harness.provision.device_record import DeviceRecords
from harness.provision.flash_baud import FlashBauds
from harness.provision.identity import Identity
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.provision.rom import RomSession
from harness.provision.time_needed import TimeLeft
from harness.run_note import RunNote
from harness.vault.key_ref import KeyState
from harness.vault.vault import Vault

BOOT_TIMEOUT_S = 30.0
"""From reset to the firmware's boot event; a real board with Wi-Fi takes a few seconds."""

DOWNLOAD_OFF = re.compile(r"Download mode is disabled|Download boot modes disabled")
"""ESP32's and the later chips' ROM, when a strap asks for a download mode that eFuses have switched off."""

DOWNLOAD_OFF_TIMEOUT_S = 2.0

TWIN_STOPS = re.compile(r"^twin: ")
"""A twin that cannot go on says why: the app is for the chip, or the bootloader is not known to it."""

DEFAULT_FLASH_BYTES = 4 << 20
"""Of a flash chip that cannot be asked and that no build tells of."""

ROM_TIMEOUT_S = 3.0
"""esptool's default for one answer."""


class LinkedBoard:
    """What can be done with a board by its link alone; `harness.board.Board` is the whole of it."""

    def __init__(
        self,
        name: str,
        chip: Chip,
        link: Link,
        *,
        folder: Path,
        vault: Callable[[], Vault],
        records: DeviceRecords,
        power: Power | None = None,
        declared_mac: str | None = None,
        bauds: FlashBauds | None = None,
        bench_vault: Callable[[], Vault] | None = None,
        claim: Callable[[str], None] | None = None,
        offers: frozenset[str] = frozenset(),
    ) -> None:
        """Reads nothing yet: whoever is complete starts `console`. `claim` is called with every MAC that it tells.

        `offers` are capabilities that do not come from its link: see `harness.rack.offers`.
        """
        self.name = name
        self.chip = chip
        self.link = link
        self.folder = folder
        self.records = records
        self.profile: Profile | None = None
        """The profile it was prepared in; None before `harness.preparation.prepare`."""
        self.lock: Lock | None = None
        """What is left of its UART download; None as `profile`."""
        self.table: PartitionTable | None = None
        self.mac: str | None = None
        self.identity = Identity(name, physical=link.physical, declared=declared_mac, claim=claim)
        """Guards every way of writing to it."""
        self.plans: tuple[Plan, ...] = ()
        """What was planned for it in this run, the latest last."""
        self.app: AppDirectory | None = None
        """What is flashed over the UART first; None before it was planned for."""
        self.console = Console(link.port, log_path=folder / "serial.log", name=name)
        self._offers = offers
        self._vault = vault
        self._bench_vault = bench_vault
        self._bauds = bauds
        self._power = (
            NotedPower(power, link, lambda text: self.console.note(text, kind="power")) if power else None
        )
        self._dut: HarnessDut | None = None
        self._opened_vault: Vault | None = None
        self.on_rom_output: Callable[[str], None] | None = None
        self.run_note = RunNote(None, "")
        """What is being done to it, for the next run, should this one be killed."""
        self.time_left = TimeLeft.on(link.kind, None)
        """When this run may be ended from outside, and what burns need on this link."""

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """What a test may demand of this board with ``@pytest.mark.needs``."""
        gone = {"uart-download"} if self.lock is Lock.DOWNLOAD_OFF else set()
        more = {"power"} if self._power is not None else set()
        options = (self.app.sdkconfig if self.app is not None else None) or {}
        if options.get("CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK") == "y":
            more.add("anti-rollback")
        return (self.link.capabilities | self._offers | more) - gone

    @property
    def power(self) -> Power:
        """What switches its supply: ``off()``, ``on()``, ``cycle()`` (capability ``power``).

        Raises:
            UsageError: nothing does.
        """
        if self._power is None:
            raise UsageError(
                "its supply cannot be switched", board=self.name, todo="give 'power' in its entry"
            )
        return self._power

    @property
    def vault(self) -> Vault:
        """The vault that holds this board's key; opened when first needed."""
        if self._opened_vault is None:
            self._opened_vault = self._vault()
        return self._opened_vault

    def choose_vault(self, profile: Profile) -> None:
        """In profile ``open`` a physical board's packages are signed with a key of the bench, and no vault is opened.

        Nothing is secret there, and a first look at a board must not begin with making a vault.
        """
        if self._bench_vault is not None:
            self._opened_vault = self._bench_vault() if profile is Profile.OPEN else None

    @property
    def log_path(self) -> Path:
        """The time-stamped serial log; the raw bytes lie beside it."""
        return self.console.log_path

    @property
    def uart_bytes(self) -> int:
        """Bytes that have gone over the UART, both ways."""
        port = self.link.port
        return int(port.bytes_read) + int(port.bytes_written)

    @property
    def encrypts(self) -> bool:
        """Whether flash is encrypted in the profile it was prepared in."""
        return self.profile is not None and self.profile.encrypts

    @property
    def slots(self) -> tuple[Partition, ...]:
        """Its OTA slots, by index."""
        return self._known_table().ota_slots

    def slot(self, label: str) -> Partition:
        """The slot called `label`."""
        return self._known_table().find(label)

    def other_slot(self, label: str) -> Partition:
        """The slot after `label`, in the order in which updates go round.

        Raises:
            UsageError: `label` is no OTA slot.
        """
        slots = self.slots
        if self.slot(label) not in slots:
            raise UsageError(f"{label} is no OTA slot", board=self.name)
        return slots[(slots.index(self.slot(label)) + 1) % len(slots)]

    def _known_table(self) -> PartitionTable:
        if self.table is None:
            raise BoardError("has no known partition table: it has not been prepared", board=self.name)
        return self.table

    def _known_mac(self) -> str:
        if self.mac is None:
            raise BoardError("has not been identified", board=self.name)
        return self.mac

    def _key(self) -> bytes | None:
        if not self.encrypts:
            return None
        known = self.vault.key_record(self._known_mac())
        if known is None or known.state is KeyState.DEVICE_MADE:
            raise NotApplicableError(
                "not applicable: no key. Its flash key was made by the device or elsewhere: no host can encipher an "
                "update for it",
                board=self.name,
                todo="update it with the stock handler, which enciphers on the device",
            )
        return self.vault.flash_key(self._known_mac())

    # --- the ROM ------------------------------------------------------------------------------------------------

    @contextmanager
    def rom(self, *, writes_flash: bool = True, only_otadata: bool = False) -> Iterator[RomSession]:
        """Resets into download mode and lends the port to esptool and espefuse until the block ends.

        Raises:
            RefusedError: it is to be written to, and is not identified.
        """
        with self.console.lend("esptool", writes_flash=writes_flash, only_otadata=only_otadata) as port:
            # The reader polls with a short time-out; esptool wants its own default where it sets none.
            port.timeout = ROM_TIMEOUT_S
            self.reset(BootMode.DOWNLOAD)
            asked, known = self.link.flash_baud, self.identity.found
            with RomSession(
                port,
                self.chip,
                baud=self._bauds.start_at(known, asked) if self._bauds else asked,
                flash_size_bytes=self.app.flash_size_bytes if self.app else DEFAULT_FLASH_BYTES,
                reset=lambda: self.reset(BootMode.DOWNLOAD),
                board=self.name,
                when_silent=self.link.when_silent,
                log=self._rom_said,
            ) as session:
                told = session.mac
                if told is not None:
                    self.identity.told(told)
                if writes_flash:
                    self.identity.require()
                began_at = session.baud
                yield session
                if self._bauds and self.identity.found and session.baud and session.baud != began_at:
                    self._bauds.remember(self.identity.found, asked, session.baud)

    def _rom_said(self, text: str) -> None:
        self.console.note(text, kind="tool")
        if self.on_rom_output is not None:
            self.on_rom_output(text)

    def read_state(self) -> ChipState:
        """eFuses and download mode as the ROM tells them; nothing is written."""
        with self.rom(writes_flash=False) as session:
            return session.state()

    def says_download_is_off(self) -> bool:
        """Whether the ROM, asked for download mode, answers that it has none any more."""
        mark = self.console.mark()
        self.reset(BootMode.DOWNLOAD)
        try:
            self.console.wait_for(DOWNLOAD_OFF, DOWNLOAD_OFF_TIMEOUT_S, since=mark)
        except BoardError:
            return False
        return True

    def overwrite(self, offset: int, data: bytes, *, enciphered: bool = False) -> None:
        """Writes bytes at a flash offset (a multiple of 4096) over the UART, whatever lies there.

        Works as long as UART download is not off; in Secure Download Mode nothing is read back.

        Args:
            enciphered: encipher them for their place, so that the board reads `data`; else they lie there as they are,
                and an encrypting board reads noise.
        """
        key = self._key() if enciphered else None
        if key is not None:
            data = encrypt(self.chip.cipher, key, offset, pad_to_block(data))
        otadata = self._known_table().otadata
        with self.rom(only_otadata=otadata is not None and offset == otadata.offset) as session:
            session.write_flash([(offset, data)], force=True)

    def read_otadata(self) -> OtaData:
        """Both otadata records as the bootloader sees them: read raw over the UART, deciphered here.

        Raises:
            BoardError: the ROM does not let flash be read.
        """
        place = self._otadata()
        with self.rom(writes_flash=False) as session:
            raw = session.read_flash(place.offset, OTADATA_SIZE_BYTES)
        key = self._key()
        return OtaData.from_bytes(decrypt(self.chip.cipher, key, place.offset, raw) if key else raw)

    def write_otadata(self, records: OtaData, *, enciphered: bool = True) -> None:
        """Writes otadata over the UART: enciphered for its place, or (the mistake) as plaintext."""
        place, key = self._otadata(), self._key()
        data = records.to_bytes()
        if enciphered and key is not None:
            data = encrypt(self.chip.cipher, key, place.offset, data)
        self.overwrite(place.offset, data)

    def _otadata(self) -> Partition:
        place = self._known_table().otadata
        if place is None:
            raise BoardError("has no otadata partition", board=self.name)
        return place

    # --- boot ---------------------------------------------------------------------------------------------------

    def reset(self, mode: BootMode) -> None:
        """Resets the board by its link, and notes it in the log; waits for nothing.

        Raises:
            LabError: the link is gone.
        """
        self.console.note(f"into {mode.value}", kind="reset")
        self.link.reset(mode)

    def restart(self, *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Resets the board by its link and waits until the firmware is up.

        Raises:
            BoardError: no firmware within `timeout_s`; the message ends with the last boot and the log's path.
        """
        mark = self._reset()
        return self._await_firmware(mark, timeout_s)

    def await_boot(self, since: int, *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Waits until the firmware is up in a boot of its own accord, after the mark `since` (``console.mark()``).

        Raises:
            BoardError: as `restart`.
        """
        return self._await_firmware(since, timeout_s)

    def watch_boot(
        self, *, until: Callable[[BootRecord], bool] | None = None, timeout_s: float = BOOT_TIMEOUT_S
    ) -> BootRecord:
        """Resets the board and gives the first boot that `until` accepts (default: one that came to an end).

        For boots that are expected to fail: a ROM that finds no bootloader, a bootloader that finds no app.
        """
        mark = self._reset()
        wanted = until or self._has_ended
        found = self.console.wait_for_boot(wanted, timeout_s, since=mark, what="the end of a boot")
        return next(record for record in self.boots if record.number == found.number)

    def _has_ended(self, record: BootRecord) -> bool:
        """An application runs, the ROM gives up, or the next boot has begun."""
        newest = self.console.boot_records[-1]
        gave_up = record.rom_refused or is_stuck(record)
        return record.outcome is Outcome.APP or gave_up or newest.number > record.number

    def _reset(self) -> int:
        mark = self.console.mark()
        self.reset(BootMode.RUN)
        return mark

    def _await_firmware(self, mark: int, timeout_s: float) -> BootRecord:
        """Waits for the boot event; a board that fails the same way again and again is not waited for."""
        if not self.runs_app:
            # Its last word, behind everything that the bootloader says.
            self.console.wait_for(TWIN_STOPS, timeout_s, since=mark)
        what = "the firmware's boot event" if self.speaks else "the app"
        found = self.console.wait_for_boot(
            lambda record: self._is_up(record) or is_stuck(record), timeout_s, since=mark, what=what
        )
        record = next(boot for boot in self.boots if boot.number == found.number)
        if not self._is_up(record):
            raise BoardError(
                f"does not boot: {record.summary()}",
                board=self.name,
                todo=f"read the end of {self.log_path}",
            )
        return record

    def _is_up(self, record: BootRecord) -> bool:
        if not self.runs_app:
            return record.outcome is Outcome.LOADED
        return record.evt_boot is not None if self.speaks else record.app_started

    @property
    def runs_app(self) -> bool:
        """Its app's code runs on it; on a twin an app that was built for the chip is only loaded."""
        return self.app is None or self.app.kind == "native" or not self.link.runs_native

    @property
    def speaks(self) -> bool:
        """Its app takes commands over the UART; one of somebody else's may not."""
        return self.app is None or (self.app.speaks and self.runs_app)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What follows from all boots together: rollbacks, fall-backs, silent downgrades."""
        return find(self.console.boot_records, self.console.marks)

    @property
    def boots(self) -> tuple[BootRecord, ...]:
        """Every boot so far, each with what was inferred from those before it."""
        return with_findings(self.console.boot_records, self.findings)

    def boots_json(self) -> dict[str, Any]:
        """Boot records and findings, for the artefact folder."""
        return boots_to_json(self.console.boot_records, self.findings)

    # --- flash --------------------------------------------------------------------------------------------------

    def inject(self, kind: str, **arguments: int) -> None:
        """Makes flash operations fail, where the link can (capability ``fault-injection``); ``clear`` ends it.

        Kinds: ``write-encrypted``, ``write-raw``, ``erase``, ``read``; ``error`` is the ``esp_err_t``, ``after``
        how many operations still succeed, ``count`` how many fail.
        """
        self.link.inject(kind, **arguments)

    @contextmanager
    def watching_flash(self) -> Iterator[list[FlashChange]]:
        """Gives a list that holds, once the block has ended, what was changed in flash within it, in normal form.

        Only where the link records it (capability ``flash-log``).
        """
        found: list[FlashChange] = []
        _, start = self.link.flash_log(END_OF_FLASH_LOG)
        yield found
        found += merged(self.link.flash_log(start)[0])

    # --- pytest-embedded ----------------------------------------------------------------------------------------

    @property
    def dut(self) -> HarnessDut:
        """pytest-embedded's `Dut` on this board's link; sees what comes after it is first asked for."""
        return self.open_dut("dut")

    def open_dut(self, test: str) -> HarnessDut:
        """The `Dut`, opened for the test called `test` unless it is open."""
        if self._dut is None:
            self._dut = HarnessDut(
                self.console,
                self._hard_reset,
                name=self.name,
                test=test,
                log=self.log_path,
                app=HarnessApp(self.app, self.chip.name),
                target=self.chip.name,
            )
        return self._dut

    def _hard_reset(self) -> None:
        self._reset()

    def close_dut(self) -> None:
        """Ends the `Dut`, if there is one: the next test gets a fresh buffer."""
        if self._dut is not None:
            self._dut.close()
            self._dut = None


STUCK_BOOTS = 3
STUCK_ROM_LINES = 200
"""A C3 without a bootloader prints thousands of lines a second and need not reset between them."""


def is_stuck(record: BootRecord) -> bool:
    """Nothing more will come of this boot: it failed alike several times, or the ROM complains without end."""
    return record.repeats >= STUCK_BOOTS or record.rom_header_lines >= STUCK_ROM_LINES
