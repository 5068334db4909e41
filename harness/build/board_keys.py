"""The secure boot keys of one board, as its entry in boards.yaml names them: by digest slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.build.boot_key import BootKey, from_pem, from_vault, generate
from harness.build.token import from_token
from harness.chips import CHIPS, Chip, SigningScheme
from harness.errors import HarnessError, UsageError
from harness.formats.signature_block import UnknownSchemeError
from harness.inventory.entry import PKCS11, Entry
from harness.provision.boot_keys import BootDigest
from harness.vault.boot_keys import make_boot_key
from harness.vault.vault import Vault

VAULT = "vault"


@dataclass(frozen=True, slots=True)
class KeySources:
    """Where a board's keys come from; nothing is opened yet."""

    scheme: SigningScheme
    sources: tuple[str, ...] = (VAULT,)
    """By digest slot; see `harness.inventory.entry.SecureBoot`."""
    folder: Path = Path()
    """What relative names are relative to."""
    chosen: bool = False
    """A person named them: then nobody else's signature will do."""
    schemes: tuple[SigningScheme, ...] = ()
    """All that the board's chip verifies, for messages."""

    @classmethod
    def of_entry(cls, entry: Entry, folder: Path) -> KeySources:
        """Those of a board's entry; `folder` is that of its boards.yaml."""
        chosen = "keys" in entry.secure_boot.model_fields_set
        schemes = CHIPS[entry.chip].secure_boot.schemes
        return cls(entry.signing_scheme, tuple(entry.secure_boot.keys), folder, chosen, schemes)

    def open(self, vault: Vault) -> tuple[BootKey, ...]:
        """The keys, by digest slot; one of the vault's is made, stored and read back if there is none yet.

        Raises:
            UsageError: a file cannot be read, two slots have one key, or a key is of another scheme.
            LabError, DamagedError: the vault or a token fails.
        """
        keys = tuple(self._open(source, slot, vault) for slot, source in enumerate(self.sources))
        for slot, key in enumerate(keys):
            if key.scheme is not self.scheme:
                raise UsageError(
                    f"secure boot key {key.name} is for {key.scheme.value}, the board's scheme is {self.scheme.value}",
                    todo=f"set secure_boot: scheme: {key.scheme.value} in the board's entry, or name another key"
                    if key.scheme in self.schemes
                    else f"name a key for {_one_of(self.schemes or (self.scheme,))}",
                )
            if any(key.digest == other.digest for other in keys[:slot]):
                raise UsageError(
                    f"secure boot key {key.name} is the same as that of an earlier slot",
                    todo="name each key once in secure_boot: keys:",
                )
        return keys

    def _open(self, source: str, slot: int, vault: Vault) -> BootKey:
        try:
            if source == VAULT:
                return from_vault(make_boot_key(vault, self.scheme, slot, generate))
            if source.startswith(PKCS11):
                return from_token(self._path(source.removeprefix(PKCS11)))
            return from_pem(self._path(source))
        except HarnessError as error:
            if isinstance(error, UnknownSchemeError):
                error.todo = f"name a key for {_one_of(self.schemes or (self.scheme,))}"
            error.message = f"secure boot key of digest slot {slot}: {error.message}"
            raise

    def _path(self, name: str) -> Path:
        return (self.folder / Path(name).expanduser()).absolute()


def _one_of(schemes: Sequence[SigningScheme]) -> str:
    return " or ".join(scheme.value for scheme in schemes)


def digests_of(keys: Sequence[BootKey]) -> tuple[BootDigest, ...]:
    """What eFuses are to hold of `keys`, which are listed by digest slot."""
    return tuple(BootDigest(slot, key.digest, key.name, key.scheme) for slot, key in enumerate(keys))


def keys_for(chip: Chip, keys: Sequence[BootKey], trusted: Sequence[BootDigest]) -> tuple[BootKey, ...]:
    """Those of `keys` that sign and that the board knows: as many as an image of `chip` carries signatures.

    Raises:
        UsageError: there is none.
    """
    known = {each.digest for each in trusted}
    found = tuple(key for key in keys if key.signs and key.digest in known)
    if not found:
        signing = ", ".join(key.name for key in keys if key.signs)
        if signing:
            raise UsageError(
                f"the board will not know the secure boot key(s) at hand: {signing}",
                todo="name the keys that it knows in secure_boot: keys:, or give signed builds",
            )
        names = ", ".join(key.name for key in keys)
        only = (
            f"key {names} is only a public half" if len(keys) == 1 else f"keys {names} are only public halves"
        )
        raise UsageError(
            f"nothing can be signed here: secure boot {only}",
            todo="name the private PEM file, the vault or a token in secure_boot: keys:, or give signed builds",
        )
    return found[: chip.secure_boot.signature_blocks]
