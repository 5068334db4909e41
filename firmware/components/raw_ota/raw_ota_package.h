/**
 * The 256-byte package header: parsing, signature, and whether the package is meant for this device.
 * Nothing here touches flash.
 */
#pragma once

#include "raw_ota_internal.h"

/** Uncompressed point of an ECDSA P-256 key: 04, X, Y. */
#define RAW_OTA_PUBLIC_KEY_SIZE 65
/** ECDSA P-256 signature: r, s, big endian. */
#define RAW_OTA_SIGNATURE_SIZE 64
/** Header bytes that the signature covers: all before it. */
#define RAW_OTA_SIGNED_SIZE (RAW_OTA_HEADER_SIZE - RAW_OTA_SIGNATURE_SIZE)

/** Keys that this application trusts; generated at build time by embed_public_keys.py. */
extern const uint8_t raw_ota_public_keys[][RAW_OTA_PUBLIC_KEY_SIZE];
extern const size_t raw_ota_public_key_count;

/** Values of raw_ota_package_t::cipher. */
typedef enum {
    RAW_OTA_CIPHER_NONE = 0, /**< plaintext, for devices without flash encryption */
    RAW_OTA_CIPHER_ESP32_AES = 1,
    RAW_OTA_CIPHER_XTS_AES_128 = 2,
    RAW_OTA_CIPHER_XTS_AES_256 = 3,
    RAW_OTA_CIPHER_XTS_AES_128_DERIVED = 4, /**< ESP32-C2: the SHA-256 of 16 bytes in eFuse */
} raw_ota_cipher_t;

/** Fields of a header, in host byte order. Texts are NUL terminated. */
typedef struct {
    uint16_t chip_id;
    uint8_t cipher;
    uint8_t mac[6];
    uint8_t key_id[8]; /**< names the flash key; the device cannot check it, its key is not readable */
    uint32_t slot_offset;
    uint32_t slot_size;
    uint32_t image_size; /**< plaintext, without padding */
    uint32_t body_size;  /**< ciphertext: image padded to the cipher block */
    uint8_t body_sha256[32];
    uint8_t image_sha256[32];
    char version[33];
    uint32_t secure_version;
    char project_name[33];
} raw_ota_package_t;

/** Parses `raw` and checks its form: magic, header version and size, reserved fields. */
raw_ota_err_t raw_ota_package_parse(const uint8_t raw[RAW_OTA_HEADER_SIZE], raw_ota_package_t *package,
                                    raw_ota_result_t *result);

/** Checks the signature of `raw` against the compiled-in keys. */
raw_ota_err_t raw_ota_package_check_signature(const uint8_t raw[RAW_OTA_HEADER_SIZE],
                                              raw_ota_result_t *result);

/**
 * Checks that the package is for this chip, this device and `slot`, and that its sizes fit.
 * @param transfer_size bytes of the whole transfer, -1 when unknown.
 */
raw_ota_err_t raw_ota_package_check(const raw_ota_package_t *package, const esp_partition_t *slot,
                                    int64_t transfer_size, raw_ota_result_t *result);

/** Refuses a secure version below the running application's, or below the eFuse's with anti-rollback. */
raw_ota_err_t raw_ota_check_secure_version(uint32_t secure_version, raw_ota_result_t *result);
