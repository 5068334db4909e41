"""ESP32-H2, revision 1.2 and later: older ones have no XTS_DPA_PSEUDO_LEVEL and no ECDSA_CURVE_MODE."""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32H2 = Chip(
    name="esp32h2",
    title="ESP32-H2",
    chip_id=16,
    bootloader_offset=0x0,
    cipher=Cipher.XTS_AES_128,
    drom_base=0x42000000,
    bootloader_load_address=0x408460E0,
    min_chip_rev_full=102,
    encrypt_needs_stub=False,
    fuses=FuseNames(
        key_block="BLOCK_KEY0",
        key_purpose="XTS_AES_128_KEY",
        key_purposes=("XTS_AES_128_KEY",),
        key_purpose_field="KEY_PURPOSE_0",
        key_storage_block="BLOCK_KEY0",
        key_config=(),
        counter="SPI_BOOT_CRYPT_CNT",
        counter_bits=3,
        release=(
            "DIS_DIRECT_BOOT",
            "DIS_USB_JTAG",
            "DIS_PAD_JTAG",
            "DIS_DOWNLOAD_MANUAL_ENCRYPT",
            "XTS_DPA_PSEUDO_LEVEL",
        ),
        manual_encrypt_disable="DIS_DOWNLOAD_MANUAL_ENCRYPT",
        # Its WR_DIS bit 2 also freezes the fuses of `release`: it must come after them.
        release_write_protect="DIS_ICACHE",
        secure_download="ENABLE_SECURITY_DOWNLOAD",
        download_off="DIS_DOWNLOAD_MODE",
    ),
    secure_boot=SecureBootFuses(
        # ESP-IDF offers ECDSA here only when forced: the hardware fails for certain input (errata).
        schemes=(SigningScheme.RSA_3072, SigningScheme.ECDSA_P256, SigningScheme.ECDSA_P192),
        signature_blocks=3,
        digest_block=None,
        digest_purposes=("SECURE_BOOT_DIGEST0", "SECURE_BOOT_DIGEST1", "SECURE_BOOT_DIGEST2"),
        digest_size_bytes=32,
        enable="SECURE_BOOT_EN",
        burned_with=(("SOFT_DIS_JTAG", 7), ("DIS_DIRECT_BOOT", 1), ("DIS_USB_JTAG", 1), ("DIS_PAD_JTAG", 1)),
        revoke=("SECURE_BOOT_KEY_REVOKE0", "SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2"),
        aggressive_revoke="SECURE_BOOT_AGGRESSIVE_REVOKE",
        min_chip_rev_full=102,
        also_write_protect=("ECDSA_CURVE_MODE",),
        curve_mode="ECDSA_CURVE_MODE",
    ),
    stub_with_secure_boot=False,
    usb_serial_jtag=True,
    key_blocks_without_flash_keys=frozenset({"BLOCK_KEY5"}),
)
