"""ESP32-C2, revision 1.0 and later: one key block for flash key and digest, 16 bytes each.

The flash key is the derived one (its SHA-256 is what the cipher works with), so that the upper half of BLOCK_KEY0 is
left for the digest. A Reed-Solomon block takes one burn, so who wants both burns them in one espefuse batch.
"""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme

ESP32C2 = Chip(
    name="esp32c2",
    title="ESP32-C2",
    chip_id=12,
    bootloader_offset=0x0,
    cipher=Cipher.XTS_AES_128_DERIVED,
    drom_base=0x3C000000,
    bootloader_load_address=0x3FCD5C80,
    min_chip_rev_full=100,
    encrypt_needs_stub=False,
    fuses=FuseNames(
        key_block="BLOCK_KEY0",
        key_purpose="XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS",
        key_purposes=(),
        key_purpose_field=None,
        key_storage_block="BLOCK_KEY0",
        key_config=(),
        counter="SPI_BOOT_CRYPT_CNT",
        counter_bits=3,
        release=("DIS_DOWNLOAD_ICACHE", "DIS_DIRECT_BOOT", "DIS_PAD_JTAG", "DIS_DOWNLOAD_MANUAL_ENCRYPT"),
        manual_encrypt_disable="DIS_DOWNLOAD_MANUAL_ENCRYPT",
        # Not in the workflow, but without it ESP-IDF calls the mode development. It freezes SECURE_BOOT_EN, too.
        release_write_protect="SPI_BOOT_CRYPT_CNT",
        secure_download="ENABLE_SECURITY_DOWNLOAD",
        download_off="DIS_DOWNLOAD_MODE",
        key_part="BLOCK_KEY0_LOW_128",
    ),
    secure_boot=SecureBootFuses(
        schemes=(SigningScheme.ECDSA_P256, SigningScheme.ECDSA_P192),
        signature_blocks=1,
        digest_block="BLOCK_KEY0",
        digest_purposes=("SECURE_BOOT_DIGEST",),
        digest_size_bytes=16,
        enable="SECURE_BOOT_EN",
        burned_with=(("DIS_DIRECT_BOOT", 1), ("DIS_PAD_JTAG", 1)),
        revoke=(),
        aggressive_revoke=None,
        min_chip_rev_full=100,
        digest_part="BLOCK_KEY0_HI_128",
    ),
    stub_with_secure_boot=False,
)
