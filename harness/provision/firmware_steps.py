"""Burns that are left to the running firmware: release by ESP-IDF's own function, and locks behind a lock. Pure."""

from __future__ import annotations

from harness.chips import Chip
from harness.chips.idf_burns import idf_burns
from harness.errors import RefusedError, UsageError
from harness.provision.chip_state import ChipState
from harness.provision.profile import Lock, Profile
from harness.provision.request import Request
from harness.provision.steps import BurnFuses, FirmwareCommand, Step

SET_RELEASE_MODE = "esp_flash_encryption_set_release_mode()"
BURNED_ONE_BY_ONE = f"one fuse after another, then {SET_RELEASE_MODE} to check them"
"""What the firmware does: ESP-IDF's function burns all of them at once, which a supply that fails may leave half done
(``firmware/main/release_mode.h``)."""
LOCK_COMMAND = "lock"


def _burned_by_release(chip: Chip) -> tuple[str, ...]:
    """Of the fuses of release, what `SET_RELEASE_MODE` burns on this chip."""
    burns = idf_burns(chip.name)
    by_function = {*burns.release_mode, burns.release_pseudo_rounds}
    return tuple(fuse for fuse in chip.fuses.release if fuse in by_function)


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
        if fuse not in _burned_by_release(state.chip) and not state.is_set(fuse)
    )
    return (BurnFuses(rest, "of release, what the firmware's own step leaves out"),) if rest else ()


def release_by_firmware(chip: Chip) -> FirmwareCommand:
    """The firmware's step from development to release."""
    fuses = chip.fuses
    lock = lock_of_release(chip)
    guard = fuses.release_write_protect
    # One bit, and the counter is as final as with all of its own: these pass through an even number of ones.
    last = (f"WR_DIS of {fuses.counter}", _lock_fuse(chip, lock))
    return FirmwareCommand(
        LOCK_COMMAND,
        (("mode", "release"),),
        BURNED_ONE_BY_ONE,
        (
            *_burned_by_release(chip),
            *((f"WR_DIS of {guard}",) if guard not in (None, fuses.counter) else ()),
            *(last if lock is not Lock.DOWNLOAD_OFF else reversed(last)),
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
