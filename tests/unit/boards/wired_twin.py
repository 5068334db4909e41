"""A twin that the harness takes for a physical board: behind an RFC 2217 server, with an entry, a vault, consent."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.home import Home
from harness.inventory.entry import Rfc2217Entry, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Lock, Profile
from harness.say import Say
from harness.vault import KeyFile, Vault
from harness.vault.secret import Secret


class WiredTwin:
    """One twin process on `state`, reached by `url`; its application programs are those of `home`."""

    def __init__(self, state: Path, home: Home, *, chip: str = "esp32c3") -> None:
        self.chip = chip
        self.state = state
        self.home = home
        state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "harness.twin", "--chip", chip, "--state", str(state)]
        command += ["--build-store", str(home.build_store), "--rfc2217", "--boot", "run", "--tie-to-stdin"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        hello = json.loads(self._process.stdout.readline())
        self.mac = str(hello["mac"]).lower()
        self.url = str(hello["rfc2217"])
        self.uart = str(hello["uart"])
        self._control_at = str(hello["control"])

    def control(self, op: str, **arguments: Any) -> dict[str, Any]:
        host, port = self._control_at.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            stream = connection.makefile("rwb")
            stream.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            stream.flush()
            reply: dict[str, Any] = json.loads(stream.readline())
            stream.close()
        assert reply["ok"], reply
        return reply

    @property
    def flash(self) -> bytes:
        """What lies in its flash now."""
        return (self.state / "flash.bin").read_bytes()

    def kill(self) -> None:
        """As if the server, and the board with it, were unplugged."""
        self._process.kill()
        self._process.wait(60)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def entry_of(twin: WiredTwin, **fields: Any) -> Rfc2217Entry:
    return Rfc2217Entry.model_validate({"chip": twin.chip, "link": "rfc2217", "url": twin.url, **fields})


class WiredLab:
    """Labs in which `twin` is the board called ``desk``."""

    def __init__(self, folder: Path, home: Home) -> None:
        self.folder = folder
        self.home = home
        self.key_file = folder / "vault.key"
        self._opened: list[Lab] = []

    def vault(self) -> None:
        """Makes the vault of physical boards."""
        Vault.open(self.home.vault, KeyFile.create(self.key_file), create=True)

    def adopt(self, state: Path) -> None:
        """Takes over the keys and the device record that the virtual board on `state` had."""
        shutil.copytree(state / "vault", self.home.vault)
        shutil.copy(state / "vault.key", self.key_file)
        shutil.copytree(state / "devices", self.home.devices, dirs_exist_ok=True)

    def secret(self, _place: Path) -> Secret:
        return KeyFile(self.key_file)

    def lab(self, entry: Rfc2217Entry) -> Lab:
        self._opened.append(
            Lab(self.home, Inventory(None, {"desk": entry}), self.folder / "out", self.secret)
        )
        return self._opened[-1]

    def open(self, entry: Rfc2217Entry) -> Board:
        return self.lab(entry).open("desk")

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()


Start = Callable[..., WiredTwin]


def provisioned(
    start: Start,
    wired: WiredLab,
    lock: Lock,
    *,
    profile: Profile = Profile.RELEASE,
    chip: str = "esp32c3",
    then: Callable[[Board], None] | None = None,
) -> WiredTwin:
    """A provisioned board, made as a virtual one (and changed by `then`); now it is taken for a physical one."""
    state = wired.folder / "state"
    entry = TwinEntry(chip=chip, state=str(state))
    with Lab(wired.home, Inventory(None, {"twin": entry}), wired.folder / "made", wired.secret) as lab:
        board = lab.open("twin")
        prepare(board, Demand(profile, lock), Consent(entry), wired.home, say=Say(quiet=True))
        if then is not None:
            then(board)
    wired.adopt(state)
    return start(chip=chip)
