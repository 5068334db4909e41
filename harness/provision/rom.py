"""The only place that talks to a chip's ROM, through esptool's and espefuse's public Python API.

The port is lent: it is never closed or opened here, and the chip is reset only by what the caller gives for it. Nothing
here asks a person.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import esptool
from esptool.targets import CHIP_DEFS
from esptool.util import UnsupportedCommandError

from harness.chips import Chip, chip_named, chip_with_id
from harness.errors import BoardError, HarnessError, LabError, LinkError
from harness.links.device_port import PORT_ERRORS
from harness.provision.burner import ChipFellSilentError, FuseBurner
from harness.provision.changed_sectors import as_if_before, changed_sectors
from harness.provision.chip_state import ChipState, Download, SecurityInfo
from harness.provision.flash_baud import lower_than
from harness.provision.region import SECTOR_BYTES
from harness.provision.session import KeyToBurn
from harness.provision.vendor_log import Sink, listening, redact, vendor_log_installed

ROM_BAUD = 115_200
"""Baud rate at which the ROM is spoken to and eFuses are burned; the ROM finds it by itself."""

_CONNECT_ATTEMPTS = 3
_RESETS_TO_BEGIN_AGAIN = 3
"""A chip that has just answered, on a busy host's emulator or a poor wire, is not given up at the first silence."""

_WIRE_FAULTS = re.compile(
    r"serial data|more data to read|packet|SLIP|Response doesn't match|timed? ?out|checksum|MD5 of file|target RAM",
    re.IGNORECASE,
)
"""esptool's words for an answer that did not come or came damaged; refusals and wrong chips have others. Of a block of
flash that is not answered, its own second and third attempt only say that there is no more data to read."""

_PROOF_READS = 3

SMALL_BYTES = 1 << 16
"""Pieces below this are sent in blocks of one sector."""

_WORTH_COMPRESSING = 0.9
"""Ciphertext does not compress; what does shrinks to less than this, blank stretches to nothing."""


class OtherChipError(BoardError):
    """Another chip answers; `found` is its row, None where there is none or its ROM did not say."""

    def __init__(self, message: str, found: Chip | None, *, board: str | None) -> None:
        super().__init__(message, board=board, todo="correct 'chip' in its entry")
        self.found = found


class RomSession:
    """A chip in UART download mode, from its reset to the next; use as a context manager.

    Args:
        port: an open pyserial-like object whose chip has just been reset into download mode.
        chip: what must be at the other end.
        baud: bits/s for flash transfers, lowered step by step where the wire does not carry it; None keeps the ROM's.
        reset: resets the chip into download mode again; without it a wire that fails is not tried at a lower rate.
        flash_size_bytes: of the flash chip, whole MiB; used only in Secure Download Mode, where the ROM cannot
            ask it.
        board: name for error messages.
        when_silent: what to do when the chip does not answer, for that error's message.
        log: gets every line that the vendor tools print, redacted.
    """

    def __init__(
        self,
        port: Any,
        chip: Chip,
        *,
        baud: int | None = None,
        reset: Callable[[], None] | None = None,
        flash_size_bytes: int = 4 << 20,
        board: str | None = None,
        when_silent: str | None = None,
        log: Sink | None = None,
    ) -> None:
        self.chip = chip
        self.board = board
        self._when_silent = when_silent
        self.on_progress: Callable[[int, int], None] | None = None
        self._port = port
        self._baud = baud
        self._reset = reset
        self._flash_size = f"{flash_size_bytes >> 20}MB"
        self._log = log or _ignore
        self._esp: Any = None
        self._burner: FuseBurner | None = None
        self._burned = False
        self._flash_ready = False
        self._cleanup = ExitStack()

    def __enter__(self) -> RomSession:
        """Connects.

        Raises:
            BoardError: no answer, or another chip answers.
            LabError: the port failed.
        """
        self._cleanup.enter_context(vendor_log_installed())
        self._cleanup.callback(_restore_port, self._port, getattr(self._port, "timeout", None))
        try:
            with self._vendor("connecting to the ROM"):
                self._connect()
        except BaseException as error:
            self._cleanup.close()
            if isinstance(error, BoardError) and isinstance(error.__cause__, RuntimeError):
                # esptool got no answer that makes sense; another chip, or a stub, is no silence.
                error.todo = error.todo or self._when_silent
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _connect(self) -> None:
        self._esp = CHIP_DEFS[self.chip.name](_LentPort(self._port), ROM_BAUD)
        # ESP32 has no security information: asking costs 0.4 s.
        self._esp.connect("no-reset", _CONNECT_ATTEMPTS, detecting=not self.chip.has_security_info)
        if self._esp.sync_stub_detected:
            # Somebody left the flasher stub running; burning through it is not what was rehearsed.
            raise BoardError("the flasher stub is running, not the ROM", board=self.board)
        self._require_chip()

    @property
    def baud(self) -> int | None:
        """Bits/s at which flash is transferred: as asked, or what the wire was found to carry."""
        return self._baud

    @property
    def burned(self) -> bool:
        """eFuses were burned since the reset."""
        return self._burned

    @property
    def stub_running(self) -> bool:
        """The flasher stub runs instead of the ROM."""
        return bool(self._esp.IS_STUB)

    @property
    def secure_download(self) -> bool:
        """The chip is in Secure Download Mode: no registers, no reading, no stub."""
        return bool(self._esp.secure_download_mode)

    @property
    def mac(self) -> str | None:
        """The chip's base MAC, lower case; None in Secure Download Mode, where the ROM does not tell."""
        if self.secure_download:
            return None
        with self._vendor("reading the MAC"):
            return ":".join(f"{byte:02x}" for byte in self._esp.read_mac("BASE_MAC"))

    # eFuses

    def state(self) -> ChipState:
        """eFuses and download mode as they are now; in Secure Download Mode what the security info shows.

        Raises:
            BoardError, LabError: reading failed.
        """
        if self.secure_download:
            info = self.security_info()
            return ChipState(
                self.chip.name, None, None, {}, frozenset(), frozenset(), (), Download.SECURE, info
            )
        with self._vendor("reading eFuses"):
            return self._fuses().state()

    def security_info(self) -> SecurityInfo:
        """The ROM's security information.

        Raises:
            BoardError: the chip has no such command (ESP32), or reading failed.
        """
        with self._vendor("reading the security information"):
            info = self._esp.get_security_info()
        return SecurityInfo(
            int(info["flags"]),
            int(info["flash_crypt_cnt"]),
            tuple(int(each) for each in info["key_purposes"]),
        )

    def burn_keys(self, keys: Sequence[KeyToBurn]) -> None:
        """Burns key blocks, their purposes, then their protections. What is done already is left.

        Raises:
            BoardError: espefuse refuses or the burn did not take; the message shows no key.
        """
        what = ", ".join(f"{key.purpose or 'the key'} into {key.burn_as}" for key in keys)
        with self._burning(f"burning {what}") as fuses:
            fuses.burn_keys(keys)

    def protect_key(self, block: str, *, read: bool, write: bool, purpose: bool) -> None:
        """Sets the named protections of a key block. Errors as `burn_keys`."""
        with self._burning(f"protecting {block}") as fuses:
            fuses.protect_key(block, read=read, write=write, purpose=purpose)

    def burn_fuses(self, fuses: Mapping[str, int]) -> None:
        """Burns values of BLOCK0 fields. Errors as `burn_keys`."""
        with self._burning(f"burning {', '.join(fuses)}") as burner:
            burner.burn_fuses(fuses)

    def write_protect(self, fuse: str) -> None:
        """Sets the WR_DIS bit of a field. Errors as `burn_keys`."""
        with self._burning(f"write-protecting {fuse}") as burner:
            burner.write_protect(fuse)

    def burn_lock(self, fuse: str) -> None:
        """Burns a download-mode lock. The chip may fall silent at once, which is no error here: whether the lock
        is burned shows after the next reset.

        Raises:
            BoardError: espefuse refused before anything was burned.
        """
        try:
            with self._burning(f"burning {fuse}") as burner:
                burner.burn_fuses({fuse: 1})
        except BoardError as error:
            if not isinstance(error.__cause__, (ChipFellSilentError, UnsupportedCommandError, SystemExit)):
                raise
            self._log(f"{fuse}: the chip fell silent, as it should")

    # Flash

    def write_flash(
        self,
        pieces: Sequence[tuple[int, bytes]],
        *,
        encrypt: bool = False,
        force: bool = False,
        skip_identical: bool = False,
    ) -> None:
        """Writes bytes to flash, with the stub where there is one; erases the 4096-byte sectors they touch.

        Args:
            pieces: (address, bytes); addresses are multiples of 4096.
            encrypt: the chip enciphers them (not after release fuses).
            force: no check for plaintext or a foreign image: the bytes are ciphertext.
            skip_identical: leave the sectors alone that are in flash already, as far as the chip's mode tells.

        Raises:
            BoardError: the chip refuses or what it wrote does not verify.
        """
        compare = skip_identical and not encrypt and not self.secure_download
        with self._vendor("writing flash"):
            for offset, data in pieces:
                self._over_the_wire(partial(self._write, offset, bytes(data), encrypt, force, compare))

    def _write(self, offset: int, data: bytes, encrypt: bool, force: bool, compare: bool) -> None:
        before = None
        if compare:
            changed = changed_sectors(offset, data, self._md5)
            sectors = -(-len(data) // SECTOR_BYTES)
            self._log(f"{len(changed)} of {sectors} sectors at {offset:#x} differ from what is in flash")
            if not changed:
                return
            before = as_if_before(offset, data, changed) if len(changed) < sectors else None
        with self._small_blocks(before is not None or len(data) < SMALL_BYTES):
            esptool.write_flash(
                self._esp,
                [(offset, data)],
                encrypt=encrypt,
                flash_size=self._flash_size if self.secure_download else "keep",
                force=force,
                diff_with=[before] if before is not None else [],
                # Trying what does not shrink costs time and a line in the log.
                no_compress=len(zlib.compress(data, 1)) > len(data) * _WORTH_COMPRESSING,
            )

    @contextmanager
    def _small_blocks(self, wanted: bool) -> Iterator[None]:
        """The stub is sent blocks of 16 KiB, the last one filled up: for single sectors most of it would be filling."""
        if not (wanted and self.stub_running):
            yield
            return
        esp, usual = self._esp, self._esp.FLASH_WRITE_SIZE
        esp.FLASH_WRITE_SIZE = SECTOR_BYTES
        try:
            yield
        finally:
            esp.FLASH_WRITE_SIZE = usual

    def _md5(self, offset: int, size_bytes: int) -> str:
        return str(self._esp.flash_md5sum(offset, size_bytes)).lower()

    def read_flash(self, offset: int, size_bytes: int) -> bytes:
        """Raw flash content: ciphertext on an encrypted chip.

        Raises:
            BoardError: reading failed, or the chip is in Secure Download Mode.
        """
        self._require_readable("reading flash")
        with self._vendor("reading flash"):
            self._over_the_wire(_nothing)
            data = esptool.read_flash(self._esp, offset, size_bytes)
        return bytes(data or b"")

    def flash_md5(self, offset: int, size_bytes: int) -> str:
        """MD5 over raw flash, computed by the chip; 32 lower-case hexadecimal digits. Errors as `read_flash`."""
        self._require_readable("hashing flash")
        with self._vendor("hashing flash"):
            self._over_the_wire(_nothing)
            return self._md5(offset, size_bytes)

    def flash_size_bytes(self) -> int:
        """Size of the flash chip by its JEDEC id.

        Raises:
            BoardError: the id stands for no size, or the chip is in Secure Download Mode.
        """
        with self._vendor("asking the flash chip for its size"):
            self._use_stub()
            text = esptool.detect_flash_size(self._esp)
        if text is None:
            raise BoardError(
                "the flash chip's id stands for no known size",
                board=self.board,
                todo="see whether the flash chip is connected: esptool flash-id",
            )
        return int(esptool.flash_size_bytes(text))

    # Inside

    def _require_readable(self, what: str) -> None:
        if self.secure_download:
            raise BoardError(
                f"{what}: the chip is in Secure Download Mode, where nothing can be read",
                board=self.board,
                todo="have its firmware read it",
            )

    def _fuses(self) -> FuseBurner:
        if self._burner is None:
            self._burner = FuseBurner(self._esp, self.chip)
        return self._burner

    @contextmanager
    def _burning(self, what: str) -> Iterator[FuseBurner]:
        if self.stub_running:
            raise LabError(
                "eFuses are burned through the ROM, and the flasher stub is running", board=self.board
            )
        if self.secure_download:
            raise BoardError(
                f"{what}: the chip is in Secure Download Mode, where eFuses are out of reach",
                board=self.board,
            )
        with self._vendor(what):
            burner = self._fuses()
            self._burned = True
            yield burner

    def _use_stub(self) -> None:
        if self._flash_ready:
            return
        if not self.stub_running and self._starts_stub():
            try:
                self._run_stub()
            except esptool.FatalError as error:
                if self._reset is None:
                    raise
                self._log(f"the flasher stub did not start ({_first_line(error)}); resetting, once more")
                self._begin_again()
                self._run_stub()
        if self._baud is not None and self._baud != ROM_BAUD:
            self._esp.change_baud(self._baud)
            for _ in range(_PROOF_READS):
                if self.secure_download:
                    self._esp.get_security_info()
                else:
                    self._esp.read_reg(self._esp.CHIP_DETECT_MAGIC_REG_ADDR)
        esptool.attach_flash(self._esp)
        self._flash_ready = True

    def _starts_stub(self) -> bool:
        """Whether the ROM starts the stub: esptool itself looks for secure boot on ESP32-C3 only, other ROMs reset."""
        if self.secure_download:
            return False
        return self.chip.stub_with_secure_boot or not self._esp.get_secure_boot_enabled()

    def _run_stub(self) -> None:
        self._esp = esptool.run_stub(self._esp)
        # The eFuses were read through the ROM object; from now on they are read through the stub's.
        self._burner = None

    def _over_the_wire(self, transfer: Callable[[], None]) -> None:
        """`transfer` with the stub at the baud rate asked for; where the wire does not carry that, at the next lower."""
        while True:
            try:
                self._use_stub()
                transfer()
                return
            except (esptool.FatalError, ValueError) as error:
                lower = lower_than(self._baud) if self._baud is not None else None
                # ValueError: the adapter cannot make that rate.
                faulty = isinstance(error, ValueError) or _WIRE_FAULTS.search(str(error))
                if self._reset is None or lower is None or not faulty:
                    raise
                self._log(f"{self._baud} baud does not work ({_first_line(error)}); trying {lower}")
                self._baud = lower
                self._begin_again()

    def _begin_again(self) -> None:
        """From the chip's reset on; what was burned before it is in effect now."""
        assert self._reset is not None
        self._burner, self._flash_ready, self._burned = None, False, False
        self._port.baudrate = ROM_BAUD
        for left in reversed(range(_RESETS_TO_BEGIN_AGAIN)):
            self._reset()
            try:
                self._connect()
                return
            except esptool.FatalError as error:
                if not left:
                    raise
                self._log(f"no answer after the reset ({_first_line(error)}); resetting, once more")

    def _require_chip(self) -> None:
        """esptool goes on with a chip that it does not know."""
        if self._esp.USES_MAGIC_VALUE and self.secure_download:
            # ESP32-S2, whose ROM tells no registers then: what it is shows in what it leaves out.
            if self._esp.get_security_info().get("chip_id") is None:
                return
        elif self._esp.USES_MAGIC_VALUE:
            magic = int(self._esp.read_reg(self._esp.CHIP_DETECT_MAGIC_REG_ADDR))
            if magic != self._esp.MAGIC_VALUE:
                raise OtherChipError(
                    f"this chip is not an {self.chip.title} (magic value {magic:#010x})",
                    None,
                    board=self.board,
                )
            return
        found = self._esp.get_security_info().get("chip_id")
        if found != self.chip.chip_id:
            # Only ESP32-S2 answers without its number.
            other = chip_with_id(found) if found is not None else chip_named("esp32s2")
            raise OtherChipError(
                f"this chip is {other.title if other else f'no. {found}'}, not {self.chip.title}",
                other,
                board=self.board,
            )

    @contextmanager
    def _vendor(self, what: str) -> Iterator[None]:
        """Runs the tools quietly and turns whatever they raise into our errors, without key bytes."""
        try:
            with listening(self._log, self._progress):
                yield
        except HarnessError as error:
            error.board = error.board or self.board
            raise
        except SystemExit as error:
            raise BoardError(
                f"{what}: the vendor tool gave up (exit status {error.code})", board=self.board
            ) from error
        except PORT_ERRORS as error:
            raise LinkError(
                f"{what}: the port failed: {redact(str(error))}",
                board=self.board,
                todo="check the cable and that nobody else uses the port",
            ) from error
        except KeyError as error:
            raise LabError(
                f"{what}: the installed espefuse does not know {error}", board=self.board
            ) from error
        except (RuntimeError, struct.error) as error:
            # esptool.FatalError and its UnsupportedCommandError are both RuntimeErrors.
            text = redact(str(error)).strip().splitlines() or [type(error).__name__]
            raise BoardError(f"{what}: {' '.join(text)}", board=self.board) from error

    def _progress(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total)


class _LentPort:
    """The caller's port under esptool's hands: everything goes through, but closing it is not esptool's to do."""

    def __init__(self, port: Any) -> None:
        object.__setattr__(self, "_lent", port)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_lent"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_lent"), name, value)

    def close(self) -> None:
        """Does nothing: a port is opened once, by its link."""


def _restore_port(port: Any, timeout_s: float | None) -> None:
    """Leaves the port as the console expects it: its own time-out, the ROM's baud rate."""
    try:
        if port.baudrate != ROM_BAUD:
            port.baudrate = ROM_BAUD
        port.timeout = timeout_s
    except PORT_ERRORS:
        # The port has gone; whoever uses it next says so with its name.
        return


def _ignore(_line: str) -> None:
    """No log was asked for."""


def _nothing() -> None:
    """Getting the flash ready is all that is to be done over a wire that may be poor."""


def _first_line(error: Exception) -> str:
    return redact(str(error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
