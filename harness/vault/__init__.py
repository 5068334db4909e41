"""The durable store of per-device keys, written before any key is burned."""

from harness.vault.copies import CopyReport, VerifyReport, back_up, refresh, restore, verify
from harness.vault.errors import (
    DamagedError,
    NewerFormatError,
    NoKeyHereError,
    NoVaultError,
    UnprovenKeyError,
    UnsafePermissionsError,
    VaultBusyError,
    WrongSecretError,
)
from harness.vault.intent import Intent
from harness.vault.key_record import Challenge, Change, KeyRecord
from harness.vault.key_ref import KEY_STATE_TEST_ONLY, KeyRef, KeyState, key_id
from harness.vault.place import PlaceFacts, place_problems, probe_place, require_safe_place
from harness.vault.secret import KeyFile, Passphrase, Secret
from harness.vault.vault import Vault

__all__ = [
    "KEY_STATE_TEST_ONLY",
    "Challenge",
    "Change",
    "CopyReport",
    "DamagedError",
    "Intent",
    "KeyFile",
    "KeyRecord",
    "KeyRef",
    "KeyState",
    "NewerFormatError",
    "NoKeyHereError",
    "NoVaultError",
    "Passphrase",
    "PlaceFacts",
    "Secret",
    "UnprovenKeyError",
    "UnsafePermissionsError",
    "Vault",
    "VaultBusyError",
    "VerifyReport",
    "WrongSecretError",
    "back_up",
    "key_id",
    "place_problems",
    "probe_place",
    "refresh",
    "require_safe_place",
    "restore",
    "verify",
]
