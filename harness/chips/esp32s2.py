"""ESP32-S2. Two key blocks hold one XTS-AES-256 key; it has no USB-Serial-JTAG."""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32S2 = Chip(
    name="esp32s2",
    title="ESP32-S2",
    chip_id=2,
    bootloader_offset=0x1000,
    cipher=Cipher.XTS_AES_256,
    drom_base=0x3F000000,
    bootloader_load_address=0x3FFE5110,
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
            "DIS_BOOT_REMAP",
            "DIS_DOWNLOAD_ICACHE",
            "DIS_DOWNLOAD_DCACHE",
            "HARD_DIS_JTAG",
            "DIS_LEGACY_SPI_BOOT",
            "DIS_DOWNLOAD_MANUAL_ENCRYPT",
        ),
        manual_encrypt_disable="DIS_DOWNLOAD_MANUAL_ENCRYPT",
        # Its WR_DIS bit 2 also freezes the fuses of `release`, and SOFT_DIS_JTAG of secure boot: it
        # must come after both.
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
        burned_with=(
            ("DIS_BOOT_REMAP", 1),
            ("HARD_DIS_JTAG", 1),
            ("SOFT_DIS_JTAG", 1),
            ("DIS_LEGACY_SPI_BOOT", 1),
        ),
        revoke=("SECURE_BOOT_KEY_REVOKE0", "SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2"),
        aggressive_revoke="SECURE_BOOT_AGGRESSIVE_REVOKE",
        min_chip_rev_full=0,
    ),
    xtensa=True,
)
