"""The durable store of per-device keys, written before any key is burned."""

from harness.late_names import late_names

__getattr__ = late_names(
    __name__,
    {
        "copies": ("CopyReport", "VerifyReport", "back_up", "refresh", "restore", "verify"),
        "errors": (
            "DamagedError",
            "NewerFormatError",
            "NoKeyHereError",
            "NoVaultError",
            "UnprovenKeyError",
            "UnsafePermissionsError",
            "VaultBusyError",
            "WrongSecretError",
        ),
        "intent": ("Intent",),
        "key_record": ("Challenge", "Change", "KeyRecord"),
        "key_ref": ("KeyRef", "KeyState", "key_id"),
        "place": ("PlaceFacts", "place_problems", "probe_place", "require_safe_place"),
        "secret": ("KeyFile", "Passphrase", "Secret"),
        "vault": ("Vault",),
    },
)
