"""One board in a test's hands: reset it, talk to it, update it, and read what the log proves.

A `Board` hides which link it is on. Everything it asserts comes from the serial log or from the firmware's own
events in it; the keys come from the vault, and no method returns one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from harness.build.board_keys import KeySources
from harness.build.firmware_source import FirmwareSource
from harness.chips import Chip
from harness.console.boot_record import BootRecord
from harness.console.device import Answer, DeviceClient
from harness.errors import BoardError, NotApplicableError, RefusedError, UsageError
from harness.formats.partition_table import Partition
from harness.linked_board import BOOT_TIMEOUT_S, LinkedBoard
from harness.links.link import Link
from harness.network.update_path import Proof, UpdatePath
from harness.ota.diagnosis import Diagnosis, diagnose
from harness.ota.journal import Request
from harness.ota.release import Release, make_body, make_package, signer
from harness.ota.server import OtaServer
from harness.ota.variants import Recipe
from harness.power import Power
from harness.provision.chip_state import ChipState
from harness.provision.device_record import DeviceRecords
from harness.provision.flash_baud import FlashBauds
from harness.provision.profile import Lock, Profile
from harness.provision.told_fuses import told_state
from harness.vault.record_file import now_utc
from harness.vault.vault import Vault

UPDATE_TIMEOUT_S = 180.0

SLOWEST_UART_BYTES_PER_S = 3000
"""Of an update over the UART: half of what 115200 baud gives, base64 and pauses for flash included."""

Way = Literal["network", "uart"]
"""How the bytes of an update reach the device."""


READING_COMMANDS = frozenset({"status", "reboot", "otadata", "hash", "probe", "net", "crash", "flash-ops"})
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


class Board(LinkedBoard):
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
        sacrificial: bool = False,
        claim: Callable[[str], None] | None = None,
        offers: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(
            name,
            chip,
            link,
            folder=folder,
            vault=vault,
            records=records,
            power=power,
            declared_mac=declared_mac,
            bauds=bauds,
            bench_vault=bench_vault,
            claim=claim,
            offers=offers,
        )
        self.firmware: FirmwareSource | None = None
        self.network = network
        self.fragments = fragments
        """sdkconfig fragments that a companion firmware built for the chip needs on this board."""
        self.boot_keys = boot_keys or KeySources(chip.secure_boot.schemes[0])
        """Where the keys come from that sign for its secure boot."""
        self.sacrificial = sacrificial
        """Its entry says that it may be lost: cuts may be placed where they can destroy a device."""
        self._serve = serve
        self._server: OtaServer | None = None
        self._device = DeviceClient(self.console, name)
        self.console.start(lambda: link.tell_to(lambda kind, text: self.console.note(text, kind=kind)))

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

    def reboot(self, *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Has the firmware restart itself (``esp_restart``) and waits until it is up again."""
        mark = self.console.mark()
        answer = self.command("reboot")
        if not answer.ok:
            raise BoardError(f"refuses to reboot: {answer.error}", board=self.name)
        return self._await_firmware(mark, timeout_s)

    def crash(self, kind: str = "abort", *, timeout_s: float = BOOT_TIMEOUT_S) -> BootRecord:
        """Has the firmware die (``abort``, ``wdt``, ``null``) and waits for what boots then."""
        mark = self.console.mark()
        answer = self.command("crash", kind=kind)
        if not answer.ok:
            raise BoardError(f"refuses to crash: {answer.error}", board=self.name)
        return self._await_firmware(mark, timeout_s)

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

    # --- burns by the firmware ----------------------------------------------------------------------------------

    def told_state(self) -> ChipState | None:
        """eFuses as the running firmware reads them, whatever the ROM still shows; None where it tells none.

        Behind Secure Download Mode this is what a plan's promise can be compared with.
        """
        return told_state(self.chip, self.status().fields)

    def set_release_mode(self, *, planned: bool = False) -> Answer:
        """Has the firmware go from development to release, fuse by fuse, as its ``release_mode.h`` has it.

        That always locks UART download, too: Secure Download Mode, and on ESP32 all of it, which is FINAL. With
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

    # --- updates ------------------------------------------------------------------------------------------------

    @property
    def server(self) -> OtaServer:
        """The OTA server of this board, started when first needed."""
        if self._server is None:
            self._server = self._serve()
        return self._server

    @property
    def requests(self) -> tuple[Request, ...]:
        """What its OTA server has answered so far; nothing when it was not needed yet."""
        return self._server.journal if self._server is not None else ()

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
