"""The only place that talks to a chip's ROM, through esptool's and espefuse's public Python API.

The port is lent: it is never closed or opened here, and never used to reset the chip. Nothing here asks a person.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import esptool
import serial
from esptool.targets import CHIP_DEFS
from esptool.util import UnsupportedCommandError

from harness.chips import Chip, chip_with_id
from harness.errors import BoardError, HarnessError, LabError
from harness.provision.burner import ChipFellSilentError, FuseBurner
from harness.provision.chip_state import ChipState, Download, SecurityInfo
from harness.provision.vendor_log import Sink, listening, redact, vendor_log_installed

ROM_BAUD = 115_200
"""Baud rate at which the ROM is spoken to and eFuses are burned; the ROM finds it by itself."""

_CONNECT_ATTEMPTS = 3


class RomSession:
    """A chip in UART download mode, from its reset to the next; use as a context manager.

    Args:
        port: an open pyserial-like object whose chip has just been reset into download mode.
        chip: what must be at the other end.
        baud: bits/s for flash transfers; None keeps the ROM's.
        flash_size_bytes: of the flash chip, whole MiB; used only in Secure Download Mode, where the ROM cannot
            ask it.
        board: name for error messages.
        log: gets every line that the vendor tools print, redacted.
    """

    def __init__(
        self,
        port: Any,
        chip: Chip,
        *,
        baud: int | None = None,
        flash_size_bytes: int = 4 << 20,
        board: str | None = None,
        log: Sink | None = None,
    ) -> None:
        self.chip = chip
        self.board = board
        self.on_progress: Callable[[int, int], None] | None = None
        self._port = port
        self._baud = baud
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
                lent = _LentPort(self._port)
                self._esp = CHIP_DEFS[self.chip.name](lent, ROM_BAUD)
                # Chips that are known by a magic number have no security information: asking costs 0.4 s.
                self._esp.connect("no-reset", _CONNECT_ATTEMPTS, detecting=self._esp.USES_MAGIC_VALUE)
                if self._esp.sync_stub_detected:
                    # Somebody left the flasher stub running; burning through it is not what was rehearsed.
                    raise BoardError("the flasher stub is running, not the ROM", board=self.board)
                self._require_chip()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

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

    def burn_key(self, burn_as: str, purpose: str | None, key: bytes) -> None:
        """Burns the key block, its purpose, then its read and write protection. What is done already is left.

        Raises:
            BoardError: espefuse refuses or the burn did not take; the message shows no key.
        """
        with self._burning(f"burning the flash key into {burn_as}") as fuses:
            fuses.burn_key(burn_as, purpose, key)

    def protect_key(self, block: str, *, read: bool, write: bool, purpose: bool) -> None:
        """Sets the named protections of a key block. Errors as `burn_key`."""
        with self._burning(f"protecting {block}") as fuses:
            fuses.protect_key(block, read=read, write=write, purpose=purpose)

    def burn_fuses(self, fuses: Mapping[str, int]) -> None:
        """Burns values of BLOCK0 fields. Errors as `burn_key`."""
        with self._burning(f"burning {', '.join(fuses)}") as burner:
            burner.burn_fuses(fuses)

    def write_protect(self, fuse: str) -> None:
        """Sets the WR_DIS bit of a field. Errors as `burn_key`."""
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
            skip_identical: leave a piece alone whose MD5 in flash is right already.

        Raises:
            BoardError: the chip refuses or what it wrote does not verify.
        """
        with self._vendor("writing flash"):
            self._use_stub()
            for offset, data in pieces:
                esptool.write_flash(
                    self._esp,
                    [(offset, bytes(data))],
                    encrypt=encrypt,
                    flash_size=self._flash_size if self.secure_download else "keep",
                    force=force,
                    skip_flashed=skip_identical and not self.secure_download,
                    # Ciphertext does not compress; trying costs time and a line in the log.
                    no_compress=force,
                )

    def read_flash(self, offset: int, size_bytes: int) -> bytes:
        """Raw flash content: ciphertext on an encrypted chip.

        Raises:
            BoardError: reading failed, or the chip is in Secure Download Mode.
        """
        with self._vendor("reading flash"):
            self._use_stub()
            data = esptool.read_flash(self._esp, offset, size_bytes)
        return bytes(data or b"")

    def flash_md5(self, offset: int, size_bytes: int) -> str:
        """MD5 over raw flash, computed by the chip; 32 lower-case hexadecimal digits. Errors as `read_flash`."""
        with self._vendor("hashing flash"):
            self._use_stub()
            return str(self._esp.flash_md5sum(offset, size_bytes)).lower()

    # Inside

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
        with self._vendor(what):
            burner = self._fuses()
            self._burned = True
            yield burner

    def _use_stub(self) -> None:
        if self._flash_ready:
            return
        if not self.stub_running and not self.secure_download:
            self._esp = esptool.run_stub(self._esp)
            # The eFuses were read through the ROM object; from now on they are read through the stub's.
            self._burner = None
        if self._baud is not None and self._baud != ROM_BAUD:
            self._esp.change_baud(self._baud)
        esptool.attach_flash(self._esp)
        self._flash_ready = True

    def _require_chip(self) -> None:
        """esptool goes on with a chip that it does not know."""
        if self._esp.USES_MAGIC_VALUE:
            magic = int(self._esp.read_reg(self._esp.CHIP_DETECT_MAGIC_REG_ADDR))
            if magic != self._esp.MAGIC_VALUE:
                raise BoardError(
                    f"this chip is not an {self.chip.title} (magic value {magic:#010x})",
                    board=self.board,
                    todo="correct 'chip' in its entry",
                )
            return
        found = self._esp.get_security_info().get("chip_id")
        if found is not None and found != self.chip.chip_id:
            other = chip_with_id(found)
            raise BoardError(
                f"this chip is {other.title if other else f'no. {found}'}, not {self.chip.title}",
                board=self.board,
                todo="correct 'chip' in its entry",
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
        except (serial.SerialException, OSError) as error:
            raise LabError(
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
    except (serial.SerialException, OSError):
        # The port has gone; whoever uses it next says so with its name.
        return


def _ignore(_line: str) -> None:
    """No log was asked for."""
