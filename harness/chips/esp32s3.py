"""ESP32-S3. Two key blocks hold one XTS-AES-256 key.

espefuse calls DIS_PAD_JTAG what ESP-IDF calls HARD_DIS_JTAG. With secure boot on, esptool starts its stub by another way
(a pointer in the ROM's data), because the ROM does not run what was downloaded.
"""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32S3 = Chip(
    name="esp32s3",
    title="ESP32-S3",
    chip_id=9,
    bootloader_offset=0x0,
    cipher=Cipher.XTS_AES_256,
    drom_base=0x3C000000,
    bootloader_load_address=0x3FCE2810,
    min_chip_rev_full=0,
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
            "DIS_DOWNLOAD_ICACHE",
            "DIS_DOWNLOAD_DCACHE",
            "DIS_PAD_JTAG",
            "DIS_DIRECT_BOOT",
            "DIS_USB_JTAG",
            "DIS_DOWNLOAD_MANUAL_ENCRYPT",
        ),
        manual_encrypt_disable="DIS_DOWNLOAD_MANUAL_ENCRYPT",
        # Its WR_DIS bit 2 also freezes the fuses of `release`: it must come after them.
        release_write_protect="DIS_ICACHE",
        secure_download="ENABLE_SECURITY_DOWNLOAD",
        download_off="DIS_DOWNLOAD_MODE",
    ),
    secure_boot=SecureBootFuses(
        schemes=(SigningScheme.RSA_3072,),
        signature_blocks=3,
        digest_block=None,
        digest_purposes=("SECURE_BOOT_DIGEST0", "SECURE_BOOT_DIGEST1", "SECURE_BOOT_DIGEST2"),
        digest_size_bytes=32,
        enable="SECURE_BOOT_EN",
        burned_with=(("DIS_PAD_JTAG", 1), ("SOFT_DIS_JTAG", 7), ("DIS_DIRECT_BOOT", 1), ("DIS_USB_JTAG", 1)),
        revoke=("SECURE_BOOT_KEY_REVOKE0", "SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2"),
        aggressive_revoke="SECURE_BOOT_AGGRESSIVE_REVOKE",
        min_chip_rev_full=0,
    ),
    cores=2,
    xtensa=True,
    usb_serial_jtag=True,
    key_blocks_without_flash_keys=frozenset({"BLOCK_KEY5"}),
)
