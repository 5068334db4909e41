"""Second copies of a vault: made, tried, and brought back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, LabError, RefusedError, UsageError
from harness.home import RACK_FOLDER
from harness.vault.boot_keys import boot_key_files, boot_key_name, read_boot_key
from harness.vault.errors import DamagedError, NoVaultError
from harness.vault.key_record import KEY_FORMAT, KeyRecord
from harness.vault.key_ref import KeyState
from harness.vault.place import lies_elsewhere
from harness.vault.record_file import (
    make_private_folder,
    parse_record,
    read_record,
    require_private,
    shredded_after,
    write_bytes,
)
from harness.vault.secret import Secret
from harness.vault.vault import (
    BOOT_KEYS_FOLDER,
    FOLDERS,
    FORMAT,
    HEAD_FILE,
    INTENTS_FOLDER,
    KEYS_FOLDER,
    SIGNING_FILE,
    Vault,
    newest_format,
    writing,
)


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What `back_up` did."""

    place: Path
    keys: int
    """Flash keys in the copy now."""
    other_file_system: bool
    """False: a failing disk would take both."""

    def text(self) -> str:
        """One or two lines for a person."""
        where = (
            "on another file system"
            if self.other_file_system
            else "ON THE SAME FILE SYSTEM as the vault: this is no protection against a failing disk"
        )
        return f"copied to {self.place}: {self.keys} key(s), {where}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found."""

    keys: int
    """Flash keys."""
    problems: tuple[str, ...]
    boot_keys: int = 0
    """Keys that sign for secure boot."""

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(vault: Vault) -> VerifyReport:
    """Opens every record and compares its key with its key id; collects what is wrong instead of stopping."""
    problems: list[str] = []

    def attempt(action: Callable[[], object]) -> None:
        try:
            action()
        except HarnessError as error:
            problems.append(str(error))

    without_key = 0

    def attempt_key(file: Path) -> None:
        nonlocal without_key
        without_key += not vault.check_key_file(file)

    files = vault.key_files()
    for file in files:
        attempt(lambda file=file: attempt_key(file))  # type: ignore[misc]
    if (vault.path / SIGNING_FILE).exists():
        attempt(vault.signing_key)
    signing = boot_key_files(vault)
    for file in signing:
        attempt(lambda file=file: read_boot_key(vault, file))  # type: ignore[misc]
    for file in sorted((vault.path / INTENTS_FOLDER).glob("*.json")):
        attempt(lambda file=file: vault.intent(file.stem.replace("-", ":")))  # type: ignore[misc]
    for folder in (vault.path / name for name in FOLDERS):
        if folder.exists():
            attempt(lambda folder=folder: require_private(folder))  # type: ignore[misc]
    attempt(vault.copies)
    return VerifyReport(len(files) - without_key, tuple(problems), len(signing))


def back_up(vault: Vault, place: Path) -> CopyReport:
    """Copies the vault into the folder `place`, opens the copy, reads every key back, remembers the place.

    `place` is made if need be; it may be an earlier copy of the same vault. Keys that only the copy has stay.

    Raises:
        UsageError: `place` is the vault itself or inside it, or holds something else.
        RefusedError: `place` holds another vault, or another key for one of the devices.
        DamagedError: the vault or the copy does not verify.
    """
    place = place.absolute()
    if place == vault.path or vault.path in place.parents:
        raise UsageError(f"{place} is inside the vault itself", todo="choose a folder on another disk")
    _require_copy_of(vault, place)
    found = verify(vault)
    if not found.ok:
        raise DamagedError("the vault does not verify, so it is not copied: " + "; ".join(found.problems))
    for folder in (place, *(place / name for name in FOLDERS)):
        make_private_folder(folder)
    with writing(vault.path), writing(place):
        for file in vault.key_files():
            _copy_key(file, place / KEYS_FOLDER / file.name, vault)
        for file in boot_key_files(vault):
            target = place / BOOT_KEYS_FOLDER / file.name
            if _needs_restoring(file, target, vault):
                _copy_file(file, target)
        if (vault.path / SIGNING_FILE).exists():
            _copy_file(vault.path / SIGNING_FILE, place / SIGNING_FILE)
        _mirror_intents(vault.path / INTENTS_FOLDER, place / INTENTS_FOLDER)
        # The head comes last: a folder is a copy only when everything else is in it.
        _copy_file(vault.path / HEAD_FILE, place / HEAD_FILE)
    copy = Vault.open(place, vault.secret)
    for ref in vault.key_refs():
        if copy.stored_key(ref.mac) != vault.stored_key(ref.mac):
            raise DamagedError(f"the copy in {place} has another key for {ref.mac}")
    for file in boot_key_files(vault):
        if read_boot_key(copy, place / BOOT_KEYS_FOLDER / file.name) != read_boot_key(vault, file):
            raise DamagedError(f"the copy in {place} has another {boot_key_name(file)}")
    checked = verify(copy)
    if not checked.ok:
        raise DamagedError(f"the copy in {place} does not verify: " + "; ".join(checked.problems))
    vault.note_copy(place)
    return CopyReport(place, checked.keys, lies_elsewhere(vault.path, place))


def refresh(vault: Vault) -> tuple[CopyReport, ...]:
    """Brings all known copies that are plugged in up to date.

    Raises:
        as `back_up`. Copies that are not there are passed over; the place check counts those that are.
    """
    return tuple(back_up(vault, place) for place in vault.copies() if (place / HEAD_FILE).exists())


def restore(path: Path, source: Path, secret: Secret) -> tuple[Path, ...]:
    """Brings back into the vault `path` what is missing or damaged there, from the copy `source`.

    `secret` must open the copy. A record in `path` that opens is never overwritten.

    Returns:
        The files that were brought back; empty when nothing was amiss.

    Raises:
        RefusedError: the vault and the copy are different vaults, or hold different keys for one device.
        DamagedError: the copy itself does not verify.
        NewerFormatError: a file is newer than this code; nothing was changed.
    """
    path, source = path.absolute(), source.absolute()
    if path == source:
        raise UsageError("vault and copy are the same folder")
    copy = Vault.open(source, secret)
    found = verify(copy)
    if not found.ok:
        raise DamagedError("the copy does not verify: " + "; ".join(found.problems))
    if path.exists():
        require_private(path)
    keys = (*copy.key_files(), *boot_key_files(copy))
    pairs = [(file, path / file.relative_to(source)) for file in keys]
    if (source / SIGNING_FILE).exists():
        pairs.append((source / SIGNING_FILE, path / SIGNING_FILE))
    pairs += [
        (file, path / file.relative_to(source)) for file in sorted((source / INTENTS_FOLDER).glob("*.json"))
    ]
    pairs.append((source / HEAD_FILE, path / HEAD_FILE))
    _require_same_vault(path, copy.vault_id)
    wanted = [(good, target) for good, target in pairs if _needs_restoring(good, target, copy)]
    for folder in (path, *(path / name for name in FOLDERS)):
        make_private_folder(folder)
    with writing(path):
        for good, target in wanted:
            _copy_file(good, target)
    return tuple(target for _, target in wanted)


def _require_copy_of(vault: Vault, place: Path) -> None:
    if not place.exists() or not any(place.iterdir()):
        return
    if not (place / HEAD_FILE).exists():
        if {entry.name for entry in place.iterdir()} <= {*FOLDERS, SIGNING_FILE, ".lock"}:
            return  # an earlier copy that was cut off before its head was written
        raise UsageError(f"{place} holds something else", todo="choose a new folder for the copy")
    head = read_record(place / HEAD_FILE, newest=FORMAT, what="the copy")
    if head.get("vault_id") != vault.vault_id:
        raise RefusedError(
            f"{place} holds a copy of another vault", todo="choose another folder for this copy"
        )


def _require_same_vault(path: Path, vault_id: str) -> None:
    head = path / HEAD_FILE
    if not head.exists():
        others = [entry.name for entry in path.iterdir()] if path.exists() else []
        if set(others) - {*FOLDERS, SIGNING_FILE, ".lock", "copies.json", RACK_FOLDER}:
            raise NoVaultError(f"{path} is not a vault and not empty", todo="restore into a new folder")
        return
    try:
        fields = read_record(head, newest=FORMAT, what="the vault")
    except DamagedError:
        return
    if fields.get("vault_id") != vault_id:
        raise RefusedError(f"{path} is another vault than the copy", todo="restore into a new folder")


def _needs_restoring(good: Path, target: Path, vault: Vault) -> bool:
    if not target.exists():
        return True
    try:
        here = read_record(target, newest=newest_format(target), what="the record")
    except DamagedError:
        return True
    there = read_record(good, newest=newest_format(good), what="the copy's record")
    if target.name == HEAD_FILE or "sealed" not in there:
        return False
    if not vault.opens(target):
        return True
    if here.get("key_id") != there.get("key_id"):
        if good.parent.name == KEYS_FOLDER and not _key_record(good).ever_proven:
            return False
        raise RefusedError(
            f"vault and copy hold different keys for {there.get('mac') or boot_key_name(target)}: "
            f"{here.get('key_id')} and {there.get('key_id')}",
            todo="find out which one is in the chip before you overwrite either",
        )
    return False


def _copy_key(source: Path, target: Path, vault: Vault) -> None:
    """Never replaces a readable record of another key: it may be the only one. A forgotten key goes here, too."""
    if not target.exists() or not vault.opens(target):
        _copy_file(source, target)
        return
    mine, theirs = (_key_record(file) for file in (source, target))
    if theirs.ever_proven:
        _needs_restoring(source, target, vault)
    if mine.is_later_than(theirs) or not theirs.ever_proven:
        with nullcontext() if mine.state.has_key else shredded_after(target):
            _copy_file(source, target)
    elif mine.state.has_key and theirs.state is KeyState.FORGOTTEN:
        raise RefusedError(
            f"the key of {mine.mac} was forgotten on {theirs.since}, says the copy {target}; the vault still has it",
            todo=f"forget it here, too (harness keys forget {mine.mac}), or remove that file from the copy",
        )


def _key_record(file: Path) -> KeyRecord:
    return KeyRecord.from_fields(read_record(file, newest=KEY_FORMAT, what="the key record"))


def _copy_file(source: Path, target: Path) -> None:
    try:
        data = source.read_bytes()
    except OSError as error:
        raise LabError(f"{source} cannot be read: {error.strerror}") from error
    parse_record(data, source, newest=newest_format(source), what="the record")
    if not target.exists() or target.read_bytes() != data:
        write_bytes(target, data)


def _mirror_intents(source: Path, target: Path) -> None:
    names = {file.name for file in source.glob("*.json")} if source.exists() else set()
    for name in sorted(names):
        _copy_file(source / name, target / name)
    for file in target.glob("*.json"):
        if file.name not in names:
            file.unlink()
