"""One board in a test's hands: reset it, talk to it, update it, and read what the log proves.

A `Board` hides which link it is on. Everything it asserts comes from the serial log or from the firmware's own
events in it; the keys come from the vault, and no method returns one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.build.app_dir import AppDirectory
from harness.build.board_keys import KeySources
from harness.build.firmware_source import FirmwareSource
from harness.chips import Chip
from harness.console.boot_record import BootRecord, Outcome
from harness.console.device import Answer, DeviceClient
from harness.console.inference import Finding, boots_to_json, find, with_findings
from harness.console.reader import Console
from harness.dut import HarnessDut
from harness.errors import BoardError, NotApplicableError, RefusedError, UsageError
from harness.formats.flash_encryption import decrypt, encrypt
from harness.formats.otadata import OTADATA_SIZE_BYTES, OtaData
from harness.formats.partition_table import Partition, PartitionTable
from harness.links.flash_log import END_OF_FLASH_LOG, FlashChange, merged
from harness.links.link import BootMode, Link
from harness.network.update_path import Proof, UpdatePath
from harness.ota.diagnosis import Diagnosis, diagnose
from harness.ota.release import Release, make_body, make_package, signer
from harness.ota.server import OtaServer
from harness.ota.variants import Recipe
from harness.power import Power
from harness.power.noted import NotedPower
from harness.provision.chip_state import ChipState
from harness.provision.device_record import DeviceRecords
from harness.provision.flash_baud import FlashBauds
from harness.provision.identity import Identity
from harness.provision.profile import Lock, Profile
from harness.provision.rom import RomSession
from harness.provision.told_fuses import told_state
from harness.vault.key_ref import KeyState
from harness.vault.vault import Vault, now_utc

BOOT_TIMEOUT_S = 30.0
"""From reset to the firmware's boot event; a real board with Wi-Fi takes a few seconds."""

UPDATE_TIMEOUT_S = 180.0

SLOWEST_UART_BYTES_PER_S = 3000
"""Of an update over the UART: half of what 115200 baud gives, base64 and pauses for flash included."""

Way = Literal["network", "uart"]
"""How the bytes of an update reach the device."""

DOWNLOAD_OFF = re.compile(r"Download mode is disabled|Download boot modes disabled")
"""ESP32's and the later chips' ROM, when a strap asks for a download mode that eFuses have switched off."""

DOWNLOAD_OFF_TIMEOUT_S = 2.0

TWIN_STOPS = re.compile(r"^twin: ")
"""A twin that cannot go on says why: the app is for the chip, or the bootloader is not known to it."""

DEFAULT_FLASH_BYTES = 4 << 20
"""Of a flash chip that cannot be asked and that no build tells of."""

ROM_TIMEOUT_S = 3.0
"""esptool's default for one answer."""


READING_COMMANDS = frozenset({"status", "reboot", "otadata", "hash", "probe", "net", "crash"})
"""Commands of the firmware that leave its flash and eFuses alone."""


@dataclass(frozen=True, slots=True)
class Running:
    """What the running firmware says of itself (its ``boot`` or ``status`` event)."""

    version: str
    slot: str
    offset: int
    state: str
    """otadata state of the running slot: valid, pending, new, undefined, invalid, aborted."""
    agrees: bool
    """Whether otadata names the slot that runs."""
    next_slot: str
    mac: str
    encryption: str
    """``off``, ``development`` or ``release``, as ESP-IDF judges the eFuses."""
    release_ok: bool
    """ESP-IDF's own ``esp_flash_encryption_cfg_verify_release_mode()``."""
    fields: Mapping[str, Any]

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Running:
        """From the fields of a ``boot`` event or of the answer to ``status``."""
        return cls(
            version=str(fields["version"]),
            slot=str(fields["slot"]),
            offset=int(fields["offset"]),
            state=str(fields["state"]),
            agrees=bool(fields["agree"]),
            next_slot=str(fields["next"]),
            mac=str(fields["mac"]).lower(),
            encryption=str(fields["fe"]),
            release_ok=bool(fields["release_ok"]),
            fields=fields,
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What ran at one moment, and what lay in its slot: what a refused update must leave as it was."""

    running: Running
    digest: str
    """SHA-256 of the running slot's raw bytes, hexadecimal."""


class Board:
    """A board that is open: its lock is held, its port is read, its firmware is ours.

    Made by `harness.lab.Lab`; closed by `close` (or as a context manager).
    """

    def __init__(
        self,
        name: str,
        chip: Chip,
        link: Link,
        *,
        folder: Path,
        vault: Callable[[], Vault],
        records: DeviceRecords,
        serve: Callable[[], OtaServer],
        network: UpdatePath,
        power: Power | None = None,
        declared_mac: str | None = None,
        bauds: FlashBauds | None = None,
        fragments: tuple[str, ...] = (),
        bench_vault: Callable[[], Vault] | None = None,
        boot_keys: KeySources | None = None,
    ) -> None:
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
        self.identity = Identity(name, physical=link.physical, declared=declared_mac)
        """Guards every way of writing to it."""
        self.firmware: FirmwareSource | None = None
        self.app: AppDirectory | None = None
        """What is flashed over the UART first; None before it was planned for."""
        self.console = Console(link.port, log_path=folder / "serial.log", name=name)
        self._vault = vault
        self._bench_vault = bench_vault
        self._serve = serve
        self._server: OtaServer | None = None
        self.network = network
        self._bauds = bauds
        self.fragments = fragments
        """sdkconfig fragments that a companion firmware built for the chip needs on this board."""
        self.boot_keys = boot_keys or KeySources(chip.secure_boot.schemes[0])
        """Where the keys come from that sign for its secure boot."""
        self._power = (
            NotedPower(power, link, lambda text: self.console.note(text, kind="power")) if power else None
        )
        self._device = DeviceClient(self.console, name)
        self._dut: HarnessDut | None = None
        self._opened_vault: Vault | None = None
        self.on_rom_output: Callable[[str], None] | None = None
        self.console.start(lambda: link.tell_to(lambda kind, text: self.console.note(text, kind=kind)))

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def capabilities(self) -> frozenset[str]:
        """What a test may demand of this board with ``@pytest.mark.needs``."""
        gone = {"uart-download"} if self.lock is Lock.DOWNLOAD_OFF else set()
        more = {"power"} if self._power is not None else set()
        options = (self.app.sdkconfig if self.app is not None else None) or {}
        if options.get("CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK") == "y":
            more.add("anti-rollback")
        return (self.link.capabilities | more) - gone

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
    def server(self) -> OtaServer:
        """The OTA server of this board, started when first needed."""
        if self._server is None:
            self._server = self._serve()
        return self._server

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

    def overwrite(self, offset: int, data: bytes) -> None:
        """Writes raw bytes at a flash offset (a multiple of 4096) over the UART, as they are, whatever lies there.

        Works as long as UART download is not off; in Secure Download Mode nothing is read back.
        """
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

    def reboot(self, *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Has the firmware restart itself (``esp_restart``) and waits until it is up again."""
        mark = self.console.mark()
        answer = self.command("reboot")
        if not answer.ok:
            raise BoardError(f"refuses to reboot: {answer.error}", board=self.name)
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
        return record.outcome is Outcome.APP or _is_stuck(record) or newest.number > record.number

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
            lambda record: self._is_up(record) or _is_stuck(record), timeout_s, since=mark, what=what
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

    # --- the firmware -------------------------------------------------------------------------------------------

    def command(self, name: str, *, timeout_s: float = 15.0, **arguments: object) -> Answer:
        """Sends one command of the UART protocol (``firmware/README.md``) and waits for its result.

        A refusal by the device is an `Answer` with ``ok`` False, not an exception.

        Raises:
            BoardError: no acknowledgement or no result in time.
            RefusedError: the command writes, and the board is not identified; or it burns eFuses of a chip.
            NotApplicableError: its app takes no commands.
        """
        if name == "lock" and self.link.physical:
            raise RefusedError(
                "'lock' burns eFuses for good, and a command carries no consent",
                board=self.name,
                todo="demand the lock of a plan: harness plan --lock",
            )
        self._require_speech(name)
        if name not in READING_COMMANDS:
            self.identity.require()
        return self._device.send(name, arguments, timeout_s=timeout_s)

    def _require_speech(self, command: str) -> None:
        if self.speaks:
            return
        assert self.app is not None
        app = f"{self.app.project} {self.app.version}"
        if not self.runs_app:
            raise NotApplicableError(
                f"{app} was built for the chip: a twin loads it and does not run it ('{command}')",
                board=self.name,
                todo="use an emulator or a board, or leave --app out",
            )
        raise NotApplicableError(
            f"{app} takes no commands over the UART ('{command}')",
            board=self.name,
            todo="give an app that has the companion's protocol (firmware/README.md), or read the boot records",
        )

    def status(self) -> Running:
        """What the running firmware says of itself now."""
        answer = self.command("status")
        if not answer.ok:
            raise BoardError(f"refuses 'status': {answer.error}", board=self.name)
        running = Running.from_fields(answer.fields)
        self.identity.told(running.mac)
        return running

    def confirm(self) -> Answer:
        """Confirms the running version (``esp_ota_mark_app_valid_cancel_rollback``)."""
        return self.command("confirm")

    def repair(self) -> Answer:
        """Brings otadata in step with the slot that runs."""
        return self.command("repair")

    # --- burns by the firmware

    def told_state(self) -> ChipState | None:
        """eFuses as the running firmware reads them, whatever the ROM still shows; None where it tells none.

        Behind Secure Download Mode this is what a plan's promise can be compared with.
        """
        return told_state(self.chip, self.status().fields)

    def set_release_mode(self, *, planned: bool = False) -> Answer:
        """Has the firmware go from development to release by ``esp_flash_encryption_set_release_mode()``.

        That function always locks UART download, too: Secure Download Mode, and on ESP32 all of it, which is FINAL. With
        encryption off it aborts, and so does this board's firmware.

        Args:
            planned: a plan that lists this burn was consented to; without it no physical board does it.

        Raises:
            RefusedError: a physical board without `planned`. BoardError: the firmware restarted over it.
        """
        lock = Lock.DOWNLOAD_OFF if self.chip.fuses.secure_download is None else Lock.SECURE_DOWNLOAD
        return self._lock_by_firmware("release", lock, planned=planned)

    def disable_download(self, *, planned: bool = False) -> Answer:
        """Has the firmware switch UART download off for good (``esp_efuse_disable_rom_download_mode``): FINAL.

        Args and Raises: as `set_release_mode`.
        """
        return self._lock_by_firmware("download-off", Lock.DOWNLOAD_OFF, planned=planned)

    def enable_secure_download(self, *, planned: bool = False) -> Answer:
        """Has the firmware burn Secure Download Mode (``esp_efuse_enable_rom_secure_download_mode``).

        Args and Raises: as `set_release_mode`.
        """
        return self._lock_by_firmware("secure-download", Lock.SECURE_DOWNLOAD, planned=planned)

    def _lock_by_firmware(self, mode: str, lock: Lock, *, planned: bool) -> Answer:
        if not planned:
            # On a physical board this refuses.
            answer = self.command("lock", mode=mode)
        else:
            self._require_speech("lock")
            self.identity.require()
            answer = self._device.send("lock", {"mode": mode}, timeout_s=15.0)
        if answer.ok:
            self.lock = lock
            if mode == "release" and self.profile is not None:
                self.profile = Profile.of(Profile.RELEASE, secure_boot=self.profile.secure_boot)
            if not planned:
                self._note_new_lock()
        return answer

    def _note_new_lock(self) -> None:
        """The device record says what the ROM no longer tells; a plan writes its own."""
        record = self.records.read(self._known_mac())
        if record is None or self.profile is None or self.lock is None:
            return
        state = self.told_state()
        fuses = record.fuses if state is None else state.fuses
        self.records.write(replace(record, profile=self.profile, lock=self.lock, fuses=fuses))

    def slot_digest(self, label: str, *, size_bytes: int | None = None) -> str:
        """SHA-256 of what lies in the slot, undeciphered, as the firmware computes it; hexadecimal."""
        length = {} if size_bytes is None else {"len": size_bytes}
        answer = self.command("hash", timeout_s=60.0, slot=label, **length)
        if not answer.ok:
            raise BoardError(f"cannot hash {label}: {answer.error}", board=self.name)
        return str(answer.fields["sha256"])

    def snapshot(self) -> Snapshot:
        """What runs now, and the digest of its slot."""
        running = self.status()
        return Snapshot(running, self.slot_digest(running.slot))

    def crash(self, kind: str = "abort", *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Has the firmware die (``abort``, ``wdt``, ``null``) and waits for what boots then."""
        mark = self.console.mark()
        answer = self.command("crash", kind=kind)
        if not answer.ok:
            raise BoardError(f"refuses to crash: {answer.error}", board=self.name)
        return self._await_firmware(mark, timeout_s)

    # --- updates ------------------------------------------------------------------------------------------------

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The companion firmware as `version`, built for this board's chip and profile."""
        return self._known_firmware().release(version, secure_version=secure_version)

    def _known_firmware(self) -> FirmwareSource:
        if self.firmware is None:
            raise BoardError("has no known firmware: it has not been prepared", board=self.name)
        return self.firmware

    def recipe(self, release: Release, slot: Partition) -> Recipe:
        """Everything that a package of `release` for `slot` of this board is made of."""
        return Recipe(
            release=release,
            chip=self.chip,
            mac=self._known_mac(),
            key=self._key(),
            slot=slot,
            sign=signer(self.vault.signing_key()),
        )

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

    def note_proof(self, what: str, *, version: str) -> None:
        """Its record remembers that `what` (`harness.provision.device_record.ROLLBACK`, …) has passed on it."""
        self.records.note_proof(self._known_mac(), what, version=version, when=now_utc())

    def package(self, release: Release, slot: Partition | None = None) -> bytes:
        """The signed OTA package of `release`, for `slot` or for the slot that is free now."""
        slot = slot or self.slot(self.status().next_slot)
        sign = signer(self.vault.signing_key())
        return make_package(
            release, chip=self.chip, mac=self._known_mac(), key=self._key(), slot=slot, sign=sign
        )

    def body(self, release: Release, slot: Partition | None = None) -> bytes:
        """The bare ciphertext of `release` for a slot: what lies in flash after the update."""
        slot = slot or self.slot(self.status().next_slot)
        return make_body(release, chip=self.chip, key=self._key(), slot=slot)

    def reach_updates(self) -> Proof:
        """Has the device join its network, and fetch a small file from its server once per boot: nothing is erased.

        Raises:
            LabError, UsageError: it does not get there; names address, port, interface, and what to check.
            BoardError: its firmware has no network.
        """
        boot = self.console.current_boot
        number = boot.number if boot is not None else 0
        return self.network.prove(self._device, self.server, self._known_mac(), boot=number)

    def url_for(self, name: str) -> str:
        """URL under which this device gets what is published for it as `name`; it has been proven to get there."""
        host = self.reach_updates().host
        return self.server.url_for(self._known_mac(), name, host=host)

    def take(
        self,
        data: bytes,
        *,
        name: str = "update.pkg",
        command: str = "ota",
        over: Way | None = None,
        timeout_s: float = UPDATE_TIMEOUT_S,
        **arguments: object,
    ) -> Answer:
        """Publishes `data` for this board alone and has the firmware update itself from it.

        ``command`` is ``ota`` (the raw handler) or ``ota-stock`` (esp_ota_begin/write/end). The device does not
        restart by itself. `over` the ``uart`` the raw handler gets the same bytes without a network, about 1 MB
        in two and a half minutes; by default so does a firmware that has none.

        Raises:
            LabError, UsageError, BoardError: as `reach_updates`, or the stock handler over the UART; no update was
                begun.
        """
        self.identity.require()
        if self._goes_over_uart(command, over):
            self._require_speech("ota-uart")
            timeout_s += len(data) / SLOWEST_UART_BYTES_PER_S
            return self._device.send_with_data("ota-uart", arguments, data, timeout_s=timeout_s)
        server = self.server
        server.publish(self._known_mac(), name, data)
        try:
            url = self.url_for(name)
            return self.command(command, timeout_s=timeout_s, url=url, **arguments)
        finally:
            server.withdraw(self._known_mac(), name)

    def _goes_over_uart(self, command: str, over: Way | None) -> bool:
        if command != "ota":
            if over == "uart":
                raise UsageError(f"'{command}' takes its image over the network only", board=self.name)
            return False
        if over is None:
            booted = next(
                (boot.evt_boot for boot in reversed(self.console.boot_records) if boot.evt_boot), None
            )
            if (booted or self.status().fields).get("net") != "none":
                return False
            self.console.note("the firmware has no network: the update goes over the UART")
        return over != "network"

    def update(self, release: Release, *, over: Way | None = None) -> Answer:
        """Updates to `release` through the raw handler, with a package for the slot that is free."""
        return self.take(self.package(release), name=f"{release.version}.pkg", over=over)

    def diagnose(
        self, body: bytes, recipe: Recipe, *, other_keys: Mapping[str, bytes] | None = None
    ) -> Diagnosis:
        """Why `body` is not what `recipe` makes for its slot: what the device cannot tell and the host can."""
        if recipe.key is None:
            raise UsageError(
                "this board's flash is not encrypted: there is no key to decipher with", board=self.name
            )
        return diagnose(
            body,
            cipher=self.chip.cipher,
            key=recipe.key,
            slot=recipe.slot,
            slots=self.slots,
            other_keys=other_keys,
            made=recipe.body(),
        )

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

    def settle(self) -> Running | None:
        """Brings the board where every scenario starts: firmware up, version confirmed, otadata in step.

        Of an app that takes no commands no more can be said than that it has started: None.

        Raises:
            BoardError: it does not come up, or does not take the confirmation.
        """
        self.restart()
        if not self.speaks:
            return None
        running = self.status()
        if running.state == "pending":
            self._demand(self.confirm())
            running = self.status()
        if not running.agrees or running.state != "valid":
            self._demand(self.repair())
            running = self.status()
        return running

    def _demand(self, answer: Answer) -> None:
        if not answer.ok:
            raise BoardError(f"refuses '{answer.command}' while settling: {answer.error}", board=self.name)

    # --- pytest-embedded ----------------------------------------------------------------------------------------

    @property
    def dut(self) -> HarnessDut:
        """pytest-embedded's `Dut` on this board's link; sees what comes after it is first asked for."""
        return self.open_dut("dut")

    def open_dut(self, test: str) -> HarnessDut:
        """The `Dut`, opened for the test called `test` unless it is open."""
        if self._dut is None:
            self._dut = HarnessDut(
                self.console, self._hard_reset, name=self.name, test=test, log=self.log_path
            )
        return self._dut

    def _hard_reset(self) -> None:
        self._reset()

    def close_dut(self) -> None:
        """Ends the `Dut`, if there is one: the next test gets a fresh buffer."""
        if self._dut is not None:
            self._dut.close()
            self._dut = None

    # --- end ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stops reading and serving, writes the boot records, lets go of the link. May be called twice."""
        self.close_dut()
        self.console.close()
        if self.console.boot_records:
            records = json.dumps(self.boots_json(), indent=1)
            (self.folder / "boot-records.json").write_text(records + "\n", encoding="utf-8")
        if self._server is not None:
            self._server.stop()
            self._server = None
        self.link.close()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Board {self.name} ({self.chip.name}, {self.link.description})>"


STUCK_BOOTS = 3
STUCK_ROM_LINES = 200
"""A C3 without a bootloader prints thousands of lines a second and need not reset between them."""


def _is_stuck(record: BootRecord) -> bool:
    """Nothing more will come of this boot: it failed alike several times, or the ROM complains without end."""
    return record.repeats >= STUCK_BOOTS or record.rom_header_lines >= STUCK_ROM_LINES
