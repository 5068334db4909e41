"""The words for a board's security state, and for what is left of its UART download mode."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from harness.chips import Chip
from harness.chips.idf_burns import idf_burns

_SECURE_BOOT = "+sbv2"


class Profile(str, Enum):
    """The security state that a test demands: how flash is enciphered, and whether secure boot v2 is on.

    They are listed so that a board can take them one after the other: within each half encryption rises, and
    secure boot comes last, because it write-protects RD_DIS, without which no flash key can be hidden any more.
    """

    OPEN = "open"
    DEVELOPMENT = "development"
    CIPHERTEXT_ONLY = "ciphertext-only"
    RELEASE = "release"
    OPEN_SBV2 = "open+sbv2"
    DEVELOPMENT_SBV2 = "development+sbv2"
    CIPHERTEXT_ONLY_SBV2 = "ciphertext-only+sbv2"
    RELEASE_SBV2 = "release+sbv2"

    @property
    def encryption(self) -> Profile:
        """The half that speaks of encryption: one of the first four."""
        return Profile(self.value.removesuffix(_SECURE_BOOT))

    @property
    def secure_boot(self) -> bool:
        """Secure boot v2 is on: the ROM starts only a bootloader that is signed with a key it knows."""
        return self.value.endswith(_SECURE_BOOT)

    @property
    def encrypts(self) -> bool:
        """Flash is enciphered."""
        return self.encryption is not Profile.OPEN

    @property
    def distance(self) -> int:
        """0 for ``open``, rising: the order in which one board can take them. No way leads back."""
        return list(Profile).index(self)

    @property
    def built_as(self) -> Profile:
        """The encryption whose firmware runs in this one: to ESP-IDF, a ROM that no longer enciphers is development."""
        mode = self.encryption
        return Profile.DEVELOPMENT if mode is Profile.CIPHERTEXT_ONLY else mode

    def told_as(self, chip: Chip) -> Profile:
        """The encryption in ESP-IDF's words, as log and firmware say it on `chip`.

        Where ESP-IDF looks at no other fuse of the download mode (ESP32-C5, ESP32-H2), a ROM that no longer enciphers is
        release to it; its release check still objects.
        """
        looked_at = idf_burns(chip.name).release_mode
        if self.encryption is Profile.CIPHERTEXT_ONLY and looked_at == (chip.fuses.manual_encrypt_disable,):
            return Profile.RELEASE
        return self.built_as

    def covers(self, other: Profile) -> bool:
        """Whether `other` burns nothing that this one does not: encryption and secure boot are compared apart."""
        return self.encryption.distance >= other.encryption.distance and self.secure_boot >= other.secure_boot

    @staticmethod
    def of(encryption: Profile, *, secure_boot: bool) -> Profile:
        """The profile with that encryption, with or without secure boot."""
        return Profile(encryption.encryption.value + (_SECURE_BOOT if secure_boot else ""))

    @staticmethod
    def together(profiles: Iterable[Profile]) -> Profile | None:
        """The nearest profile that covers all of `profiles`; None if there are none."""
        given = list(profiles)
        if not given:
            return None
        furthest = max((each.encryption for each in given), key=lambda each: each.distance)
        return Profile.of(furthest, secure_boot=any(each.secure_boot for each in given))


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
    if profile.encryption is Profile.RELEASE and chip.fuses.secure_download is not None:
        return Lock.SECURE_DOWNLOAD
    return Lock.NONE
