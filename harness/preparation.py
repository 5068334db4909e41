"""Brings a board to the state that a test or a run demands: plan, consent, provisioning, first boot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.board import Board, Running
from harness.build.app_dir import AppDirectory
from harness.build.flash_layout import lay_out
from harness.build.fuses_burned import SelfBurns
from harness.connection import burn_guard
from harness.console.mark import STEP, step_text
from harness.errors import AppDownError, BoardError, HarnessError, LabError, RefusedError, UsageError
from harness.firmware import burned_by_itself, firmware_for, judge
from harness.home import Home
from harness.identification import identify
from harness.interruption import unbroken
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.network.update_path import NO_NETWORK
from harness.provision.chip_state import ChipState, Download
from harness.provision.consent import check_consent
from harness.provision.consumables import Resource
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.device_record import DeviceRecord
from harness.provision.execute import StepEvent, carry_out
from harness.provision.key_blocks import flash_key_blocks
from harness.provision.plan import Plan
from harness.provision.planner import FlashedFirmware, plan_for
from harness.provision.profile import Lock, Profile, default_lock
from harness.provision.promise import Difference, broken_promises, last_promise
from harness.provision.proven import require_key, saying_what_became_of, with_key_notes
from harness.provision.recognition import profile_of
from harness.provision.region import FlashRegion
from harness.provision.revocation import revoked_by
from harness.provision.saved_flash import FOLDER as SAVED_FOLDER
from harness.provision.saved_flash import SavedFlashes, save_before_overwrite
from harness.provision.steps import FirmwareCommand
from harness.provision.told_fuses import told_profile, told_state
from harness.say import Say
from harness.vault.key_life import note_device_made
from harness.vault.key_ref import KeyState

FIRST_VERSION = "1.0.0"

_TARGET_CODE = "twin: this image holds target code"
"""How the line begins that a twin prints of an app that was built for the chip."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a board is to be: security profile, lock (None: the profile's default), first firmware."""

    profile: Profile
    lock: Lock | None = None
    version: str = FIRST_VERSION
    """Of the companion firmware, where it is built here."""
    apps: tuple[Path, ...] = ()
    """Folders of builds to take instead; see `GivenFirmware`."""
    idf: Path | None = None
    """ESP-IDF to build with; None: the environment's."""
    write: tuple[str, ...] = ()
    """Partitions whose image is written although they would be kept."""
    erase: tuple[str, ...] = ()
    """Partitions that are left blank."""
    fragments: tuple[str, ...] = ()
    """More sdkconfig fragments for a companion firmware that is built here (``rollback.anti``)."""
    reflash: bool = False
    """Write the flash again although the board is there already: what lies in it was spoiled."""
    by_firmware: bool = False
    """The last burns are the running firmware's: release by ESP-IDF's own function, or a lock."""
    device_key: bool = False
    """The device makes its flash key itself, at its first start; no update can ever be enciphered on a host."""
    aggressive_revoke: bool = False
    """Burn SECURE_BOOT_AGGRESSIVE_REVOKE, which Espressif's workflow has and this one leaves out."""
    revoke: tuple[int, ...] = ()
    """Digest slots whose boot keys the board is to trust no longer."""


@dataclass(frozen=True, slots=True)
class Consent:
    """What a person has agreed to: in the board's entry, and on this run by name."""

    entry: AnyEntry
    burn: frozenset[str] = frozenset()
    unknown_burns: frozenset[str] = frozenset()
    """Boards that may get firmware of which nobody can tell what it burns."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A board that is ready: what was done to it, and what it says of itself."""

    plan: Plan
    running: Running | None
    """None: an app of somebody else, which says nothing of itself but its log."""


def prepare(board: Board, demand: Demand, consent: Consent, home: Home, *, say: Say) -> Prepared:
    """Provisions `board` as far as `demand` needs and waits for its firmware. Burns nothing that is burned.

    Raises:
        RefusedError: consent is missing, or the board cannot reach the profile.
        BoardError, LabError: provisioning failed; the next run goes on from there.
    """
    planned = make_plan(board, demand, home, say=say, to_carry_out=True)
    carry_out_plan(board, planned, consent, home, say=say)
    return settle_after(board, planned, demand, say=say)


def settle_after(board: Board, planned: Planned, demand: Demand, *, say: Say) -> Prepared:
    """Boots a board whose plan has been carried out, and waits until its firmware is where scenarios start.

    Raises:
        BoardError: the firmware does not come up; AppDownError where `demand` names an app. RefusedError: it is another
            board, or a twin whose flash holds an app that was built for the chip.
    """
    board.profile, board.lock = demand.profile, planned.plan.lock
    board.run_note.doing("during the first boot")
    mark = board.console.mark()
    with say.phase("first boot", lambda: board.uart_bytes), _uncut_if_it_burns(board, planned):
        try:
            running = board.settle()
        except BoardError as error:
            require_code_of_its_own(board, mark)
            raise (AppDownError if demand.apps else BoardError)(
                f"was provisioned as {demand.profile.value}, but its firmware does not come up: {error.message}",
                board=board.name,
                todo=_when_it_stays_down(board, planned),
            ) from error
    if running is not None:
        _require_known(board, running.mac)
        require_promised(board, planned.plan, running)
        if planned.plan.key_state == KeyState.DEVICE_MADE.value and planned.plan.writes:
            _note_device_made(board, planned.plan, running)
        _prove_update_path(board, running, say)
    return Prepared(planned.plan, running)


def _when_it_stays_down(board: Board, planned: Planned) -> str:
    """What to do when the firmware does not come up: what this run did not write may have been spoiled."""
    look = f"read the end of {board.log_path}"
    if planned.plan.writes or planned.state.download is Download.OFF:
        return look
    again = f"harness provision --board {board.name} --profile {planned.plan.profile.value} --reflash"
    return f"{look}; this run wrote nothing to its flash: if it was spoiled, write it again: {again}"


def require_code_of_its_own(board: Board, since: int) -> None:
    """The twin did not say, after the mark `since`, that the app in its flash was built for the chip.

    Raises:
        RefusedError: it did; nothing is wrong with the board.
    """
    if any(line.text.startswith(_TARGET_CODE) for line in board.console.lines_since(since)):
        raise RefusedError(
            "its flash holds an app that was built for the chip: a twin loads that, and cannot run it",
            board=board.name,
            todo="run it in an emulator on the same state folder ('link: qemu'), or give the twin a folder of its own",
        )


@contextmanager
def _uncut_if_it_burns(board: Board, planned: Planned) -> Iterator[None]:
    """A first boot in which the firmware burns eFuses, or enciphers its flash, by itself: no signal ends it half way.

    Raises:
        RefusedError: it may take longer than there is time.
    """
    if not planned.plan.by_itself:
        yield
        return
    board.time_left.require_for_first_boot(
        sum(len(region.data) for region in planned.regions), board=board.name
    )
    with unbroken("the firmware burns eFuses by itself in its first boot"):
        yield


def require_promised(board: Board, plan: Plan, running: Running) -> None:
    """What the firmware reads of the eFuses is what the plan promised, also where the ROM tells nothing any more.

    Raises:
        BoardError: names every difference; or ESP-IDF's own release check does not pass.
    """
    if not plan.burns:
        return
    told, promise = told_state(board.chip, running.fields), last_promise(plan)
    wrong: tuple[Difference, ...] = ()
    if told is not None and promise is not None:
        # What the firmware burns over and above is listed in the plan; that nothing is missing must hold.
        wrong = tuple(
            each for each in broken_promises(promise, told) if not (plan.by_itself and each.is_more)
        )
    if wrong:
        board.records.note_differences(plan.mac, tuple(str(each) for each in wrong))
        listed = "; ".join(str(each) for each in wrong)
        raise BoardError(
            f"its firmware reads other eFuses than plan {plan.id} promised: {listed}",
            board=board.name,
            todo="plan again: the new plan says what is still missing or in the way",
        )
    if plan.profile.encryption is Profile.RELEASE and not running.release_ok:
        board.records.note_differences(plan.mac, ("ESP-IDF's own check says that this is not release",))
        raise BoardError(
            "ESP-IDF's own esp_flash_encryption_cfg_verify_release_mode() says that this is not release",
            board=board.name,
            todo=f"read what it misses in {board.log_path}",
        )


def _note_device_made(board: Board, plan: Plan, running: Running) -> None:
    """The device has enciphered itself: what its firmware reads goes into its record, and no key can ever be made."""
    told = told_profile(board.chip, running.fields)
    if told is not None and told.profile is not plan.profile:
        raise BoardError(
            f"was to become {plan.profile.value} with a key of its own; its firmware reads {told.text()}",
            board=board.name,
            todo=f"read what its bootloader said at its first start in {board.log_path}",
        )
    note_device_made(board.vault, plan.mac, board.chip)
    record, state = board.records.read(plan.mac), told_state(board.chip, running.fields)
    if record is not None and state is not None:
        blocks = flash_key_blocks(state)
        block = blocks[0].name if blocks else record.key_block
        board.records.write(replace(record, fuses=state.fuses, key_block=block))


def _prove_update_path(board: Board, running: Running, say: Say) -> None:
    """A virtual board is on this machine; for a real one the way has to be proven before anything relies on it."""
    if not board.link.physical:
        return
    if running.fields.get("net") == NO_NETWORK:
        say.detail("its firmware has no network: it takes no update over one")
        return
    with say.phase("reach", lambda: board.uart_bytes):
        proof = board.reach_updates()
    say.detail(proof.text())


def reflash(board: Board, demand: Demand, consent: Consent, home: Home, *, say: Say) -> Prepared:
    """Writes bootloader, table, otadata and first app again, as ciphertext where the board encrypts.

    Also works in Secure Download Mode, where nothing can be read back.

    Raises:
        RefusedError: UART download is off. BoardError: the firmware does not come up even then.
    """
    planned = make_plan(board, demand, home, say=say, reflash=True, to_carry_out=True)
    carry_out_plan(board, planned, consent, home, say=say)
    return settle_after(board, planned, demand, say=say)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan together with what it writes, which a stored plan does not hold."""

    plan: Plan
    regions: tuple[FlashRegion, ...]
    state: ChipState
    app: AppDirectory
    burns: SelfBurns
    """What the firmware burns by itself, also that which the board is only updated to."""


def make_plan(
    board: Board,
    demand: Demand,
    home: Home,
    *,
    say: Say,
    reflash: bool = False,
    to_carry_out: bool = False,
    state: ChipState | None = None,
) -> Planned:
    """Identifies the board, reads its eFuses, builds the firmware, plans. Nothing on the board changes.

    Args:
        reflash: write the flash again, although the board is in the profile already.
        to_carry_out: what would be refused in the end for want of the board's name is refused before a build of
            minutes.
        state: the board as it was read and identified before; None: that is done here.

    Raises:
        RefusedError: the state cannot reach the profile; names the fuse in the way.
    """
    if to_carry_out:
        board.run_note.doing("before it changed anything on the board")
    if state is None:
        with say.phase("read", lambda: board.uart_bytes):
            state = identify(board)
    if to_carry_out:
        board.identity.require()
    mac = board.mac
    assert mac is not None
    board.choose_vault(demand.profile)
    board.link.rest()
    record = board.records.read(mac)
    lock = demand.lock or _kept_lock(board, state, record, demand.profile)
    is_in = profile_of(state, record).profile
    if demand.device_key and demand.by_firmware and is_in is not None and not is_in.encrypts:
        # The firmware would be built for a board that is encrypted already.
        raise UsageError(
            "--device-key and --by-firmware do not go together: the device makes its key at a first boot, and releases "
            "itself at a later one",
            todo="first --device-key --profile development, then --by-firmware --profile release",
        )
    with say.phase("build", lambda: board.uart_bytes), _called_by_name(board):
        board.firmware = firmware_for(
            board,
            _built_for(demand, state, record),
            Lock.NONE if demand.by_firmware else lock,
            home,
            apps=demand.apps,
            fragments=demand.fragments,
            idf=demand.idf,
            device_key=demand.device_key,
            say=say,
        )
        apps = board.firmware.all(demand.version)
        remarks = _remarks_on(apps, board, demand, lock)
    app = apps[0]
    board.app = app
    board.table = app.partition_table
    burns = _burned_by(apps, demand, state, lock)
    layout = lay_out(
        app,
        encrypts=demand.profile.encrypts and not demand.device_key,
        burns=burns,
        write=demand.write,
        erase=demand.erase,
    )
    regions = layout.regions
    key = board.vault.key_record(mac)
    with _called_by_name(board), saying_what_became_of(key):
        plan = plan_for(
            state,
            profile=demand.profile,
            lock=lock,
            key=board.vault.key(mac),
            regions=regions,
            intent=board.vault.intent(mac),
            record=record,
            reflash=reflash or demand.reflash,
            spoiled=demand.reflash,
            firmware=FlashedFirmware(burns.steps(), layout.lines(), remarks),
            digests=board.firmware.digests,
            by_firmware=demand.by_firmware,
            device_key=demand.device_key,
            aggressive_revoke=demand.aggressive_revoke,
            revoke=demand.revoke,
        )
        plan = with_key_notes(plan, key, board.vault.key_source)
        require_key(plan, key)
    keep_plan(board, plan)
    return Planned(plan, regions, state, app, burns)


def _remarks_on(apps: Iterable[AppDirectory], board: Board, demand: Demand, lock: Lock) -> tuple[str, ...]:
    """What a person should know of builds that nothing forbids; each once."""
    found = (judge(board, each, demand.profile, lock, device_key=demand.device_key) for each in apps)
    return tuple(dict.fromkeys(remark for remarks in found for remark in remarks))


def _burned_by(apps: Iterable[AppDirectory], demand: Demand, state: ChipState, lock: Lock) -> SelfBurns:
    """What `apps` burn by themselves: what the board may be updated to does it as well as what is flashed."""
    burns = SelfBurns(())
    for each in apps:
        burns = burns.together_with(
            burned_by_itself(
                each,
                state,
                demand.profile,
                lock,
                device_key=demand.device_key,
                by_firmware=demand.by_firmware,
            )
        )
    return burns


def keep_plan(board: Board, plan: Plan) -> None:
    """Leaves `plan` among the artefacts of this run."""
    board.plans = (*board.plans, plan)
    (board.folder / "plan.txt").write_text(plan.text() + "\n", encoding="utf-8")
    (board.folder / "plan.json").write_text(plan.to_json() + "\n", encoding="utf-8")


@contextmanager
def _called_by_name(board: Board) -> Iterator[None]:
    """Errors from below know a chip by its MAC; a person knows the board by its name."""
    try:
        yield
    except HarnessError as error:
        if error.board in (None, board.mac):
            error.board = board.name
        raise


def _built_for(demand: Demand, state: ChipState, record: DeviceRecord | None) -> Profile:
    """The firmware that goes from development to release by itself is one for development."""
    release = demand.profile.encryption is Profile.RELEASE
    if not (demand.by_firmware and release) or profile_of(state, record).profile is demand.profile:
        return demand.profile
    return Profile.of(Profile.DEVELOPMENT, secure_boot=demand.profile.secure_boot)


def _kept_lock(board: Board, state: ChipState, record: DeviceRecord | None, profile: Profile) -> Lock:
    """A board that is in the profile already keeps the lock that it has; others get the default.

    One that an earlier run has left half done gets the lock that was planned then: what it shows by now may be all
    of the profile but its lock.
    """
    assert board.mac is not None
    begun = board.vault.intent(board.mac)
    if begun is not None and begun.profile == profile.value:
        return Lock(begun.lock)
    now = profile_of(state, record)
    return now.lock if now.profile is profile else default_lock(board.chip, profile)


def carry_out_plan(
    board: Board,
    planned: Planned,
    consent: Consent,
    home: Home,
    *,
    say: Say,
    on_step: Callable[[StepEvent], None] = lambda _: None,
) -> None:
    """Does what the plan says, after consent; an empty plan does nothing. `on_step` is told of every step, too.

    Raises:
        RefusedError: the board is not identified, or consent is missing; the plan is printed with the refusal.
    """
    plan = planned.plan
    board.identity.require()
    if not plan.writes and planned.burns.steps():
        # Nothing is flashed now, so the plan does not say it; but updates will bring firmware that burns.
        furthest = Profile.together(filter(None, (plan.burns_up_to, planned.burns.up_to())))
        steps = (*plan.steps, *planned.burns.steps())
        _require_consent(board, replace(plan, steps=steps, burns_up_to=furthest), consent)
    if plan.empty:
        return
    _require_consent(board, plan, consent)
    _require_runnable(board, planned)
    _require_flash_size(board, planned)
    if board.link.physical:
        board.network.require_credentials()
    if board.link.physical and plan.writes:
        _save_flash(board, planned, home, say=say)
    if plan.writes:
        # None for a native build: its bootloader carries its configuration.
        board.link.keep_sdkconfig(planned.app.sdkconfig_text if planned.app.kind == "target" else None)

    def told(event: StepEvent) -> None:
        on_step(event)
        if not event.done:
            # The plan has been printed in full: here is only where it is.
            board.run_note.doing(f"in step {event.number}/{event.total} ({event.step.headline})")
            say.detail(f"{event.number:2d}/{event.total}  {event.step.headline}")
        # What cannot be told stops no plan, least of all between two burns.
        with suppress(LabError):
            board.console.note(_step_note(event), kind=STEP)

    revoked = revoked_by(plan)
    if revoked:
        what = " ".join(f"--revoke {slot}" for slot in revoked)
        ConsumptionLedger(board.records.folder).note(plan.mac, what, {Resource.REVOCATIONS: len(revoked)})
    guard = burn_guard(board.link, board.name) if plan.burns else nullcontext()
    with say.phase("provision", lambda: board.uart_bytes), _called_by_name(board), guard:
        outcome = carry_out(
            plan,
            board.rom,
            board.vault,
            records=board.records,
            regions=planned.regions,
            physical=board.link.physical,
            on_step=told,
            firmware=lambda step: burn_by_firmware(board, step),
            time_left=board.time_left,
        )
    for remark in outcome.remarks:
        say.detail(remark)


def _step_note(event: StepEvent) -> str:
    """What the log says of a step that begins, or has ended."""
    for_good = " (for good)" if event.step.irreversible else ""
    return step_text(event.number, event.total, None if event.done else f"{event.step.headline}{for_good}")


def burn_by_firmware(board: Board, step: FirmwareCommand) -> None:
    """Boots the board and has its firmware burn what `step` says.

    Raises:
        BoardError: it does not come up, or refuses.
    """
    board.restart()
    mode = dict(step.arguments)["mode"]
    burn = {
        "release": board.set_release_mode,
        Lock.DOWNLOAD_OFF.value: board.disable_download,
        Lock.SECURE_DOWNLOAD.value: board.enable_secure_download,
    }[mode]
    answer = burn(planned=True)
    if not answer.ok:
        raise BoardError(
            f"its firmware refuses '{step.command} mode={mode}': {answer.error}",
            board=board.name,
            todo="build it with CONFIG_COMPANION_ALLOW_LOCK=y; nothing was burned",
        )


def _require_consent(board: Board, plan: Plan, consent: Consent) -> None:
    entry = consent.entry
    check_consent(
        board_name=board.name,
        physical=board.link.physical,
        mac_declared=entry.mac,
        mac_found=board.identity.found,
        burn_up_to=entry.burn_up_to if isinstance(entry, PhysicalEntry) else None,
        burn_names=consent.burn,
        plan=plan,
        unknown_burns_accepted=consent.unknown_burns,
        record=board.records.read(plan.mac) if plan.final else None,
    )


def _require_flash_size(board: Board, planned: Planned) -> None:
    """A build for a larger flash chip would be found out by its own start-up code, when all fuses are burned."""
    if not planned.plan.writes or planned.state.download is not Download.OPEN:
        return
    with board.rom(writes_flash=False) as session:
        there = session.flash_size_bytes()
    wanted = max(
        [planned.app.flash_size_bytes, *(each.end for each in planned.app.partition_table.partitions)]
    )
    if wanted > there:
        raise RefusedError(
            f"its flash chip has {there >> 20} MiB, the build in {planned.app.dir} is for "
            f"{-(-wanted // (1 << 20))} MiB. Nothing was written",
            board=board.name,
            todo="build it for this size (CONFIG_ESPTOOLPY_FLASHSIZE, partition table), or use another board",
        )


def _save_flash(board: Board, planned: Planned, home: Home, *, say: Say) -> None:
    """What is in a physical board's flash is kept before the harness first overwrites it."""
    with say.phase("save flash", lambda: board.uart_bytes):
        save_before_overwrite(
            lambda: board.rom(writes_flash=False),
            planned.state,
            saved=SavedFlashes(home.with_keys(SAVED_FOLDER)),
            record=board.records.read(planned.plan.mac),
            tell=say.detail,
        )


def _require_runnable(board: Board, planned: Planned) -> None:
    """A native image is this host's machine code: on a chip it would be the last thing that was ever flashed."""
    if planned.plan.writes and planned.app.kind == "native" and not board.link.runs_native:
        raise RefusedError(
            f"the build in {planned.app.dir} was made for twins; a board on a {board.link.kind} link cannot run it. "
            "Nothing was written",
            board=board.name,
            todo="give a build for the chip: harness build --board NAME --out DIR",
        )


def _require_known(board: Board, mac: str) -> None:
    if board.mac != mac:
        raise RefusedError(
            f"the firmware says that this is {mac}, the ROM or the link that it is {board.mac}",
            board=board.name,
            todo="two cables may be swapped; nothing more is written",
        )
