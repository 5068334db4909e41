"""What ESP-IDF's Kconfig makes of the security options that fragments set: selects, dependencies, defaults.

`idf.py` does this with all of ESP-IDF's Kconfig files. A native build has only the fragments, and its bootloader, its
start-up and the list of what it burns must not differ from those of a build for the chip. Rules of
``components/bootloader/Kconfig.projbuild`` and ``Kconfig.app_rollback`` of v5.5.5.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.chips import Chip, SigningScheme
from harness.chips.idf_burns import SKIP_START_UP_WRITE_PROTECTION, idf_burns

_ENC = "CONFIG_SECURE_FLASH_ENC_ENABLED"
_DEVELOPMENT = "CONFIG_SECURE_FLASH_ENCRYPTION_MODE_DEVELOPMENT"
_RELEASE = "CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE"
_ALLOW = "CONFIG_SECURE_FLASH_UART_BOOTLOADER_ALLOW"
_SKIP_CACHE = "CONFIG_SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE"
_SKIP_SCA = f"CONFIG_{SKIP_START_UP_WRITE_PROTECTION}"
_PSEUDO_ROUNDS = "CONFIG_SECURE_FLASH_PSEUDO_ROUND_FUNC"
_INSECURE_BOOT = "CONFIG_SECURE_BOOT_INSECURE"
_DOWNLOAD = (
    "CONFIG_SECURE_DISABLE_ROM_DL_MODE",
    "CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE",
    "CONFIG_SECURE_INSECURE_ALLOW_DL_MODE",
)
CHOICES = (
    _DOWNLOAD,
    (_DEVELOPMENT, _RELEASE),
    (
        "CONFIG_SECURE_FLASH_ENCRYPTION_AES128",
        "CONFIG_SECURE_FLASH_ENCRYPTION_AES128_DERIVED",
        "CONFIG_SECURE_FLASH_ENCRYPTION_AES256",
    ),
)
"""Options of which one is on: a fragment that turns one on turns the others off."""
_ANTI_ROLLBACK = "CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK"
_VERSION_BITS = "CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD"

_OF_DEVELOPMENT = (
    "CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED",
    f"{_ALLOW}_ENC",
    f"{_ALLOW}_DEC",
    f"{_ALLOW}_CACHE",
)
"""Options that only development has."""
_OF_DEVELOPMENT_OR_INSECURE_BOOT = ("CONFIG_SECURE_BOOT_ALLOW_JTAG", "CONFIG_SECURE_BOOT_ALLOW_ROM_BASIC")


def merged(options: Mapping[str, str], fragment: Mapping[str, str]) -> dict[str, str]:
    """`options` with those of a later `fragment`, which wins."""
    made = dict(options)
    for choice in CHOICES:
        if any(fragment.get(name) == "y" for name in choice):
            made.update({name: "n" for name in choice if name in made})
    return made | dict(fragment)


def settled(options: Mapping[str, str], chip: Chip) -> dict[str, str]:
    """`options` with what follows from them; options that are off have the value ``n``."""
    made = dict(options)

    def on(name: str) -> bool:
        return made.get(name) == "y"

    def put(name: str, value: bool) -> None:
        if value or name in made:
            made[name] = "y" if value else "n"

    put(_RELEASE, on(_ENC) and on(_RELEASE))
    put(_DEVELOPMENT, on(_ENC) and not on(_RELEASE))
    for name in _OF_DEVELOPMENT:
        put(name, on(name) and on(_DEVELOPMENT))
    for name in _OF_DEVELOPMENT_OR_INSECURE_BOOT:
        put(name, on(name) and (on(_DEVELOPMENT) or on(_INSECURE_BOOT)))
    put(f"{_ALLOW}_ENC", on(f"{_ALLOW}_ENC") or on(_DEVELOPMENT))
    selects = (f"{_ALLOW}_ENC", f"{_ALLOW}_CACHE", "CONFIG_SECURE_BOOT_ALLOW_JTAG")
    has_guard = idf_burns(chip.name).write_protect is not None and on(_ENC)
    put(_SKIP_CACHE, has_guard and (on(_SKIP_CACHE) or any(map(on, selects))))
    if on(_RELEASE) and idf_burns(chip.name).release_pseudo_rounds is not None:
        made.setdefault(_PSEUDO_ROUNDS, "y")
    if on(_PSEUDO_ROUNDS):
        made.setdefault(f"{_PSEUDO_ROUNDS}_STRENGTH", "1")
    _settle_start_up_write_protection(made, chip)
    _settle_download_mode(made, chip)
    put(_ANTI_ROLLBACK, on(_ANTI_ROLLBACK) and on("CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE"))
    if on(_ANTI_ROLLBACK):
        most = idf_burns(chip.name).secure_version_bits
        made[_VERSION_BITS] = str(min(int(made.get(_VERSION_BITS, str(most)), 0), most))
    return made


def _settle_start_up_write_protection(made: dict[str, str], chip: Chip) -> None:
    """An app freezes the pseudo rounds' level at its start; where its build is insecure anyway it may be told not to."""
    has_it = (
        idf_burns(chip.name).release_pseudo_rounds is not None
        and SigningScheme.ECDSA_P384 in chip.secure_boot.schemes
    )
    # The menu is invisible otherwise, and then a fragment's word does not count.
    if made.get(_DEVELOPMENT) != "y" and made.get(_INSECURE_BOOT) != "y":
        made.pop(_SKIP_SCA, None)
    default = made.get(_PSEUDO_ROUNDS) == "y" and made.get(_RELEASE) != "y"
    if has_it and (default or _SKIP_SCA in made):
        made.setdefault(_SKIP_SCA, "y")
    else:
        made.pop(_SKIP_SCA, None)


def _settle_download_mode(made: dict[str, str], chip: Chip) -> None:
    """One of three is chosen: by a fragment, else Secure Download Mode unless the build is for development."""
    matters = made.get(_ENC) == "y" or made.get("CONFIG_SECURE_BOOT_V2_ENABLED") == "y"
    _, secure, allowed = _DOWNLOAD
    has_secure_mode = chip.fuses.secure_download is not None
    chosen = [name for name in _DOWNLOAD if made.get(name) == "y"]
    if not has_secure_mode and secure in chosen:
        chosen.remove(secure)
    default = secure if has_secure_mode and made.get(_DEVELOPMENT) != "y" else allowed
    choice = (chosen[-1] if chosen else default) if matters else None
    for name in _DOWNLOAD:
        if name == choice:
            made[name] = "y"
        elif name in made:
            made[name] = "n"
