#include "raw_ota_package.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_efuse.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "psa/crypto.h"
#include "sdkconfig.h"

static const char *TAG = "raw_ota";

static const uint8_t MAGIC[8] = {'R', 'A', 'W', 'O', 'T', 'A', '1', 0};
#define HEADER_VERSION 1

/* Offsets of the fields in the header (README.md, "The package"). */
enum {
    AT_HEADER_VERSION = 8,
    AT_HEADER_SIZE = 10,
    AT_CHIP_ID = 12,
    AT_CIPHER = 14,
    AT_FLAGS = 15,
    AT_MAC = 16,
    AT_RESERVED_1 = 22,
    AT_KEY_ID = 24,
    AT_SLOT_OFFSET = 32,
    AT_SLOT_SIZE = 36,
    AT_IMAGE_SIZE = 40,
    AT_BODY_SIZE = 44,
    AT_BODY_SHA256 = 48,
    AT_IMAGE_SHA256 = 80,
    AT_VERSION = 112,
    AT_SECURE_VERSION = 144,
    AT_PROJECT_NAME = 148,
    AT_RESERVED_2 = 180,
    AT_SIGNATURE = 192,
    TEXT_SIZE = 32,
};

static uint16_t read_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | (at[1] << 8));
}

static uint32_t read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | ((uint32_t)at[1] << 8) | ((uint32_t)at[2] << 16) | ((uint32_t)at[3] << 24);
}

static bool is_zero(const uint8_t *at, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (at[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Copies a NUL-padded text field; false unless it is printable ASCII, not empty and padded with NUL only. */
static bool read_text(const uint8_t *at, char text[TEXT_SIZE + 1])
{
    memcpy(text, at, TEXT_SIZE);
    text[TEXT_SIZE] = '\0';
    const size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            text[i] = '?';
            return false;
        }
    }
    return length > 0 && length < TEXT_SIZE && is_zero(at + length, TEXT_SIZE - length);
}

raw_ota_err_t raw_ota_package_parse(const uint8_t raw[RAW_OTA_HEADER_SIZE], raw_ota_package_t *package,
                                    raw_ota_result_t *result)
{
    if (memcmp(raw, MAGIC, sizeof(MAGIC)) != 0) {
        return raw_ota_fail(result, RAW_OTA_BAD_MAGIC, ESP_OK,
                            "not an OTA package (starts with %02x %02x %02x %02x)", raw[0], raw[1], raw[2],
                            raw[3]);
    }
    const uint16_t version = read_u16(raw + AT_HEADER_VERSION);
    if (version != HEADER_VERSION) {
        return raw_ota_fail(result, RAW_OTA_BAD_HEADER_VERSION, ESP_OK,
                            "package header version %u, this code knows %u", version, HEADER_VERSION);
    }
    const uint16_t size = read_u16(raw + AT_HEADER_SIZE);
    if (size != RAW_OTA_HEADER_SIZE) {
        return raw_ota_fail(result, RAW_OTA_BAD_HEADER_SIZE, ESP_OK, "package header of %u bytes, not %u",
                            size, RAW_OTA_HEADER_SIZE);
    }
    if (raw[AT_FLAGS] != 0 || !is_zero(raw + AT_RESERVED_1, 2) || !is_zero(raw + AT_RESERVED_2, 12)) {
        return raw_ota_fail(result, RAW_OTA_BAD_HEADER_VERSION, ESP_OK,
                            "package header uses fields that this code does not know");
    }
    memset(package, 0, sizeof(*package));
    package->chip_id = read_u16(raw + AT_CHIP_ID);
    package->cipher = raw[AT_CIPHER];
    memcpy(package->mac, raw + AT_MAC, sizeof(package->mac));
    memcpy(package->key_id, raw + AT_KEY_ID, sizeof(package->key_id));
    package->slot_offset = read_u32(raw + AT_SLOT_OFFSET);
    package->slot_size = read_u32(raw + AT_SLOT_SIZE);
    package->image_size = read_u32(raw + AT_IMAGE_SIZE);
    package->body_size = read_u32(raw + AT_BODY_SIZE);
    memcpy(package->body_sha256, raw + AT_BODY_SHA256, sizeof(package->body_sha256));
    memcpy(package->image_sha256, raw + AT_IMAGE_SHA256, sizeof(package->image_sha256));
    package->secure_version = read_u32(raw + AT_SECURE_VERSION);
    if (!read_text(raw + AT_VERSION, package->version) ||
        !read_text(raw + AT_PROJECT_NAME, package->project_name)) {
        return raw_ota_fail(result, RAW_OTA_WRONG_VERSION, ESP_OK,
                            "version or project name of the package is not a text");
    }
    return RAW_OTA_OK;
}

/* PSA status of checking `signature` over `hash` with one key. */
static psa_status_t verify_with(const uint8_t *key, const uint8_t hash[32], const uint8_t *signature)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    psa_set_key_type(&attributes, PSA_KEY_TYPE_ECC_PUBLIC_KEY(PSA_ECC_FAMILY_SECP_R1));
    psa_set_key_bits(&attributes, 256);
    psa_set_key_usage_flags(&attributes, PSA_KEY_USAGE_VERIFY_HASH);
    psa_set_key_algorithm(&attributes, PSA_ALG_ECDSA(PSA_ALG_SHA_256));
    psa_key_id_t id = 0;
    psa_status_t status = psa_import_key(&attributes, key, RAW_OTA_PUBLIC_KEY_SIZE, &id);
    if (status != PSA_SUCCESS) {
        return status;
    }
    status = psa_verify_hash(id, PSA_ALG_ECDSA(PSA_ALG_SHA_256), hash, 32, signature, RAW_OTA_SIGNATURE_SIZE);
    const psa_status_t destroyed = psa_destroy_key(id);
    return status == PSA_SUCCESS ? destroyed : status;
}

raw_ota_err_t raw_ota_package_check_signature(const uint8_t raw[RAW_OTA_HEADER_SIZE],
                                              raw_ota_result_t *result)
{
    if (raw_ota_public_key_count == 0) {
        return raw_ota_fail(result, RAW_OTA_NO_SIGNATURE_KEY, ESP_OK,
                            "this application has no public key to check packages with");
    }
    uint8_t hash[32];
    size_t hash_size = 0;
    psa_status_t status = psa_crypto_init();
    if (status == PSA_SUCCESS) {
        status = psa_hash_compute(PSA_ALG_SHA_256, raw, RAW_OTA_SIGNED_SIZE, hash, sizeof(hash), &hash_size);
    }
    if (status != PSA_SUCCESS) {
        return raw_ota_fail(result, RAW_OTA_NO_MEMORY, ESP_FAIL, "hashing the header failed (psa %d)",
                            (int)status);
    }
    for (size_t i = 0; i < raw_ota_public_key_count; i++) {
        status = verify_with(raw_ota_public_keys[i], hash, raw + AT_SIGNATURE);
        if (status == PSA_SUCCESS) {
            ESP_LOGI(TAG, "package signature is valid (key %u)", (unsigned)i + 1);
            return RAW_OTA_OK;
        }
        if (status == PSA_ERROR_INSUFFICIENT_MEMORY) {
            return raw_ota_fail(result, RAW_OTA_NO_MEMORY, ESP_ERR_NO_MEM,
                                "no memory to check the signature");
        }
    }
    return raw_ota_fail(result, RAW_OTA_BAD_SIGNATURE, ESP_OK,
                        "package is not signed by a key of this application");
}

/* The cipher that this device's flash encryption uses. */
static raw_ota_cipher_t device_cipher(void)
{
    if (!raw_ota_is_encrypted()) {
        return RAW_OTA_CIPHER_NONE;
    }
#if CONFIG_IDF_TARGET_ESP32
    return RAW_OTA_CIPHER_ESP32_AES;
#elif CONFIG_SECURE_FLASH_ENCRYPTION_AES256
    return RAW_OTA_CIPHER_XTS_AES_256;
#elif CONFIG_SECURE_FLASH_ENCRYPTION_AES128_DERIVED
    return RAW_OTA_CIPHER_XTS_AES_128_DERIVED;
#else
    return RAW_OTA_CIPHER_XTS_AES_128;
#endif
}

static raw_ota_err_t check_device(const raw_ota_package_t *package, raw_ota_result_t *result)
{
    if (package->chip_id != CONFIG_IDF_FIRMWARE_CHIP_ID) {
        return raw_ota_fail(result, RAW_OTA_WRONG_CHIP, ESP_OK, "package is for chip id %u, this chip is %u",
                            package->chip_id, CONFIG_IDF_FIRMWARE_CHIP_ID);
    }
    uint8_t mac[6] = {0};
    const esp_err_t err = esp_efuse_mac_get_default(mac);
    if (err != ESP_OK) {
        return raw_ota_fail(result, RAW_OTA_WRONG_DEVICE, err, "this device's MAC cannot be read");
    }
    if (memcmp(package->mac, mac, sizeof(mac)) != 0) {
        return raw_ota_fail(result, RAW_OTA_WRONG_DEVICE, ESP_OK,
                            "package is for device " MACSTR ", this is " MACSTR, MAC2STR(package->mac),
                            MAC2STR(mac));
    }
    const raw_ota_cipher_t cipher = device_cipher();
    if (package->cipher != cipher) {
        return raw_ota_fail(result, RAW_OTA_WRONG_CIPHER, ESP_OK,
                            "package has cipher %u, this device deciphers with %d", package->cipher,
                            (int)cipher);
    }
    return RAW_OTA_OK;
}

static raw_ota_err_t check_sizes(const raw_ota_package_t *package, int64_t transfer_size,
                                 raw_ota_result_t *result)
{
    /* In 64 bits: image_size comes from outside and may be just below 2^32. */
    const uint64_t padded = ((uint64_t)package->image_size + RAW_OTA_CIPHER_BLOCK - 1) /
                            RAW_OTA_CIPHER_BLOCK * RAW_OTA_CIPHER_BLOCK;
    if (package->image_size < RAW_OTA_SMALLEST_IMAGE || package->body_size != padded) {
        return raw_ota_fail(result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "image of %" PRIu32 " bytes in a body of %" PRIu32 " cannot be",
                            package->image_size, package->body_size);
    }
    if (package->body_size > package->slot_size) {
        return raw_ota_fail(result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "body of %" PRIu32 " bytes does not fit the slot of %" PRIu32, package->body_size,
                            package->slot_size);
    }
    const int64_t expected = (int64_t)RAW_OTA_HEADER_SIZE + package->body_size;
    if (transfer_size >= 0 && transfer_size < expected) {
        return raw_ota_fail(result, RAW_OTA_TRUNCATED, ESP_OK,
                            "transfer has %" PRId64 " bytes, the package %" PRId64, transfer_size, expected);
    }
    if (transfer_size > expected) {
        return raw_ota_fail(result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "transfer has %" PRId64 " bytes, the package only %" PRId64, transfer_size,
                            expected);
    }
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_check_secure_version(uint32_t secure_version, raw_ota_result_t *result)
{
    const uint32_t running = esp_app_get_description()->secure_version;
    if (secure_version < running) {
        return raw_ota_fail(result, RAW_OTA_SECURE_VERSION_TOO_OLD, ESP_OK,
                            "secure version %" PRIu32 " is below the running %" PRIu32, secure_version,
                            running);
    }
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    if (!esp_efuse_check_secure_version(secure_version)) {
        return raw_ota_fail(result, RAW_OTA_SECURE_VERSION_TOO_OLD, ESP_OK,
                            "secure version %" PRIu32 " is below the eFuse's %" PRIu32, secure_version,
                            esp_efuse_read_secure_version());
    }
#endif
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_package_check(const raw_ota_package_t *package, const esp_partition_t *slot,
                                    int64_t transfer_size, raw_ota_result_t *result)
{
    raw_ota_err_t err = check_device(package, result);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (package->slot_offset != slot->address || package->slot_size != slot->size) {
        return raw_ota_fail(result, RAW_OTA_WRONG_SLOT, ESP_OK,
                            "package is for 0x%" PRIx32 "+0x%" PRIx32 ", %s is 0x%" PRIx32 "+0x%" PRIx32,
                            package->slot_offset, package->slot_size, slot->label, slot->address, slot->size);
    }
    err = check_sizes(package, transfer_size, result);
    if (err != RAW_OTA_OK) {
        return err;
    }
    const esp_app_desc_t *running = esp_app_get_description();
    if (strncmp(package->project_name, running->project_name, sizeof(running->project_name)) != 0) {
        return raw_ota_fail(result, RAW_OTA_WRONG_VERSION, ESP_OK, "package is for project %s, this is %.32s",
                            package->project_name, running->project_name);
    }
    return raw_ota_check_secure_version(package->secure_version, result);
}
