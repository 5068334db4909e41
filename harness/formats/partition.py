"""One partition, and the names that ESP-IDF gives to types and subtypes (``esp_partition_type_t``)."""

from __future__ import annotations

from dataclasses import dataclass

TYPE_APP = 0x00
TYPE_DATA = 0x01
TYPE_BOOTLOADER = 0x02
TYPE_PARTITION_TABLE = 0x03

SUBTYPE_FACTORY = 0x00
SUBTYPE_OTA_0 = 0x10
SUBTYPE_OTADATA = 0x00
SUBTYPE_NVS = 0x02
SUBTYPE_COREDUMP = 0x03
SUBTYPE_NVS_KEYS = 0x04
SUBTYPE_UNDEFINED = 0x06
SUBTYPE_TEE_OTADATA = 0x90
SUBTYPE_PRIMARY = 0x00

OTA_SLOTS_MAX = 16

TYPE_NAMES: dict[str, int] = {
    "app": TYPE_APP,
    "data": TYPE_DATA,
    "bootloader": TYPE_BOOTLOADER,
    "partition_table": TYPE_PARTITION_TABLE,
}

SUBTYPE_NAMES: dict[int, dict[str, int]] = {
    TYPE_APP: {
        "factory": SUBTYPE_FACTORY,
        **{f"ota_{index}": SUBTYPE_OTA_0 + index for index in range(OTA_SLOTS_MAX)},
        "test": 0x20,
        "tee_0": 0x30,
        "tee_1": 0x31,
    },
    TYPE_DATA: {
        "ota": SUBTYPE_OTADATA,
        "phy": 0x01,
        "nvs": SUBTYPE_NVS,
        "coredump": SUBTYPE_COREDUMP,
        "nvs_keys": SUBTYPE_NVS_KEYS,
        "efuse": 0x05,
        "undefined": SUBTYPE_UNDEFINED,
        "esphttpd": 0x80,
        "fat": 0x81,
        "spiffs": 0x82,
        "littlefs": 0x83,
        "tee_ota": SUBTYPE_TEE_OTADATA,
    },
    TYPE_BOOTLOADER: {"primary": SUBTYPE_PRIMARY, "ota": 0x01, "recovery": 0x02},
    TYPE_PARTITION_TABLE: {"primary": SUBTYPE_PRIMARY, "ota": 0x01},
}

# is_partition_encrypted() in ESP-IDF's esp_partition: these data subtypes whatever their flag says.
_ALWAYS_ENCRYPTED_DATA = (SUBTYPE_OTADATA, SUBTYPE_TEE_OTADATA, SUBTYPE_NVS_KEYS)


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry of the partition table. Offsets and sizes in bytes, from the start of the flash chip."""

    label: str
    type: int
    subtype: int
    offset: int
    size: int
    encrypted: bool = False
    """The flag in the table; see `is_stored_encrypted` for what the chip does."""
    readonly: bool = False
    other_flags: int = 0
    """Flag bits that newer ESP-IDF versions may use, kept so that a table survives being read and written."""

    @property
    def end(self) -> int:
        """First flash address behind the partition."""
        return self.offset + self.size

    @property
    def is_app(self) -> bool:
        return self.type == TYPE_APP

    @property
    def is_ota_slot(self) -> bool:
        return self.ota_index is not None

    @property
    def ota_index(self) -> int | None:
        """k for ota_k, None for everything else."""
        index = self.subtype - SUBTYPE_OTA_0
        return index if self.is_app and 0 <= index < OTA_SLOTS_MAX else None

    @property
    def is_otadata(self) -> bool:
        return self.type == TYPE_DATA and self.subtype == SUBTYPE_OTADATA

    @property
    def is_stored_encrypted(self) -> bool:
        """Whether a chip with flash encryption on keeps this partition enciphered.

        Apps, bootloaders, partition tables, otadata and NVS keys always; everything else by its flag.
        """
        if self.type in (TYPE_APP, TYPE_BOOTLOADER, TYPE_PARTITION_TABLE):
            return True
        return self.encrypted or (self.type == TYPE_DATA and self.subtype in _ALWAYS_ENCRYPTED_DATA)

    @property
    def is_primary(self) -> bool:
        """The bootloader or table that starts the chip, which lies below all other partitions."""
        return self.type in (TYPE_BOOTLOADER, TYPE_PARTITION_TABLE) and self.subtype == SUBTYPE_PRIMARY

    @property
    def offset_align_bytes(self) -> int:
        """Apps begin on an MMU page (64 KiB), everything else on a flash sector."""
        return 0x10000 if self.is_app else 0x1000


def type_name(type_: int) -> str:
    """ESP-IDF's word for a type, or its number."""
    return next((name for name, value in TYPE_NAMES.items() if value == type_), f"{type_:#x}")


def subtype_name(type_: int, subtype: int) -> str:
    """ESP-IDF's word for a subtype, or its number."""
    names = SUBTYPE_NAMES.get(type_, {})
    return next((name for name, value in names.items() if value == subtype), f"{subtype:#x}")
