"""The words for a board's security state, and for what is left of its UART download mode."""

from __future__ import annotations

from enum import Enum

from harness.chips import Chip


class Profile(str, Enum):
    """The security state that a test demands; each one is further than those before it."""

    OPEN = "open"
    DEVELOPMENT = "development"
    CIPHERTEXT_ONLY = "ciphertext-only"
    RELEASE = "release"

    @property
    def distance(self) -> int:
        """0 for ``open``, rising: how far from a chip as it was bought. No way leads back."""
        return list(Profile).index(self)

    @property
    def built_as(self) -> Profile:
        """The profile whose firmware runs in this one: to ESP-IDF, a ROM that no longer enciphers is development."""
        return Profile.DEVELOPMENT if self is Profile.CIPHERTEXT_ONLY else self


class Lock(str, Enum):
    """What is left of UART download, apart from the profile. Each one is further than those before it."""

    NONE = "none"
    SECURE_DOWNLOAD = "secure-download"
    DOWNLOAD_OFF = "download-off"

    @property
    def distance(self) -> int:
        """0 for ``none``, rising."""
        return list(Lock).index(self)


def default_lock(chip: Chip, profile: Profile) -> Lock:
    """What a plan locks when nothing is said: Secure Download Mode for release where the chip has it.

    A lock that is final for the UART (``download-off``) is never a default.
    """
    if profile is Profile.RELEASE and chip.fuses.secure_download is not None:
        return Lock.SECURE_DOWNLOAD
    return Lock.NONE
