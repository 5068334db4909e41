"""Burns that are left to the running firmware: release by ESP-IDF's own function, and locks behind a lock. Pure."""

from __future__ import annotations

from harness.chips import Chip
from harness.errors import RefusedError, UsageError
from harness.provision.chip_state import ChipState
from harness.provision.profile import Lock, Profile
from harness.provision.request import Request
from harness.provision.steps import BurnFuses, FirmwareCommand, Step

SET_RELEASE_MODE = "esp_flash_encryption_set_release_mode()"
LOCK_COMMAND = "lock"

_BURNED_BY_RELEASE = frozenset(
    {
        "DISABLE_DL_CACHE",
        "DISABLE_DL_ENCRYPT",
        "DISABLE_DL_DECRYPT",
        "DIS_DOWNLOAD_MANUAL_ENCRYPT",
        "SPI_DOWNLOAD_MSPI_DIS",
        "DIS_DOWNLOAD_MSPI",
        "DIS_DOWNLOAD_ICACHE",
        "DIS_DOWNLOAD_DCACHE",
        "XTS_DPA_PSEUDO_LEVEL",
    }
)
"""Of the fuses of release, what `SET_RELEASE_MODE` burns itself (``flash_encrypt.c`` of ESP-IDF v5.5.5)."""


def lock_of_release(chip: Chip) -> Lock:
    """What `SET_RELEASE_MODE` leaves of UART download: it always locks, and on ESP32 for good."""
    return Lock.DOWNLOAD_OFF if chip.fuses.secure_download is None else Lock.SECURE_DOWNLOAD


def check_release_by_firmware(request: Request) -> None:
    """That the lock which the firmware burns is the one that was asked for.

    Raises:
        UsageError: it is another.
    """
    chip = request.state.chip
    if request.by_firmware and request.lock is not lock_of_release(chip):
        lock = lock_of_release(chip)
        final = ", which is FINAL" if lock is Lock.DOWNLOAD_OFF else ""
        raise UsageError(
            f"on {chip.title} {SET_RELEASE_MODE} burns {_lock_fuse(chip, lock)}, too: it leads to lock "
            f"{lock.value}{final}, not to {request.lock.value}",
            todo=f"demand it with --lock {lock.value}, or let the host burn release",
        )


def check_starts_from_development(request: Request, now: Profile | None) -> None:
    """That the firmware can do its step: it refuses to on a chip that is not in development mode.

    Raises:
        RefusedError: the board is past it.
    """
    state = request.state
    if state.permanent or (state.encrypted and not state.manual_encryption):
        raise RefusedError(
            f"{SET_RELEASE_MODE} starts from development, and this board is past it"
            + (f": it is {now.value}" if now is not None else ""),
            board=state.mac,
            todo="leave out --by-firmware: the host burns what is missing",
        )


def before_release_by_firmware(state: ChipState) -> tuple[Step, ...]:
    """What ESP-IDF's release check wants and `SET_RELEASE_MODE` does not burn: behind its lock nobody could."""
    rest = tuple(
        (fuse, 1)
        for fuse in state.chip.fuses.release
        if fuse not in _BURNED_BY_RELEASE and not state.is_set(fuse)
    )
    return (BurnFuses(rest, "of release, what the firmware's own step leaves out"),) if rest else ()


def release_by_firmware(chip: Chip) -> FirmwareCommand:
    """The firmware's step from development to release."""
    fuses = chip.fuses
    lock = lock_of_release(chip)
    guard = (f"WR_DIS of {fuses.release_write_protect}",) if fuses.release_write_protect else ()
    return FirmwareCommand(
        LOCK_COMMAND,
        (("mode", "release"),),
        SET_RELEASE_MODE,
        (
            f"{fuses.counter} = {fuses.counter_release:#x}",
            *(fuse for fuse in fuses.release if fuse in _BURNED_BY_RELEASE),
            *guard,
            _lock_fuse(chip, lock),
        ),
        lock,
        final=lock is Lock.DOWNLOAD_OFF,
    )


def lock_by_firmware(request: Request) -> tuple[Step, ...]:
    """Only the lock: of a board that is in its profile already, also behind Secure Download Mode."""
    chip, lock = request.state.chip, request.lock
    calls = (
        "esp_efuse_disable_rom_download_mode()"
        if lock is Lock.DOWNLOAD_OFF
        else "esp_efuse_enable_rom_secure_download_mode()"
    )
    return (
        FirmwareCommand(
            LOCK_COMMAND,
            (("mode", lock.value),),
            calls,
            (_lock_fuse(chip, lock),),
            lock,
            final=lock is Lock.DOWNLOAD_OFF,
        ),
    )


def _lock_fuse(chip: Chip, lock: Lock) -> str:
    return chip.fuses.download_off if lock is Lock.DOWNLOAD_OFF else str(chip.fuses.secure_download)
