"""What a second-stage bootloader was compiled with, as far as its behaviour depends on it.

On a chip these are options of the build that nothing in flash reveals. The twin's bootloader image carries
them behind its ``esp_bootloader_desc_t``; for a real bootloader they come from the sdkconfig of its build.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from harness.errors import FormatError
from harness.formats.app_description import bytes_of, text_of

SDKCONFIG_FILE = "bootloader.sdkconfig"
"""In the state folder of a virtual board: the sdkconfig of the build that a real bootloader came from."""

BLOB_MAGIC = b"TWINBLD1"
FORMAT_VERSION = 1
DESCRIPTION_BYTES = 80
DESCRIPTION_MAGIC = 0x50
FLASH_ENCRYPTION_MODES = ("off", "development", "release")
FLASH_KEYS = ("aes128", "aes256", "derived")
DOWNLOAD_LOCKS = ("none", "secure-download", "download-off")
SIGNING_SCHEMES = ("rsa3072", "ecdsa192", "ecdsa256", "ecdsa384")
_DESCRIPTION = struct.Struct("<B2sBI32s24s16s")
_LENGTH = struct.Struct("<I")
_BLOB_MAX_BYTES = 4096
_ONLY_IMAGE = "CONFIG_SECURE_FLASH_ENCRYPT_ONLY_IMAGE_LEN_IN_APP_PART"


@dataclass(frozen=True, slots=True)
class BootloaderDescription:
    """``esp_bootloader_desc_t``, 80 bytes at image offset 0x20 of a bootloader."""

    idf_ver: str
    """At most 31 bytes."""
    date_time: str
    """Of compilation, at most 23 bytes."""
    version: int = 1
    secure_version: int = 0
    """8 bits."""

    @classmethod
    def from_bytes(cls, data: bytes) -> BootloaderDescription:
        """The description in the first 80 bytes of `data`.

        Raises:
            FormatError: too short, or another magic byte.
        """
        if len(data) < DESCRIPTION_BYTES or data[0] != DESCRIPTION_MAGIC:
            found = f"{data[0]:#04x}" if data else "nothing"
            raise FormatError(
                f"bootloader description: {len(data)} bytes starting with {found}, expected "
                f"{DESCRIPTION_BYTES} starting with {DESCRIPTION_MAGIC:#04x}",
                todo="give a bootloader image of ESP-IDF v5 or later, deciphered",
            )
        _, _, secure_version, version, idf_ver, date_time, _ = _DESCRIPTION.unpack_from(data)
        return cls(
            idf_ver=text_of(idf_ver),
            date_time=text_of(date_time),
            version=version,
            secure_version=secure_version,
        )

    def to_bytes(self) -> bytes:
        """80 bytes, little endian.

        Raises:
            FormatError: a value does not fit; names the field.
        """
        try:
            return _DESCRIPTION.pack(
                DESCRIPTION_MAGIC,
                bytes(2),
                self.secure_version,
                self.version,
                bytes_of(self.idf_ver, 32, "bootloader description: idf_ver"),
                bytes_of(self.date_time, 24, "bootloader description: date_time"),
                bytes(16),
            )
        except struct.error as error:
            raise FormatError(
                "bootloader description: a number does not fit its field",
                todo="version has 32 bits, secure_version 8",
            ) from error


@dataclass(frozen=True, slots=True)
class BootloaderConfig:
    """The options of one bootloader build."""

    table_offset: int = 0x8000
    """Flash address of the partition table (CONFIG_PARTITION_TABLE_OFFSET)."""
    rollback: bool = False
    """CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE."""
    anti_rollback: bool = False
    """CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK."""
    log_level: int = 3
    """0 none, 1 error, 2 warning, 3 info, 4 debug, 5 verbose."""
    flash_encryption: str = "off"
    """off, development or release: what the build enables at first boot."""
    require_encrypted: bool = False
    """CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED: refuse to boot a chip whose encryption is still off."""
    idf_version: str = "v5.5.5"
    compile_time: str = ""
    secure_boot: bool = False
    """CONFIG_SECURE_BOOT_V2_ENABLED: apps must be signed, and secure boot is enabled at first boot where it is off."""
    secure_boot_scheme: str = ""
    """espsecure's word (``rsa3072``, ``ecdsa256``); empty: the first that the chip verifies."""
    allow_unused_digest_slots: bool = False
    """CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS: slots without a key are not revoked."""
    aggressive_revoke: bool = False
    """CONFIG_SECURE_BOOT_ENABLE_AGGRESSIVE_KEY_REVOKE."""
    allow_read_protect: bool = False
    """CONFIG_SECURE_BOOT_V2_ALLOW_EFUSE_RD_DIS: RD_DIS is not frozen."""
    download_lock: str = "none"
    """none, secure-download or download-off: what is burned together with secure boot
    (CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE, CONFIG_SECURE_DISABLE_ROM_DL_MODE)."""

    # What the first start burns and encrypts where encryption is still off (`flash_encryption`, not
    # `require_encrypted`).
    flash_key: str = "aes128"
    """aes128, aes256 or derived: the key that is made when there is none (CONFIG_SECURE_FLASH_ENCRYPTION_AES…).
    ESP32 has one kind only."""
    allow_uart_encrypt: bool = False
    """CONFIG_SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC."""
    allow_uart_decrypt: bool = False
    """CONFIG_SECURE_FLASH_UART_BOOTLOADER_ALLOW_DEC."""
    allow_uart_cache: bool = False
    """CONFIG_SECURE_FLASH_UART_BOOTLOADER_ALLOW_CACHE."""
    allow_jtag: bool = False
    """CONFIG_SECURE_BOOT_ALLOW_JTAG."""
    allow_rom_basic: bool = False
    """CONFIG_SECURE_BOOT_ALLOW_ROM_BASIC."""
    skip_cache_write_protect: bool = False
    """CONFIG_SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE."""
    encrypt_whole_app: bool = False
    """Not CONFIG_SECURE_FLASH_ENCRYPT_ONLY_IMAGE_LEN_IN_APP_PART: an app's whole partition, not its image."""
    pseudo_rounds: int = 0
    """CONFIG_SECURE_FLASH_PSEUDO_ROUND_FUNC_STRENGTH, 0 for none."""
    secure_version_bits: int = 0
    """CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD; 0: the whole field of the chip."""

    def __post_init__(self) -> None:
        """Refuse values that no build can have.

        Raises:
            FormatError: names the field.
        """
        for field in fields(self):
            value, wanted = getattr(self, field.name), _FIELD_TYPES[str(field.type)]
            if type(value) is not wanted:
                raise _field_error(field.name, value, wanted.__name__)
        if not 0x1000 <= self.table_offset <= 0xFFFFF000 or self.table_offset % 0x1000:
            raise _field_error("table_offset", self.table_offset, "a multiple of 0x1000 with 32 bits")
        if not 0 <= self.log_level <= 5:
            raise _field_error("log_level", self.log_level, "0..5")
        if self.flash_encryption not in FLASH_ENCRYPTION_MODES:
            raise _field_error("flash_encryption", self.flash_encryption, "off, development or release")
        if self.flash_key not in FLASH_KEYS:
            raise _field_error("flash_key", self.flash_key, "aes128, aes256 or derived")
        if not 0 <= self.pseudo_rounds <= 3:
            raise _field_error("pseudo_rounds", self.pseudo_rounds, "0..3")
        if not 0 <= self.secure_version_bits <= 32:
            raise _field_error("secure_version_bits", self.secure_version_bits, "0..32")
        if self.secure_boot_scheme and self.secure_boot_scheme not in SIGNING_SCHEMES:
            raise _field_error("secure_boot_scheme", self.secure_boot_scheme, ", ".join(SIGNING_SCHEMES))
        if self.download_lock not in DOWNLOAD_LOCKS:
            raise _field_error("download_lock", self.download_lock, ", ".join(DOWNLOAD_LOCKS))

    def to_blob(self) -> bytes:
        """Magic, 32-bit little-endian length, and that many bytes of JSON with ``"format": 1``.

        Later fields are left out where they have their defaults: a build that uses none of them is still read by
        an older release.
        """
        values: dict[str, object] = {"format": FORMAT_VERSION}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _FIRST_FIELDS or value != field.default:
                values[field.name] = value
        text = json.dumps(values, separators=(",", ":")).encode("ascii")
        return BLOB_MAGIC + _LENGTH.pack(len(text)) + text

    @classmethod
    def from_blob(cls, data: bytes) -> BootloaderConfig:
        """The configuration in a blob at the start of `data`; absent fields have their defaults.

        Raises:
            FormatError: no blob, a truncated one, a newer format, or a field that is unknown or wrong.
        """
        if not data.startswith(BLOB_MAGIC):
            raise FormatError(
                f"bootloader configuration: magic is {data[:8].hex()!r}, expected '{BLOB_MAGIC.hex()}'",
                todo="a real bootloader has none: give the sdkconfig of its build",
            )
        start = len(BLOB_MAGIC) + _LENGTH.size
        size = int.from_bytes(data[len(BLOB_MAGIC) : start], "little")
        if len(data) < start or size > _BLOB_MAX_BYTES or len(data) < start + size:
            raise FormatError(
                f"bootloader configuration: length says {size} bytes, {max(0, len(data) - start)} follow",
                todo="build the bootloader image again",
            )
        return cls._from_json(bytes(data[start : start + size]))

    @classmethod
    def _from_json(cls, text: bytes) -> BootloaderConfig:
        try:
            values: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FormatError(
                "bootloader configuration: not JSON", todo="build the bootloader image again"
            ) from error
        if not isinstance(values, dict) or type(values.get("format")) is not int:
            raise FormatError(
                "bootloader configuration: no JSON object with a number 'format'",
                todo="build the bootloader image again",
            )
        version = values.pop("format")
        if version != FORMAT_VERSION:
            raise FormatError(
                f"bootloader configuration: format is {version}, this release reads {FORMAT_VERSION}",
                todo="use the release that built the bootloader, or a newer one",
            )
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise FormatError(
                f"bootloader configuration: unknown field '{unknown[0]}'",
                todo="use the release that built the bootloader, or a newer one",
            )
        return cls(**values)

    def to_segment_data(self) -> bytes:
        """Data of segment 0 of a twin's bootloader image: description, then the blob."""
        return BootloaderDescription(self.idf_version, self.compile_time).to_bytes() + self.to_blob()

    @classmethod
    def from_segment_data(cls, data: bytes) -> BootloaderConfig | None:
        """The configuration behind the description in segment 0; None for a real bootloader, which has none.

        Raises:
            FormatError: as `from_blob`.
        """
        blob = bytes(data[DESCRIPTION_BYTES:])
        return cls.from_blob(blob) if blob.startswith(BLOB_MAGIC) else None

    @classmethod
    def from_sdkconfig(cls, text: str) -> BootloaderConfig:
        """The configuration that a build with this sdkconfig has.

        Raises:
            FormatError: names the option that is missing or has no usable value.
        """
        lines = re.findall(r"^(CONFIG_[A-Za-z0-9_]+)=(.*)$", text, re.MULTILINE)
        options = {name: value.rstrip() for name, value in lines}
        heading = re.search(r"\(ESP-IDF\) (\d\S*) Project Configuration", text)
        version = heading.group(1) if heading else options.get("CONFIG_IDF_INIT_VERSION", "").strip('"')
        encryption = "off"
        if options.get("CONFIG_SECURE_FLASH_ENC_ENABLED") == "y":
            release = options.get("CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE") == "y"
            encryption = "release" if release else "development"
        return cls(
            table_offset=_option_number(options, "CONFIG_PARTITION_TABLE_OFFSET"),
            rollback=options.get("CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE") == "y",
            anti_rollback=options.get("CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK") == "y",
            log_level=_option_number(options, "CONFIG_BOOTLOADER_LOG_LEVEL"),
            flash_encryption=encryption,
            require_encrypted=options.get("CONFIG_SECURE_FLASH_REQUIRE_ALREADY_ENABLED") == "y",
            idf_version=f"v{version.lstrip('v')}" if version else "",
            secure_boot=options.get("CONFIG_SECURE_BOOT_V2_ENABLED") == "y",
            secure_boot_scheme=_signing_scheme(options),
            **_secure_boot_options(options),
            **_first_start_options(text, options),
        )


_FIRST_FIELDS = frozenset(
    {
        "table_offset",
        "rollback",
        "anti_rollback",
        "log_level",
        "flash_encryption",
        "require_encrypted",
        "idf_version",
        "compile_time",
    }
)
"""What the first release of this format wrote, and every reader knows."""

# Annotations are strings in this module; a bool is not an int here.
_FIELD_TYPES: dict[str, type] = {"int": int, "bool": bool, "str": str}


def _field_error(field: str, found: object, wanted: str) -> FormatError:
    return FormatError(
        f"bootloader configuration: {field} is {found!r}, expected {wanted}", todo="correct the field"
    )


def _first_start_options(text: str, options: Mapping[str, str]) -> dict[str, Any]:
    """The fields that an sdkconfig decides for the first start, and for anti-rollback."""

    def on(name: str) -> bool:
        return options.get(f"CONFIG_{name}") == "y"

    flash_key = "aes128"
    if on("SECURE_FLASH_ENCRYPTION_AES256"):
        flash_key = "aes256"
    elif on("SECURE_FLASH_ENCRYPTION_AES128_DERIVED"):
        flash_key = "derived"
    bits = "CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD"
    return {
        "flash_key": flash_key,
        "allow_uart_encrypt": on("SECURE_FLASH_UART_BOOTLOADER_ALLOW_ENC"),
        "allow_uart_decrypt": on("SECURE_FLASH_UART_BOOTLOADER_ALLOW_DEC"),
        "allow_uart_cache": on("SECURE_FLASH_UART_BOOTLOADER_ALLOW_CACHE"),
        "allow_jtag": on("SECURE_BOOT_ALLOW_JTAG"),
        "allow_rom_basic": on("SECURE_BOOT_ALLOW_ROM_BASIC"),
        "skip_cache_write_protect": on("SECURE_FLASH_SKIP_WRITE_PROTECTION_CACHE"),
        "encrypt_whole_app": f"# {_ONLY_IMAGE} is not set" in text or options.get(_ONLY_IMAGE) == "n",
        "pseudo_rounds": (
            _option_number(options, "CONFIG_SECURE_FLASH_PSEUDO_ROUND_FUNC_STRENGTH")
            if on("SECURE_FLASH_PSEUDO_ROUND_FUNC")
            else 0
        ),
        "secure_version_bits": _option_number(options, bits) if bits in options else 0,
    }


def _secure_boot_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The fields that an sdkconfig decides for the first start with secure boot."""

    def on(name: str) -> bool:
        return options.get(f"CONFIG_{name}") == "y"

    lock = "none"
    if on("SECURE_ENABLE_SECURE_ROM_DL_MODE"):
        lock = "secure-download"
    elif on("SECURE_DISABLE_ROM_DL_MODE"):
        lock = "download-off"
    return {
        "allow_unused_digest_slots": on("SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS"),
        "aggressive_revoke": on("SECURE_BOOT_ENABLE_AGGRESSIVE_KEY_REVOKE"),
        "allow_read_protect": on("SECURE_BOOT_V2_ALLOW_EFUSE_RD_DIS"),
        "download_lock": lock,
    }


def _signing_scheme(options: Mapping[str, str]) -> str:
    """The scheme that a build with secure boot verifies; empty where it says none."""
    if options.get("CONFIG_SECURE_BOOT_V2_ENABLED") != "y":
        return ""
    if options.get("CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME") == "y":
        sizes = (
            bits for bits in (192, 384) if options.get(f"CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_{bits}_BITS") == "y"
        )
        return f"ecdsa{next(sizes, 256)}"
    return "rsa3072" if options.get("CONFIG_SECURE_SIGNED_APPS_RSA_SCHEME") == "y" else ""


def _option_number(options: Mapping[str, str], name: str) -> int:
    text = options.get(name)
    if text is None:
        raise FormatError(
            f"sdkconfig has no {name}", todo="give the whole sdkconfig of the bootloader's build"
        )
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,16}", text):
        raise FormatError(f"sdkconfig: {name} is '{text}', expected a number", todo="correct the option")
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)
