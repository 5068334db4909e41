"""A twin whose app is qualified as if it were anybody's, and the files that a qualification of it names."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness.chips import CHIPS
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, own_vault, secret_from
from harness.preparation import Consent, Demand, prepare
from harness.provision.device_record import DeviceRecords
from harness.provision.profile import Profile
from harness.qualify.artefacts import load_artefacts
from harness.qualify.file import read_qualify_file
from harness.qualify.perform import perform, require_allowed, seal
from harness.report.run_record import RunRecord
from harness.say import Say

NAME = "unit"
UPDATE = {"by": "uart", "send": "ota id=901 bare=1 reboot=1 url={url}"}
STOCK_UPDATE = {"by": "uart", "send": "ota-stock id=901 reboot=1 url={url}"}
CONFIRM = {"by": "uart", "send": "confirm id=902"}
CONFIRMED = {
    "send": "status id=903",
    "pattern": r'"id":903,"cmd":"status","ok":true,"ms".*"state":"(\w+)"',
}
"""What the companion prints when it is asked, read as anybody's line of text."""


HEAD = {
    "id": "20260101-000000-abcd",
    "command": "harness qualify",
    "began_s": 0.0,
    "user": "qa",
    "host": "desk",
}
"""Of the run's record."""


def nobody(text: str) -> None:
    raise AssertionError(f"nobody is to be asked: {text}")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_unit(folder: Path, home: Home) -> None:
    """A provisioned twin in ``folder/state``, its two apps beside it."""
    entry = TwinEntry(state=str(folder / "state"), chip="esp32c3")
    with Lab(home, Inventory(None, {NAME: entry}), folder / "made", secret_from(None)) as lab:
        board = lab.open(NAME)
        prepare(board, Demand(Profile.RELEASE), Consent(entry), home, say=Say(quiet=True))
        for version in ("1.0.0", "1.1.0"):
            (folder / f"app-{version}.bin").write_bytes(board.release(version).image)
        assert board.mac is not None
        made = board.records.read(board.mac)
        assert made is not None
        # As if its key were with its owner: a unit whose key is only here is not to be shipped.
        board.records.write(replace(made, key_state="handed-over"))


class Bench:
    """One unit in a folder of its own, copied from one that was provisioned before."""

    def __init__(self, folder: Path, made: Path, home: Home) -> None:
        self.folder = folder
        self.home = home
        self.entry = TwinEntry(state=str(folder / "state"), chip="esp32c3")
        shutil.copytree(made / "state", folder / "state")
        for app in made.glob("app-*.bin"):
            shutil.copy(app, folder)

    def fields(self, **more: Any) -> dict[str, Any]:
        """What qualify.yaml says, unless a test says otherwise; a field that is None is left out."""
        apps = {
            role: {"path": f"app-{version}.bin", "sha256": sha256_of(self.folder / f"app-{version}.bin")}
            for role, version in (("running", "1.0.0"), ("update", "1.1.0"))
        }
        told = {
            "version": 1,
            "unit": "ship",
            **apps,
            "image": "ciphertext",
            "trigger": [UPDATE],
            "confirm": [CONFIRM],
            "witness": {"confirmed": CONFIRMED},
            "times": {"settle_s": 0.5, "update_s": 120, "boot_s": 120, "confirm_s": 1, "steady_s": 0.2},
            **more,
        }
        return {name: value for name, value in told.items() if value is not None}

    def enciphered_for(self, label: str, offset: int, name: str) -> dict[str, str]:
        """The app `name` as whoever holds the unit's key would have enciphered it, as an entry of ``served``."""
        vault = own_vault(self.folder / "state")
        key = vault.flash_key(vault.key_records()[0].mac)
        body = encrypt(CHIPS["esp32c3"].cipher, key, offset, pad_to_block((self.folder / name).read_bytes()))
        path = self.folder / f"{name}.{label}"
        path.write_bytes(body)
        return {"path": path.name, "sha256": sha256_of(path)}

    def set_key_state(self, state: str) -> None:
        """The unit's device record says so from now on."""
        records = DeviceRecords(self.folder / "state" / "devices")
        for record in records.all():
            records.write(replace(record, key_state=state))

    def qualify(self, *, observe: bool = False, **more: Any) -> RunRecord:
        """Carries out a qualification, and gives its record; the folder is ``out``."""
        path = self.folder / "qualify.yaml"
        YAML().dump(self.fields(**more), path)
        plan = read_qualify_file(path)
        artefacts = load_artefacts(plan)
        out = self.folder / "out"
        out.mkdir()
        with Lab(self.home, Inventory(None, {NAME: self.entry}), out, secret_from(None)) as lab:
            require_allowed(plan, self.entry, NAME, observe=observe)
            done = perform(lab, NAME, plan, artefacts, observe=observe, ask=nobody, head=HEAD)
        return seal(out, done.run, None)


def standings(run: RunRecord) -> dict[str, str]:
    """The standing of each claim by its key."""
    assert run.qualification is not None
    return {row["key"]: row["standing"] for row in run.qualification["claims"]}


def evidence_for(run: RunRecord, key: str) -> str:
    assert run.qualification is not None
    return next(str(row["evidence"]) for row in run.qualification["claims"] if row["key"] == key)
