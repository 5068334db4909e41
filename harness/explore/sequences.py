"""The sequences that are explored: what is done to a board step by step, and what must run after a cut in each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from harness.chips.efuses import efuse_geometry
from harness.chips.idf_burns import idf_burns
from harness.errors import UsageError
from harness.explore import first_boot
from harness.explore.bench import FIRST, LAST, NEXT, SAFE, Bench
from harness.explore.live_cut import LiveCut
from harness.explore.provisioning import SACRIFICED
from harness.explore.windows import Proof, Window
from harness.formats.ota_package import HEADER_BYTES
from harness.lab import Lab
from harness.ota.faults import Fault, FaultKind
from harness.ota.image_variants import patched_image
from harness.ota.release import parse_release, signer
from harness.ota.variants import flipped, signed_by, unsigned, with_image_cut, with_image_sha256
from harness.preparation import FIRST_VERSION, Demand
from harness.provision.profile import Lock, Profile

Row = dict[str, Any]

IN_HASHES = 60
"""A byte of the header that only the signature vouches for."""
TRIAL_S = 1.5
"""How long a version runs on trial in the sequence that waits; a confirmation by a timer would come."""

BOOT: Row = {"name": "power on", "do": "boot"}
RECOVERY: tuple[Row, ...] = (
    {"name": "settle", "do": "settle"},
    {"name": "next good update", "do": "update"},
    {"name": "boot into it", "do": "reboot", "expect": {"version": SAFE, "state": "pending"}},
    {"name": "confirm it", "do": "command", "command": "confirm"},
    {"name": "power cycle", "do": "cycle", "expect": {"version": SAFE, "state": "valid", "agree": True}},
)
"""What a device must be able to do after any cut: take its next update, run it, keep it."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """A sequence on a board that is ready for it, as the explorer takes it (`harness.twin.explorer.job`)."""

    steps: tuple[Row, ...]
    recovery: tuple[Row, ...] = RECOVERY
    stuck: tuple[tuple[int, int], ...] = ()
    """(flash address, bits) that cannot be 1 any more: worn-out cells."""
    fuses: Mapping[str, int] = field(default_factory=dict)
    """eFuse fields and the bits that must be burned in them when a recovery has ended: the profile."""
    first_boot: bool = False
    """The board enciphers itself: images are compared deciphered, and few cuts are placed inside an operation."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence. `make` gets a board that runs `FIRST` from ota_1, confirmed, the version before it in ota_0."""

    name: str
    about: str
    make: Callable[[Bench], Exploration] | None
    """None: it is a provisioning by the host, see `harness.explore.provisioning`."""
    profile: Profile | None = None
    """The one in which it is explored unless another is asked for; None: release."""
    also: tuple[Profile, ...] = ()
    """Where `profile` is not None: other encryption that may be asked for."""
    lock: Lock | None = None
    fragments: tuple[str, ...] = ()
    bench: Callable[[Lab, str, Demand], Bench] | None = None
    """How its board is made; None: prepared, and updated once."""
    most_chains: int | None = None
    """Of a sequence whose recoveries take long: at most so many chains of a size."""
    begins: Profile | None = None
    """Of a provisioning: the profile in which the board is before; None: it is blank."""
    windows: tuple[Window, ...] = ()
    """What the silicon leaves, and what leads out of it."""
    prove: Callable[[Lab, str, Demand, Window, LiveCut], Proof] | None = None
    """Leads a board out of a window that the cut has brought it into."""


def _update_rows(bench: Bench) -> tuple[Row, ...]:
    return (
        BOOT | {"expect": {"version": FIRST, "state": "valid"}},
        {
            "name": "update",
            "do": "command",
            "command": "ota",
            "arguments": {"url": bench.publish("next.pkg", bench.package(NEXT))},
            "boots": (FIRST, NEXT),
            "then": NEXT,
        },
    )


def _first_boot_row() -> Row:
    return {
        "name": "first boot",
        "do": "reboot",
        "expect": {"version": NEXT, "state": "pending"},
        "boots": (FIRST, NEXT),
        # A trial that was not confirmed is over.
        "then": FIRST,
    }


def _update(bench: Bench) -> Exploration:
    return Exploration(
        (
            *_update_rows(bench),
            _first_boot_row(),
            {
                "name": "confirm",
                "do": "command",
                "command": "confirm",
                "boots": (FIRST, NEXT),
                "then": NEXT,
            },
            {
                "name": "second boot",
                "do": "reboot",
                "expect": {"version": NEXT, "state": "valid"},
                "boots": (NEXT,),
            },
        )
    )


def _there_and_back(bench: Bench) -> Exploration:
    """Two updates, so that each slot and each record of otadata is written."""
    back = bench.publish("last.pkg", bench.package(LAST, bench.slot_of(FIRST)))
    return Exploration(
        (
            *_update(bench).steps,
            {
                "name": "update back",
                "do": "command",
                "command": "ota",
                "arguments": {"url": back},
                "boots": (NEXT, LAST),
                "then": LAST,
            },
            {
                "name": "first boot of the second",
                "do": "reboot",
                "expect": {"version": LAST, "state": "pending"},
                "boots": (NEXT, LAST),
                "then": NEXT,
            },
            {
                "name": "confirm the second",
                "do": "command",
                "command": "confirm",
                "boots": (NEXT, LAST),
                "then": LAST,
            },
        )
    )


ON_TRIAL: Row = {"boots": (FIRST,), "then": FIRST}


def _rollback(bench: Bench) -> Exploration:
    """Whatever a version on trial is asked for, and however long it runs: only the command confirms it."""
    asked = (
        {"name": f"{command} on trial", "do": "command", "command": command, **ON_TRIAL}
        for command in ("otadata", "net")
    )
    status: Row = {"do": "command", "command": "status", "expect": {"version": NEXT, "state": "pending"}}
    return Exploration(
        (
            *_update_rows(bench),
            _first_boot_row(),
            *asked,
            {"name": "some time on trial", "do": "pause", "seconds": TRIAL_S, **ON_TRIAL},
            {"name": "status on trial", **status, **ON_TRIAL},
            {"name": "status again", **status, **ON_TRIAL},
            {
                "name": "reset without confirmation",
                "do": "reset",
                "expect": {"version": FIRST, "state": "valid"},
                "boots": (FIRST,),
                "then": FIRST,
            },
        )
    )


def _on_trial(bench: Bench) -> Exploration:
    """While a version is on trial the other slot is the only way back: an update is refused, and changes nothing."""
    another = bench.publish("another.pkg", bench.package(LAST, bench.slot_of(FIRST)))
    return Exploration(
        (
            *_update_rows(bench),
            _first_boot_row(),
            {
                "name": "another update",
                "do": "command",
                "command": "ota",
                "arguments": {"url": another},
                "refused": "pending-verify",
                **ON_TRIAL,
            },
            {"name": "reset", "do": "reset", "expect": {"version": FIRST, "state": "valid"}, **ON_TRIAL},
        )
    )


def _rollback_command(bench: Bench) -> Exploration:
    return Exploration(
        (
            *_update_rows(bench),
            _first_boot_row(),
            {
                "name": "rollback",
                "do": "command",
                "command": "rollback",
                "restarts": True,
                "expect": {"version": FIRST, "state": "valid"},
                "boots": (FIRST,),
                "then": FIRST,
            },
        )
    )


def _fall_back(bench: Bench) -> Exploration:
    """otadata names a slot that does not boot any more; the handler repairs that before it erases anything."""
    spoiled = bench.slot_of(FIRST)
    old = bench.version_in(bench.other(spoiled))
    bench.spoil(spoiled)
    return Exploration(
        (
            BOOT | {"expect": {"version": old, "agree": False}},
            {
                "name": "update",
                "do": "command",
                "command": "ota",
                "arguments": {"url": bench.publish("next.pkg", bench.package(NEXT, spoiled))},
                "boots": (old, NEXT),
                "then": NEXT,
            },
            {
                "name": "first boot",
                "do": "reboot",
                "expect": {"version": NEXT, "state": "pending"},
                "boots": (old, NEXT),
                "then": old,
            },
        )
    )


def _refused_row(bench: Bench, name: str, package: bytes, error: str) -> Row:
    """An update that the handler must refuse by that error; whatever happens, `FIRST` stays."""
    return {
        "name": name,
        "do": "command",
        "command": "ota",
        "arguments": {"url": bench.publish(f"{name}.pkg".replace(" ", "-"), package)},
        "refused": error,
        "boots": (FIRST,),
        "then": FIRST,
    }


def _good_after(bench: Bench) -> tuple[Row, ...]:
    """The good update in the same boot, as a device tries again that was refused."""
    good = bench.publish("good.pkg", bench.package(NEXT))
    return (
        {
            "name": "good update",
            "do": "command",
            "command": "ota",
            "arguments": {"url": good},
            "boots": (FIRST, NEXT),
            "then": NEXT,
        },
        _first_boot_row(),
    )


def _refused(bench: Bench, package: bytes, error: str) -> tuple[Row, ...]:
    return (
        BOOT | {"expect": {"version": FIRST, "state": "valid"}},
        _refused_row(bench, "refused update", package, error),
    )


def _forged(bench: Bench) -> Exploration:
    """Headers that are not what was signed, and one that promises another image than comes."""
    recipe = bench.board.recipe(bench.release(NEXT), bench.other(bench.slot_of(FIRST)))
    right = recipe.package()
    stranger = signer(ec.generate_private_key(ec.SECP256R1()))
    return Exploration(
        (
            BOOT | {"expect": {"version": FIRST, "state": "valid"}},
            _refused_row(bench, "changed header", flipped(right, IN_HASHES), "bad-signature"),
            _refused_row(bench, "strange signature", signed_by(right, stranger), "bad-signature"),
            _refused_row(bench, "no signature", unsigned(right), "bad-signature"),
            _refused_row(bench, "other image hash", with_image_sha256(recipe), "image-hash"),
            *_good_after(bench),
        )
    )


def _broken_off(bench: Bench) -> Exploration:
    """A download whose connection ends in its body, and a good one of another version behind it, in one boot."""
    other = bench.package(LAST)
    row = _refused_row(bench, "broken update", other, "truncated")
    bench.board.server.faults.add(
        Fault(FaultKind.TRUNCATE, match="broken-update.pkg", times=None, at_byte=len(other) * 2 // 3)
    )
    row["arguments"]["resumes"] = 0
    return Exploration((BOOT | {"expect": {"version": FIRST, "state": "valid"}}, row, *_good_after(bench)))


def _substituted(bench: Bench) -> Exploration:
    """Behind the signed header comes another image: intact, of the same version and size, and not the signed one."""
    release = bench.release(NEXT)
    place = len(release.image) // 2
    other = parse_release(
        patched_image(release, place, bytes([release.image[place] ^ 1])), name="the other image"
    )
    right, body = bench.package(NEXT), bench.body(other)
    # It may lie there whole once it was refused, and must never run.
    bench.know("another image", bench.other(bench.slot_of(FIRST)), other)
    return Exploration((*_refused(bench, right[:HEADER_BYTES] + body, "body-hash"), *_good_after(bench)))


def _invalid(bench: Bench) -> Exploration:
    """An honest package of an image that is cut off: only ESP-IDF's own look at the image finds it."""
    recipe = bench.board.recipe(bench.release(NEXT), bench.other(bench.slot_of(FIRST)))
    cut = len(recipe.release.image) // 2 // 16 * 16
    return Exploration((*_refused(bench, with_image_cut(recipe, cut), "image-invalid"), *_good_after(bench)))


def _worn(bench: Bench) -> Exploration:
    """A cell of the slot does not take its 1 any more: what lies in flash is not what was received."""
    slot = bench.other(bench.slot_of(FIRST))
    body = bench.body(bench.release(NEXT))
    place = next(at for at in range(len(body) - 64, 0, -1) if body[at] & 1)
    steps = (
        *_refused(bench, bench.package(NEXT), "readback-mismatch"),
        {"name": "reset", "do": "reset", "expect": {"version": FIRST, "state": "valid"}, "boots": (FIRST,)},
    )
    # Worn cells stay worn: no update of this slot will ever succeed, and the board must stay as it is.
    recovery = (
        {"name": "settle", "do": "settle"},
        {"name": "power cycle", "do": "cycle", "expect": {"version": FIRST}},
    )
    return Exploration(steps, recovery, ((slot.offset + place, 1),))


def _anti_rollback(bench: Bench) -> Exploration:
    """The recovery's update has the same secure version: it is burned when that is confirmed, whatever was cut."""
    return replace(_update(bench), fuses={"SECURE_VERSION": 1})


def _release_mode(bench: Bench) -> Exploration:
    """Fuse by fuse to ``esp_flash_encryption_set_release_mode()``: after any cut, asking again completes it."""
    chip = bench.board.chip
    burns, counter = idf_burns(chip.name), efuse_geometry(chip.name).field(chip.fuses.counter)
    closed = [counter.write_disable]
    if burns.write_protect is not None:
        closed.append(efuse_geometry(chip.name).field(burns.write_protect).write_disable)
    fuses = {
        **dict.fromkeys(burns.release_mode, 1),
        chip.fuses.secure_download or chip.fuses.download_off: 1,
        "WR_DIS": sum(1 << bit for bit in closed if bit is not None),
    }
    lock: Row = {
        "name": "set release mode",
        "do": "command",
        "command": "lock",
        "arguments": {"mode": "release"},
        "boots": (FIRST,),
    }
    check: Row = {"name": "release check", "do": "command", "command": "status", "expect": {"fe": "release"}}
    return Exploration(
        (BOOT | {"expect": {"version": FIRST, "fe": "development"}}, lock, check),
        ({**lock, "boots": ()}, check, *RECOVERY),
        fuses=fuses,
    )


def _first_boot(bench: Bench) -> Exploration:
    """Key, fuses, every sector in place, the counter: ESP-IDF's bootloader does it before the first app runs."""
    profile = bench.board.profile
    assert profile is not None
    encryption = {"fe": profile.encryption.value}
    first: Row = {
        "name": first_boot.STEP,
        "do": "boot",
        "expect": {"version": FIRST_VERSION, **encryption},
        "boots": (FIRST_VERSION,),
    }
    update = {**RECOVERY[1], "command": "ota-stock"}
    recovery = tuple(update if row["do"] == "update" else row for row in RECOVERY)
    check: Row = {"name": "encryption is on", "do": "command", "command": "status", "expect": encryption}
    return Exploration((first,), (check, *recovery), first_boot=True)


SEQUENCES: tuple[Sequence, ...] = (
    Sequence(
        "update",
        "raw update, switch, first boot on trial, confirmation",
        _update,
    ),
    Sequence("there-and-back", "two updates, each confirmed: both slots, both records", _there_and_back),
    Sequence("rollback", "an update that is not confirmed goes back at the next reset", _rollback),
    Sequence("on-trial", "another update is refused while one is on trial", _on_trial),
    Sequence("rollback-command", "the firmware gives its own version up", _rollback_command),
    Sequence("fall-back", "an update while otadata names a slot that does not boot", _fall_back),
    Sequence("forged", "headers that nobody signed, and a hash that does not fit, are refused", _forged),
    Sequence(
        "broken-off", "a download that breaks in its body, and a good one in the same boot", _broken_off
    ),
    Sequence(
        "substituted",
        "another intact image behind a signed header is refused, whenever the power goes",
        _substituted,
    ),
    Sequence("invalid", "a package of an image that does not verify is refused", _invalid),
    Sequence("worn", "a flash cell that does not take its 1: the update is refused", _worn),
    Sequence(
        "anti-rollback",
        "confirmation raises the secure version in the eFuses",
        _anti_rollback,
        fragments=("rollback.anti",),
    ),
    Sequence(
        "release-mode",
        "the firmware goes from development to release",
        _release_mode,
        profile=Profile.DEVELOPMENT,
        lock=Lock.NONE,
    ),
    Sequence(
        "first-boot",
        "a board that was flashed as plaintext makes its key and enciphers itself",
        _first_boot,
        profile=Profile.DEVELOPMENT,
        also=(Profile.RELEASE,),
        lock=Lock.NONE,
        bench=first_boot.with_a_key_of_the_device,
        most_chains=10,
        windows=first_boot.WINDOWS,
        prove=first_boot.prove,
    ),
    Sequence(
        "first-boot-host-key",
        "the same with a key that was burned before",
        _first_boot,
        profile=Profile.DEVELOPMENT,
        also=(Profile.RELEASE,),
        lock=Lock.NONE,
        bench=first_boot.with_a_key_of_the_host,
        most_chains=10,
        windows=first_boot.WINDOWS,
        prove=first_boot.prove_with_host_key,
    ),
    Sequence(
        "provision",
        "the host provisions a blank board, is cut off, and is run again",
        None,
        windows=(SACRIFICED,),
    ),
    Sequence(
        "provision-on",
        "the host takes a board from development to release, is cut off, and is run again",
        None,
        profile=Profile.RELEASE,
        begins=Profile.DEVELOPMENT,
        windows=(SACRIFICED,),
    ),
)


def sequences_named(names: Iterable[str]) -> tuple[Sequence, ...]:
    """Those sequences, in their own order; none named: all.

    Raises:
        UsageError: there is no such sequence.
    """
    wanted = list(names)
    known = {sequence.name: sequence for sequence in SEQUENCES}
    for name in wanted:
        if name not in known:
            raise UsageError(f"there is no sequence '{name}'", todo=f"there are: {', '.join(known)}")
    return tuple(sequence for sequence in SEQUENCES if not wanted or sequence.name in wanted)
