"""The bench: opens boards, with their locks, links, vaults and folders, and closes them again."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness.board import Board
from harness.chips import chip_named
from harness.errors import UsageError
from harness.home import Home
from harness.inventory.entry import AnyEntry, SerialEntry, TwinEntry
from harness.inventory.inventory import Inventory
from harness.links.link import Link
from harness.links.serial_port import SerialLink
from harness.links.twin import TwinLink
from harness.locks import BoardLock
from harness.ota.server import OtaServer
from harness.provision.device_record import DeviceRecords
from harness.say import Say
from harness.vault.secret import KeyFile, Secret
from harness.vault.vault import Vault


@dataclass(slots=True)
class Lab:
    """What a run needs to open boards; boards are closed with it, last opened first.

    ``secret`` opens the vault of physical boards; it is asked for only when that vault is needed.
    """

    home: Home
    inventory: Inventory
    out: Path
    secret: Callable[[Path], Secret]
    purpose: str = "harness"
    say: Say = field(default_factory=lambda: Say(quiet=True))
    _stack: ExitStack = field(default_factory=ExitStack)

    def open(self, name: str) -> Board:
        """Opens the board `name` of the inventory; its state persists.

        Raises:
            UsageError: there is no such board. LabError: it is in use, or its link cannot be opened.
        """
        entry = self.inventory.named(name)
        if isinstance(entry, TwinEntry):
            return self._open_twin(name, entry, state_folder(self.home, self.inventory.path, name, entry))
        return self._open_serial(name, entry)

    def throwaway(self, chip: str, name: str | None = None, *, entry: TwinEntry | None = None) -> Board:
        """A twin with blank flash and eFuses that is gone when the lab closes."""
        folder = Path(tempfile.mkdtemp(prefix="harness-twin-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return self._open_twin(name or f"twin-{chip}", entry or TwinEntry(chip=chip), folder)

    def close(self) -> None:
        """Closes every board."""
        self._stack.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_twin(self, name: str, entry: TwinEntry, state: Path) -> Board:
        chip = chip_named(entry.chip)
        self._stack.enter_context(
            BoardLock(self.home.locks, str(state.absolute()), board=name, purpose=self.purpose)
        )
        link = TwinLink(chip.name, state, self.home.build_store, mac=entry.mac, board=name)
        # A virtual board has a vault of its own beside its state, so that no two share a record and no passphrase
        # is needed to try things out.
        return self._opened(name, entry, link, lambda: own_vault(state), state / "devices")

    def _open_serial(self, name: str, entry: SerialEntry) -> Board:
        self._stack.enter_context(
            BoardLock(self.home.locks, _device_key(entry.port), board=name, purpose=self.purpose)
        )
        link = SerialLink(entry.port, baud=entry.baud, console_baud=entry.console_baud, board=name)
        place = self.home.vault
        return self._opened(
            name, entry, link, lambda: Vault.open(place, self.secret(place)), self.home.devices
        )

    def _opened(
        self, name: str, entry: AnyEntry, link: Link, vault: Callable[[], Vault], records: Path
    ) -> Board:
        self._stack.callback(link.close)
        folder = self.out / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder {folder} cannot be made: {error.strerror}", todo="choose another with --out"
            ) from error
        journal = folder / "server-journal.jsonl"
        network = entry.network
        board = Board(
            name,
            chip_named(entry.chip),
            link,
            folder=folder,
            vault=vault,
            records=DeviceRecords(records),
            serve=lambda: OtaServer(journal_path=journal).start(network.bind, network.port),
            address=network.address,
        )
        self._stack.callback(board.close)
        return board


def state_folder(home: Home, inventory: Path | None, name: str, entry: TwinEntry) -> Path:
    """Where the state of the twin `name` lies; a relative `state:` is relative to its boards.yaml."""
    if entry.state is None:
        return home.twin(name)
    base = inventory.parent if inventory else Path.cwd()
    return (base / Path(entry.state).expanduser()).absolute()


def open_vault(
    home: Home, inventory: Path | None, name: str, entry: AnyEntry, secret: Callable[[Path], Secret]
) -> Vault:
    """The vault that holds the keys of the board `name`: a twin's own, or that of the physical boards."""
    if isinstance(entry, TwinEntry):
        return own_vault(state_folder(home, inventory, name, entry))
    return Vault.open(home.vault, secret(home.vault))


def own_vault(state: Path) -> Vault:
    """The vault of a virtual board: in its state folder, opened by a key file in it."""
    key_file = state / "vault.key"
    secret = KeyFile(key_file) if key_file.exists() else KeyFile.create(key_file)
    return Vault.open(state / "vault", secret, create=True)


def secret_from(key_file: str | None) -> Callable[[Path], Secret]:
    """How a physical vault is opened: by a key file named on the command line or in HARNESS_VAULT_KEY_FILE.

    Only the file's name may be in the environment, never a passphrase: environments are readable to others.
    """

    def secret(place: Path) -> Secret:
        named = key_file or os.environ.get("HARNESS_VAULT_KEY_FILE")
        if not named:
            raise UsageError(
                f"nothing opens the vault {place}",
                todo="name its key file with --vault-key-file FILE or HARNESS_VAULT_KEY_FILE, "
                "or give the passphrase on a descriptor with --vault-passphrase-fd N",
            )
        return KeyFile(Path(named).expanduser())

    return secret


def _device_key(port: str) -> str:
    """What tells this device from others: the port's real path, whatever link names it."""
    return port if re.match(r"[a-z0-9+]+://", port) else str(Path(port).resolve())
