"""ESP32-P4, revision 3.0 and later: older ones have another eFuse table (four-bit key purposes, no XTS_DPA_PSEUDO_LEVEL).

Two key blocks hold one XTS-AES-256 key. A key purpose has five bits, the last in a field of its own (KEY_PURPOSE_0_H).
The workflow also lists WR_DIS_SECURE_BOOT_SHA384_EN, a bit that the chip does not have
(``esp_secure_boot_cfg_verify_release_mode``).
"""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32P4 = Chip(
    name="esp32p4",
    title="ESP32-P4",
    chip_id=18,
    bootloader_offset=0x2000,
    cipher=Cipher.XTS_AES_256,
    drom_base=0x40000000,
    bootloader_load_address=0x4FFB60D0,
    min_chip_rev_full=300,
    encrypt_needs_stub=False,
    fuses=FuseNames(
        key_block="BLOCK_KEY0",
        key_purpose="XTS_AES_256_KEY",
        key_purposes=("XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2"),
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
            "SPI_DOWNLOAD_MSPI_DIS",
            "XTS_DPA_PSEUDO_LEVEL",
        ),
        manual_encrypt_disable="DIS_DOWNLOAD_MANUAL_ENCRYPT",
        release_write_protect=None,
        secure_download="ENABLE_SECURITY_DOWNLOAD",
        download_off="DIS_DOWNLOAD_MODE",
    ),
    secure_boot=SecureBootFuses(
        # ESP-IDF offers ECDSA here only when forced: the hardware fails for certain input (errata).
        schemes=(
            SigningScheme.RSA_3072,
            SigningScheme.ECDSA_P256,
            SigningScheme.ECDSA_P384,
            SigningScheme.ECDSA_P192,
        ),
        signature_blocks=3,
        digest_block=None,
        digest_purposes=("SECURE_BOOT_DIGEST0", "SECURE_BOOT_DIGEST1", "SECURE_BOOT_DIGEST2"),
        digest_size_bytes=32,
        enable="SECURE_BOOT_EN",
        burned_with=(("SOFT_DIS_JTAG", 7), ("DIS_DIRECT_BOOT", 1), ("DIS_USB_JTAG", 1), ("DIS_PAD_JTAG", 1)),
        revoke=("SECURE_BOOT_KEY_REVOKE0", "SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2"),
        aggressive_revoke="SECURE_BOOT_AGGRESSIVE_REVOKE",
        min_chip_rev_full=300,
        sha384_enable="SECURE_BOOT_SHA384_EN",
    ),
    cores=2,
    stub_with_secure_boot=False,
    usb_serial_jtag=True,
)
