"""What mask ROMs, ESP-IDF's bootloader and its start-up code print: the texts that boot records are made of.

Texts as in ESP-IDF v5.3 to v6.0 and the ROMs of ESP32 (rev 0 to 3) and ESP32-C3; the other chips' ROMs
print the same shapes. All are searched, not matched, because a reset may cut any line short and glue the
next one to it.
"""

from __future__ import annotations

import re

BOOT_START = re.compile(
    r"(?P<banner>ESP-ROM:[!-~]+|ets [A-Z][a-z]{2} [ \d]\d \d{4} \d\d:\d\d:\d\d)"
    r"|(?P<rst>rst:0x(?P<code>[0-9a-fA-F]{1,2}) \((?P<reason>[A-Z0-9_]+)\),"
    r"boot:0x(?P<boot>[0-9a-fA-F]{1,8}) \((?P<mode>[\w/]+(?:\([\w/]*\))?)\))"
)
"""The ROM's first line, and its line with the reset reason (which comes alone when the first was lost)."""

ROM_CHIP = re.compile(r"ESP-ROM:(esp[0-9a-z]+)-")
ROM_CHIP_ALIASES = {"esp8684": "esp32c2", "esp8685": "esp32c3", "esp8686": "esp32h2"}
"""Die names that some ROMs print instead of the chip's name."""

ROM_FLASH_MODE = re.compile(r"^(?:SPI )?mode:(\w+), clock div:\d+")
ROM_INVALID_HEADER = re.compile(r"invalid header: 0x([0-9a-fA-F]{1,8})")
ROM_VERIFIED = re.compile(r"secure boot verification succeeded")
ROM_SECURE_BOOT = re.compile(r"secure boot v2 enabled|Valid secure boot key blocks: \d")
ROM_FAILURE = re.compile(
    r"flash read err, \d+"
    r"|ets_main\.c \d+"
    r"|ets_loader\.c \d+"
    r"|csum err:0x[0-9a-fA-F]+!=0x[0-9a-fA-F]+"
    r"|Checksum failure\. Calculated 0x[0-9a-fA-F]+ stored 0x[0-9a-fA-F]+"
    r"|SHA-256 (?:simple hash )?comparison failed"
    r"|Attempting to boot anyway"
    r"|Invalid chip id\. Expected \d+ read \d+"
    r"|Invalid image block, can't boot"
    r"|No signature block magic byte found[^\r\n]{0,80}"
    r"|Sig block \d[^\r\n]{0,60}"
    r"|secure boot verification failed"
    r"|Secure boot check fail"
    r"|Falling back to built-in command interpreter"
)
ROM_REFUSES = re.compile(r"secure boot verification failed")
"""After it the ROM waits for a watchdog; where that is switched off, as in an emulator, nothing more comes."""

BOOTLOADER_BANNER = re.compile(r"ESP-IDF (\S+) 2nd stage bootloader")
COMPILE_TIME = re.compile(r"^compile time (.+)")
PARTITION_ROW = re.compile(
    r"^[ \d]\d (?P<label>.{16}) (?P<usage>.{16}) (?P<type>[0-9a-f]{2}) (?P<subtype>[0-9a-f]{2})"
    r" (?P<offset>[0-9a-f]{8}) (?P<size>[0-9a-f]{8})"
)
LOADED_APP = re.compile(r"(?:Loaded|Fast booting) app from partition at offset 0x([0-9a-fA-F]{1,8})")
NOT_BOOTABLE = re.compile(r"(?:OTA app partition slot (\d{1,2})|(Factory) app partition) is not bootable")
OTADATA_INVALID = re.compile(r"ota data partition invalid|ota data invalid, no current app")
MARKED_ABORTED = re.compile(r"otadata\[[01]\] is marking as ABORTED")
ROLLBACK = re.compile(r"Rollback to previously worked partition")

ENCRYPTION_ON = re.compile(r"flash encryption is enabled \((\d{1,2}) plaintext flashes left\)")
ENCRYPTION_MODE = re.compile(r"Flash encryption mode is (DEVELOPMENT|RELEASE)")
SECURE_BOOT_ON = re.compile(r"secure boot v2 is already enabled|Secure boot permanently enabled")

APP_FACT = re.compile(r"^(Project name|App version|Secure version|ELF file SHA256|ESP-IDF): +(.*)")
SEGMENT_0 = re.compile(r"^segment 0: paddr=(?:0x)?([0-9a-fA-F]{1,8}) ")
IMAGE_AT = re.compile(r"image at 0x([0-9a-fA-F]{1,8}) ")
SEGMENT_DATA_OFFSET = 0x20
"""Image header (24 bytes) and segment header (8): paddr of segment 0 less this is where the image starts."""

UPDATE_WRITES = re.compile(
    r"Writing to (?:<([^>]{1,16})> )?partition (?:subtype \d+ )?at offset (0x[0-9a-fA-F]{1,8})"
)
OTA_STATE = re.compile(
    r"\bstate\s?[=:]\s?(?:ESP_OTA_IMG_)?(NEW|PENDING_VERIFY|VALID|INVALID|ABORTED|UNDEFINED)\b"
    r"|\b(?:ota_\d{1,2}|factory)\b.{0,24}?\bstate ([0-4])\b"
)
"""`esp_ota_img_states_t`, by name or number, in a line of the application's own."""
SLOT = re.compile(r"\b(ota_\d{1,2}|factory)\b")
OTA_STATES = {
    "NEW": "new",
    "PENDING_VERIFY": "pending",
    "VALID": "valid",
    "INVALID": "invalid",
    "ABORTED": "aborted",
    "UNDEFINED": "undefined",
    "0": "new",
    "1": "pending",
    "2": "valid",
    "3": "invalid",
    "4": "aborted",
}

APP_TAGS = frozenset({"cpu_start", "app_init", "efuse_init", "heap_init", "main_task", "app_start"})
"""Tags that only the application's start-up uses."""
EARLY_TAGS = frozenset(
    {"boot", "boot_comm", "esp_image", "flash_encrypt", "secure_boot_v2", "secure_boot", "efuse"}
)
"""Tags of code that bootloader and application share: they do not tell which of the two speaks."""
APP_MAIN = re.compile(r"Calling app_main\(\)|Starting scheduler on (?:PRO|APP) CPU")
APP_BEGINS = re.compile(r"^(?:Multicore|Unicore) app|^Pro cpu up|^Application information:")

PANIC = re.compile(
    r"Guru Meditation Error: Core\s+(?P<core>\d+) panic'ed \((?P<cause>[^)]{1,80})\)"
    r"|(?P<abort>abort\(\) was called at PC (?P<pc>0x[0-9a-fA-F]{1,8})(?: on core (?P<abort_core>\d+))?)"
    r"|(?P<assertion>assert failed: [^\r\n]{1,160})"
    r"|(?P<check>ESP_ERROR_CHECK failed: [^\r\n]{1,120})"
    r"|(?P<stack>A stack overflow in task [^\r\n]{1,60}? has been detected)"
    r"|(?P<smash>Stack smashing protect failure!)"
    r"|(?P<wdt>Task watchdog got triggered)"
    r"|(?P<bod>Brownout detector was triggered)"
)
PANIC_KINDS = {
    "assertion": "assert",
    "check": "error-check",
    "stack": "stack-overflow",
    "smash": "stack-smash",
    "wdt": "task-watchdog",
    "bod": "brownout",
}
"""Groups of `PANIC` whose text is the whole story, and the kind they stand for."""
PANIC_PC = re.compile(r"^(?:PC|MEPC)\s*: (0x[0-9a-fA-F]{8})")
BACKTRACE = re.compile(r"^Backtrace: ?([^\r\n]{1,480})")
