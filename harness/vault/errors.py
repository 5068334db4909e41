"""What can be wrong with a vault: one error each, so that a person is told the one thing to do."""

from __future__ import annotations

from harness.errors import LabError, NotApplicableError, RefusedError, UsageError


class NoVaultError(UsageError):
    """There is no vault at that path."""


class WrongSecretError(UsageError):
    """The passphrase or key file does not open this vault."""


class UnsafePermissionsError(LabError):
    """A file or folder of the vault may be read or written by others."""


class DamagedError(LabError):
    """A file of the vault is cut off, edited, or not what its checksum says."""


class VaultBusyError(LabError):
    """Another process is writing to this vault."""


class NewerFormatError(RefusedError):
    """The file was written by a newer version of the harness; nothing was touched."""


class NoKeyHereError(RefusedError, NotApplicableError):
    """The record is there, the key is not: it was forgotten, or the device made it. Nothing can be enciphered for it."""


class UnprovenKeyError(RefusedError):
    """The key was imported, and nothing shows yet that it is the one in the chip."""
