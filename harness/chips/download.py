"""What a host tool can still do with a chip over its UART, state by state.

Facts of mask ROM and esptool: which commands a ROM answers in Secure Download Mode, and what esptool refuses by
itself. "Can" means that bytes arrive in flash or come back, not that they make sense there: Secure Download Mode
takes plaintext on an encrypted board, too, and the board does not boot until ciphertext comes.
"""

from __future__ import annotations

from enum import Enum

from harness.chips.chip import Chip


class DownloadState(str, Enum):
    """UART download as far as the fuses leave it."""

    OPEN = "open"
    """Nothing is closed; flash encryption may be on or off."""
    NO_MANUAL_ENCRYPTION = "no-manual-encryption"
    """The ROM no longer enciphers what it writes: `FuseNames.manual_encrypt_disable` is burned."""
    SECURE = "secure-download"
    """Secure Download Mode."""
    OFF = "download-off"
    """The ROM speaks to nobody, ever again."""


class Operation(str, Enum):
    """What one wants a tool for; the value is a word for people."""

    STUB = "run the flasher stub"
    WRITE = "write flash as given"
    WRITE_ENCRYPTED = "write flash through the chip's cipher (--encrypt)"
    READ = "read flash, as it lies there"
    VERIFY = "hash flash (MD5)"
    ERASE = "erase flash"
    EFUSES = "read and burn eFuses"
    SECURITY_INFO = "ask for security flags, counter and key purposes"


_SECURE = frozenset({Operation.WRITE, Operation.ERASE, Operation.SECURITY_INFO})


def operations(chip: Chip, state: DownloadState, *, secure_boot: bool = False) -> frozenset[Operation]:
    """What esptool and espefuse can do with a board of that chip in that state.

    Args:
        chip: the row.
        state: of UART download. `DownloadState.SECURE` on a chip without it (ESP32) leaves nothing.
        secure_boot: secure boot v2 is on; some ROMs then run no downloaded program.
    """
    if state is DownloadState.OFF:
        return frozenset()
    if state is DownloadState.SECURE:
        # No register access: no eFuses, no stub, no reading, no MD5. Erasing goes with FLASH_BEGIN.
        return _SECURE if chip.fuses.secure_download is not None else frozenset()
    left = set(Operation)
    if secure_boot and not chip.stub_with_secure_boot:
        left.discard(Operation.STUB)
    if state is DownloadState.NO_MANUAL_ENCRYPTION or (
        chip.encrypt_needs_stub and Operation.STUB not in left
    ):
        left.discard(Operation.WRITE_ENCRYPTED)
    if not chip.has_security_info:
        left.discard(Operation.SECURITY_INFO)
    return frozenset(left)
