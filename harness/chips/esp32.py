"""ESP32 ("classic"), revision 3 and later where secure boot v2 or UART_DOWNLOAD_DIS matter."""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32 = Chip(
    name="esp32",
    title="ESP32",
    chip_id=0,
    bootloader_offset=0x1000,
    cipher=Cipher.ESP32_AES,
    drom_base=0x3F400000,
    bootloader_load_address=0x3FFF0030,
    min_chip_rev_full=300,
    encrypt_needs_stub=True,
    fuses=FuseNames(
        key_block="flash_encryption",
        key_purpose=None,
        key_purposes=(),
        key_purpose_field=None,
        key_storage_block="BLOCK1",
        key_config=(("FLASH_CRYPT_CONFIG", 0xF),),
        counter="FLASH_CRYPT_CNT",
        counter_bits=7,
        # CONSOLE_DEBUG_DISABLE is set in the factory on most chips; where it is not, IDF's own
        # esp_flash_encryption_cfg_verify_release_mode() says false, so it belongs to release.
        release=(
            "DISABLE_DL_ENCRYPT",
            "DISABLE_DL_DECRYPT",
            "DISABLE_DL_CACHE",
            "JTAG_DISABLE",
            "CONSOLE_DEBUG_DISABLE",
        ),
        manual_encrypt_disable="DISABLE_DL_ENCRYPT",
        release_write_protect="DIS_CACHE",
        secure_download=None,
        download_off="UART_DOWNLOAD_DIS",
    ),
    secure_boot=SecureBootFuses(
        schemes=(SigningScheme.RSA_3072,),
        signature_blocks=1,
        digest_block="secure_boot_v2",
        digest_purposes=(),
        digest_size_bytes=32,
        enable="ABS_DONE_1",
        burned_with=(("JTAG_DISABLE", 1), ("CONSOLE_DEBUG_DISABLE", 1)),
        revoke=(),
        aggressive_revoke=None,
        min_chip_rev_full=300,
    ),
    cores=2,
    xtensa=True,
)
