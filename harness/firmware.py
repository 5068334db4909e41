"""Which firmware a board gets, whether it suits the board, and what it burns by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from harness.board import Board
from harness.build.app_dir import AppDirectory
from harness.build.build_output import Progress
from harness.build.companion import TEST_FRAGMENT, Companion
from harness.build.firmware_source import (
    FirmwareSource,
    GivenFirmware,
    NativeFirmware,
    SignedFirmware,
    TargetFirmware,
)
from harness.build.fuses_burned import SIGNED_BY_P192, SelfBurns, frozen_at_start, self_burns
from harness.build.signing import ImageSigner
from harness.chips import SigningScheme
from harness.chips.idf_burns import SKIP_START_UP_WRITE_PROTECTION
from harness.errors import UsageError
from harness.home import Home
from harness.provision.chip_state import ChipState
from harness.provision.key_blocks import release_fuses_frozen_with, sharing_protection
from harness.provision.profile import Lock, Profile
from harness.provision.secure_boot_state import open_behind_lock
from harness.say import Say


def firmware_for(
    board: Board,
    profile: Profile,
    lock: Lock,
    home: Home,
    *,
    apps: Sequence[Path] = (),
    fragments: Sequence[str] = (),
    idf: Path | None = None,
    device_key: bool = False,
    say: Say,
) -> FirmwareSource:
    """What `board` is flashed with and updated to: builds that were given, else the companion, built for its link.

    The companion takes packages that are signed with the vault's key. With secure boot all of it is signed.

    Args:
        apps: folders of builds to take instead.
        fragments: sdkconfig fragments that win over those of profile and lock.
        idf: ESP-IDF's folder; None: the environment's.
        device_key: it makes a flash key by itself at its first start, and enciphers what was flashed.

    Raises:
        UsageError: a build that was given is none, or does not fit the board.
    """
    source: FirmwareSource
    if apps:
        encryption = profile.built_as.value if profile.encrypts else "off"
        source = GivenFirmware.read(
            apps, chip=board.chip, encryption=encryption, secure_boot=profile.secure_boot
        )
    else:
        locked = Lock.SECURE_DOWNLOAD if lock is Lock.SECURE_DOWNLOAD else Lock.NONE
        key = ("key.device",) if device_key else ()
        security = security_fragments(profile, locked, board.boot_keys.scheme)
        source = _companion(board, (*security, *key, TEST_FRAGMENT, *fragments), home, idf=idf, say=say)
    if not profile.secure_boot:
        return source
    return SignedFirmware(source, ImageSigner.of(board.boot_keys, board.vault, board.chip, home.builds))


def _companion(
    board: Board, fragments: tuple[str, ...], home: Home, *, idf: Path | None, say: Say
) -> FirmwareSource:
    keys = (board.vault.signing_public_key(),)
    if board.link.runs_native:
        return NativeFirmware(
            Companion(
                chip=board.chip,
                fragments=fragments,
                signing_keys=keys,
                builds=home.builds,
                store=home.build_store,
            )
        )
    return TargetFirmware(
        board.chip,
        (*fragments, *board.fragments),
        keys,
        home.builds,
        idf=idf,
        on_progress=_build_progress(say),
    )


def security_fragments(profile: Profile, lock: Lock, scheme: SigningScheme) -> tuple[str, ...]:
    """The sdkconfig fragments of a companion firmware that runs in `profile` with `lock`."""
    boot = ("boot.sbv2", f"scheme.{scheme.value}") if profile.secure_boot else ()
    return (f"profile.{profile.built_as.value}", *boot, f"lock.{lock.value}")


def _build_progress(say: Say) -> Callable[[Progress], None]:
    """Every tenth of the way, since a first build takes minutes."""
    told = -1

    def show(progress: Progress) -> None:
        nonlocal told
        tenth = 10 * progress.done // progress.total
        if tenth > told:
            told = tenth
            say.detail(f"building with ESP-IDF: {progress.done} of {progress.total} steps")

    return show


def burned_by_itself(
    app: AppDirectory,
    state: ChipState,
    profile: Profile,
    lock: Lock,
    *,
    device_key: bool = False,
    by_firmware: bool = False,
) -> SelfBurns:
    """What `app` burns when it first runs on a board that has been brought into `profile` and `lock` by then.

    Args:
        by_firmware: release is burned by the firmware itself, so it runs before that.
    """
    fuses = state.chip.fuses
    burned = [name for name, value in state.fuses.items() if value]
    burned += [f"WR_DIS of {name}" for name in state.write_protected]
    by_host = not device_key or state.encrypted
    if profile.encrypts and by_host:
        burned += [name for name, _ in fuses.key_config]
    if profile.encryption is Profile.RELEASE and by_host:
        burned += [*fuses.release, fuses.counter, f"WR_DIS of {fuses.counter}"]
    if lock is Lock.SECURE_DOWNLOAD and fuses.secure_download is not None:
        burned.append(fuses.secure_download)
    if lock is Lock.DOWNLOAD_OFF:
        burned.append(fuses.download_off)
    if profile.secure_boot:
        boot = state.chip.secure_boot
        burned += [
            boot.enable,
            *(fuse for fuse in boot.revoke if fuse not in open_behind_lock(state)),
            *(name for name, _ in boot.burned_with),
        ]
        released = profile.encryption is Profile.RELEASE and by_host and not by_firmware
        needed = () if released else tuple(name for name in fuses.release if not state.is_set(name))
        if boot.curve_mode is not None and (app.sdkconfig or {}).get(f"CONFIG_{SIGNED_BY_P192}") == "y":
            burned.append(boot.curve_mode)
        own = self_burns(app.sdkconfig, app.chip.name, encrypted=True, secure_boot=True, burned=burned)
        needed += tuple(each.fuse for each in own.burns)
        burned += [
            f"WR_DIS of {name}"
            for name in (*((boot.write_protect,) if by_host else ()), *boot.also_write_protect)
            if not set(needed) & {name, *sharing_protection(state.chip, name)}
        ]
    return self_burns(
        app.sdkconfig,
        app.chip.name,
        encrypted=profile.encrypts and by_host,
        secure_boot=profile.secure_boot,
        burned=burned,
    )


def judge(
    board: Board, app: AppDirectory, profile: Profile, lock: Lock, *, device_key: bool = False
) -> tuple[str, ...]:
    """Whether a build suits the board and what it is to become; remarks for the plan.

    Raises:
        UsageError: it does not; nothing has been written.
    """
    remarks = list(app.remarks)
    if not profile.encrypts and app.encryption in ("development", "release"):
        raise UsageError(
            f"the build in {app.dir} encrypts the flash by itself at its first start ({app.encryption} mode): with a "
            "key that it makes, no update from here could ever be enciphered",
            board=board.name,
            todo=f"give a build without flash encryption, or demand profile {app.encryption}",
        )
    already = (app.sdkconfig or {}).get("CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED") == "y"
    if device_key and (already or app.encryption != profile.encryption.value):
        raise UsageError(
            f"the build in {app.dir} does not encrypt the flash by itself in {profile.encryption.value} mode",
            board=board.name,
            todo="build it with CONFIG_SECURE_FLASH_ENC_ENABLED=y and that mode, and with "
            "SECURE_FLASH_REQUIRE_ALREADY_ENABLED off",
        )
    if profile.encrypts and app.encryption not in (None, profile.built_as.value):
        made_for = f"{app.encryption} mode" if app.encryption != "off" else "a chip without flash encryption"
        remarks.append(f"the build in {app.dir} was made for {made_for}, the board becomes {profile.value}")
    _judge_secure_boot(board, app, profile, remarks)
    locks = (app.sdkconfig or {}).get("CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE") == "y"
    if locks and lock is Lock.NONE and board.chip.fuses.secure_download is not None and app.kind == "target":
        raise UsageError(
            f"the app in {app.dir} burns {board.chip.fuses.secure_download} at every start: lock none would not last",
            board=board.name,
            todo="build it with CONFIG_SECURE_INSECURE_ALLOW_DL_MODE=y, or demand lock secure-download",
        )
    off = (app.sdkconfig or {}).get("CONFIG_SECURE_DISABLE_ROM_DL_MODE") == "y"
    if off and lock is not Lock.DOWNLOAD_OFF and app.kind == "target":
        raise UsageError(
            f"the app in {app.dir} burns {board.chip.fuses.download_off} at every start: no cable would ever write to "
            "this board again",
            board=board.name,
            todo="build it with CONFIG_SECURE_INSECURE_ALLOW_DL_MODE=y, or demand lock download-off, which is FINAL",
        )
    if app.kind == "target" and not app.is_companion:
        remarks.append(
            f"what the configuration of {app.project} makes it burn is listed; its own code was not looked at"
        )
    if app.speaks and board.vault.signing_public_key() not in app.release.image and app.kind == "target":
        what = f"the app in {app.dir} does not hold the public key of this board's vault: it refuses our packages"
        if app.is_companion:
            raise UsageError(
                what,
                board=board.name,
                todo=f"build it with: harness build --board {board.name} --profile {profile.value} --out DIR; on another "
                f"machine with --sign-key FILE, where FILE is what this one prints with: "
                f"harness vault public-key --board {board.name} --profile {profile.value}",
            )
        remarks.append(what)
    if not app.speaks:
        remarks.append(
            f"{app.project} takes no commands over the UART: it is provisioned and booted, and not updated"
        )
    return tuple(remarks)


def _judge_secure_boot(board: Board, app: AppDirectory, profile: Profile, remarks: list[str]) -> None:
    """Whether a build's secure boot is the profile's; adds to `remarks`.

    Raises:
        UsageError: it would turn secure boot on by itself, or verify other signatures than it would be given.
    """
    if app.secure_boot_v1:
        raise UsageError(
            f"the build in {app.dir} is for secure boot v1, the ESP32's older one, which is not supported",
            board=board.name,
            todo="build it with CONFIG_SECURE_BOOT_V2_ENABLED=y and ESP32_REV_MIN_3",
        )
    if app.secure_boot and not profile.secure_boot:
        raise UsageError(
            f"the build in {app.dir} turns secure boot on by itself at its first start, with whatever key signed it",
            board=board.name,
            todo=f"demand profile {Profile.of(profile, secure_boot=True).value}, or build it with CONFIG_SECURE_BOOT off",
        )
    if not profile.secure_boot:
        return
    if app.secure_boot is False:
        remarks.append(
            f"the build in {app.dir} was made without secure boot: the ROM verifies its bootloader, but the bootloader "
            "starts any app, signed or not"
        )
    _judge_write_protection(board, app, profile, remarks)
    scheme, wanted = app.signing_scheme, board.boot_keys.scheme
    if scheme is not None and scheme is not wanted:
        raise UsageError(
            f"the build in {app.dir} verifies {scheme.value}, the board's keys sign with {wanted.value}",
            board=board.name,
            todo=f"set secure_boot: scheme: {scheme.value} in its entry, or build it for {wanted.value}",
        )


def _judge_write_protection(board: Board, app: AppDirectory, profile: Profile, remarks: list[str]) -> None:
    """Whether the app's start-up closes the way to release; adds to `remarks`."""
    fuse = frozen_at_start(app.sdkconfig or {}, board.chip.name)
    if fuse is None or not profile.encrypts or profile.encryption is Profile.RELEASE:
        return
    needed = release_fuses_frozen_with(board.chip, fuse)
    if needed:
        remarks.append(
            f"the app in {app.dir} write-protects {fuse} at its first start, and {', '.join(needed)} with it: release is "
            f"out of reach for this board afterwards (CONFIG_{SKIP_START_UP_WRITE_PROTECTION}=y leaves the way open)"
        )
