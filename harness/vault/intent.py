"""What is about to be done to a board, on disk before the first fuse is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.vault.errors import DamagedError


@dataclass(frozen=True, slots=True)
class Intent:
    """A provisioning that has begun. It stays until everything of its plan is done and proven.

    A later run, which cannot compare a read-protected key, learns from it that the key in `block` is the one
    with `key_id`, and that flash may be half written.
    """

    mac: str
    chip_name: str
    block: str
    """eFuse block that the key goes to, espefuse's name."""
    key_id: str
    plan_id: str
    profile: str
    lock: str
    fuses: Mapping[str, int]
    """Snapshot of the board before anything was burned."""
    writes_flash: bool
    """Flash may be half written: it must be written and compared before the board counts as finished."""
    begun: str
    """UTC, ISO 8601."""
    blocks: tuple[str, ...] = ()
    """Every eFuse block that keys or digests go to, `block` among them."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digest slot -> boot key's digest, hexadecimal, as they are being burned."""

    @property
    def all_blocks(self) -> frozenset[str]:
        """The blocks that may be half burned."""
        return frozenset((self.block, *self.blocks))

    @property
    def behind_lock(self) -> bool:
        """It was begun on a board whose eFuses could not be read any more: all it did was writing flash."""
        return not self.fuses

    def to_fields(self) -> dict[str, Any]:
        """For its file."""
        return {
            "mac": self.mac,
            "chip": self.chip_name,
            "block": self.block,
            "key_id": self.key_id,
            "plan_id": self.plan_id,
            "profile": self.profile,
            "lock": self.lock,
            "fuses": dict(self.fuses),
            "writes_flash": self.writes_flash,
            "begun": self.begun,
            "blocks": list(self.blocks),
            "digests": dict(self.digests),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Intent:
        """The inverse of `to_fields`.

        Raises:
            DamagedError: a field is missing.
        """
        try:
            return cls(
                mac=str(fields["mac"]),
                chip_name=str(fields["chip"]),
                block=str(fields["block"]),
                key_id=str(fields["key_id"]),
                plan_id=str(fields["plan_id"]),
                profile=str(fields["profile"]),
                lock=str(fields["lock"]),
                fuses={str(name): int(value) for name, value in fields["fuses"].items()},
                writes_flash=bool(fields["writes_flash"]),
                begun=str(fields["begun"]),
                blocks=tuple(str(block) for block in fields.get("blocks", ())),
                digests={str(slot): str(digest) for slot, digest in fields.get("digests", {}).items()},
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DamagedError(f"an intent file is damaged: {type(error).__name__} {error}") from error
