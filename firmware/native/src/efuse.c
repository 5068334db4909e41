/* The eFuse driver and what ESP-IDF burns with it. The fuses, and the driver's lines, are the twin's. */
#include "esp_efuse.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_efuse_table.h"
#include "esp_flash_encrypt.h"
#include "esp_log.h"
#include "esp_secure_boot.h"
#include "native_app.h"
#include "sdkconfig.h"
#include "twin_lines.h"
#include "twin_rpc.h"

#define BLOCK_BYTES 32

#if CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD
#define SECURE_VERSION_BITS CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD
#else
/* As in ESP-IDF: without anti-rollback, the smallest field of all chips. */
#define SECURE_VERSION_BITS 4
#endif

static const esp_efuse_desc_t SECURE_VERSION = {NATIVE_EFUSE_SECURE_VERSION};
const esp_efuse_desc_t *ESP_EFUSE_SECURE_VERSION[] = {&SECURE_VERSION, NULL};

/* The fields of this chip that release mode is about. */
#define FIELD(name)                                                                                          \
    static const esp_efuse_desc_t DESC_##name = {NATIVE_EFUSE_##name};                                       \
    const esp_efuse_desc_t *ESP_EFUSE_##name[] = {&DESC_##name, NULL}

#ifdef NATIVE_EFUSE_DISABLE_DL_CACHE
FIELD(DISABLE_DL_CACHE);
#endif
#ifdef NATIVE_EFUSE_DISABLE_DL_DECRYPT
FIELD(DISABLE_DL_DECRYPT);
#endif
#ifdef NATIVE_EFUSE_DISABLE_DL_ENCRYPT
FIELD(DISABLE_DL_ENCRYPT);
#endif
#ifdef NATIVE_EFUSE_DIS_DOWNLOAD_DCACHE
FIELD(DIS_DOWNLOAD_DCACHE);
#endif
#ifdef NATIVE_EFUSE_DIS_DOWNLOAD_ICACHE
FIELD(DIS_DOWNLOAD_ICACHE);
#endif
#ifdef NATIVE_EFUSE_DIS_DOWNLOAD_MANUAL_ENCRYPT
FIELD(DIS_DOWNLOAD_MANUAL_ENCRYPT);
#endif
#ifdef NATIVE_EFUSE_SPI_DOWNLOAD_MSPI_DIS
FIELD(SPI_DOWNLOAD_MSPI_DIS);
#endif
#ifdef NATIVE_EFUSE_WR_DIS_DIS_CACHE
FIELD(WR_DIS_DIS_CACHE);
#endif
#ifdef NATIVE_EFUSE_WR_DIS_DIS_ICACHE
FIELD(WR_DIS_DIS_ICACHE);
#endif
#ifdef NATIVE_EFUSE_XTS_DPA_PSEUDO_LEVEL
FIELD(XTS_DPA_PSEUDO_LEVEL);
#endif
static const esp_efuse_desc_t WR_DIS_CRYPT_CNT = {NATIVE_EFUSE_WR_DIS_CRYPT_CNT};

/* One action of the twin on its fuses; prints what ESP-IDF's code would have logged. */
static esp_err_t act(twin_efuse_t what, uint32_t argument, const void *data, size_t size, uint32_t *value)
{
    static char s_lines[4096];
    static pthread_mutex_t s_mutex = PTHREAD_MUTEX_INITIALIZER;
    size_t length = 0;
    pthread_mutex_lock(&s_mutex);
    const int32_t status =
        twin_call(TWIN_EFUSE, what, argument, data, size, s_lines, sizeof(s_lines) - 1, &length, value);
    s_lines[length] = '\0';
    twin_lines_print(s_lines);
    pthread_mutex_unlock(&s_mutex);
    return status;
}

static esp_err_t burn(twin_efuse_t what, uint32_t argument, const void *data, size_t size)
{
    const esp_err_t err = act(what, argument, data, size, NULL);
    twin_refresh_info();
    return err;
}

int esp_efuse_get_field_size(const esp_efuse_desc_t *field[])
{
    int bits = 0;
    for (size_t i = 0; field != NULL && field[i] != NULL; i++) {
        bits += field[i]->bit_count;
    }
    return bits;
}

esp_err_t esp_efuse_read_field_blob(const esp_efuse_desc_t *field[], void *dst, size_t dst_size_bits)
{
    uint8_t *bytes = dst;
    size_t filled = 0;
    if (field == NULL || dst == NULL || dst_size_bits == 0) {
        return ESP_ERR_INVALID_ARG;
    }
    memset(dst, 0, (dst_size_bits + 7) / 8);
    for (size_t i = 0; field[i] != NULL && filled < dst_size_bits; i++) {
        uint8_t block[BLOCK_BYTES] = {0};
        const esp_err_t err =
            twin_call(TWIN_EFUSE_READ, field[i]->efuse_block, 0, NULL, 0, block, sizeof(block), NULL, NULL);
        if (err != ESP_OK) {
            return err;
        }
        for (size_t bit = field[i]->bit_start;
             bit < (size_t)field[i]->bit_start + field[i]->bit_count && filled < dst_size_bits; bit++) {
            bytes[filled / 8] |= (uint8_t)(((block[bit / 8] >> (bit % 8)) & 1) << (filled % 8));
            filled++;
        }
    }
    return ESP_OK;
}

esp_err_t esp_efuse_read_block(esp_efuse_block_t blk, void *dst_key, size_t offset_in_bits, size_t size_bits)
{
    /* ESP-IDF refuses the block of the fuses here. */
    if (blk == EFUSE_BLK0 || dst_key == NULL || size_bits == 0 || offset_in_bits > UINT8_MAX) {
        return ESP_ERR_INVALID_ARG;
    }
    const esp_efuse_desc_t description = {blk, (uint8_t)offset_in_bits, (uint16_t)size_bits};
    const esp_efuse_desc_t *field[] = {&description, NULL};
    return esp_efuse_read_field_blob(field, dst_key, size_bits);
}

esp_err_t esp_efuse_read_field_cnt(const esp_efuse_desc_t *field[], size_t *out_cnt)
{
    uint8_t bytes[BLOCK_BYTES] = {0};
    const size_t bits = (size_t)esp_efuse_get_field_size(field);
    if (out_cnt == NULL || bits > sizeof(bytes) * 8) {
        return ESP_ERR_INVALID_ARG;
    }
    const esp_err_t err = esp_efuse_read_field_blob(field, bytes, bits);
    *out_cnt = 0;
    for (size_t i = 0; err == ESP_OK && i < sizeof(bytes); i++) {
        *out_cnt += (size_t)__builtin_popcount(bytes[i]);
    }
    return err;
}

esp_err_t esp_efuse_write_field_bit(const esp_efuse_desc_t *field[])
{
    uint8_t set = 0;
    if (field == NULL || field[0]->bit_count != 1) {
        return ESP_ERR_INVALID_ARG;
    }
    const esp_err_t err = esp_efuse_read_field_blob(field, &set, 1);
    if (err != ESP_OK || set != 0) {
        return err;
    }
    return burn(TWIN_EFUSE_SET_BIT, (uint32_t)field[0]->efuse_block << 16 | field[0]->bit_start, NULL, 0);
}

void esp_flash_write_protect_crypt_cnt(void)
{
    const esp_efuse_desc_t *field[] = {&WR_DIS_CRYPT_CNT, NULL};
    /* As in ESP-IDF, nobody looks at what became of it. */
    (void)esp_efuse_write_field_bit(field);
}

esp_err_t esp_efuse_disable_rom_download_mode(void)
{
    return burn(TWIN_EFUSE_DOWNLOAD_OFF, 0, NULL, 0);
}

#if SOC_SUPPORTS_SECURE_DL_MODE
esp_err_t esp_efuse_enable_rom_secure_download_mode(void)
{
    return burn(TWIN_EFUSE_SECURE_DOWNLOAD, 0, NULL, 0);
}
#endif

uint32_t esp_efuse_read_secure_version(void)
{
    uint32_t version = 0;
    const uint32_t field = (uint32_t)esp_efuse_get_field_size(ESP_EFUSE_SECURE_VERSION);
    const uint32_t size = SECURE_VERSION_BITS < field ? SECURE_VERSION_BITS : field;
    (void)esp_efuse_read_field_blob(ESP_EFUSE_SECURE_VERSION, &version, size);
    return (uint32_t)__builtin_popcount(version);
}

bool esp_efuse_check_secure_version(uint32_t secure_version)
{
    return secure_version >= esp_efuse_read_secure_version();
}

esp_err_t esp_efuse_update_secure_version(uint32_t secure_version)
{
    static const uint8_t BITS[4] = {SECURE_VERSION_BITS, 0, 0, 0};
    return burn(TWIN_EFUSE_SECURE_VERSION, secure_version, BITS, sizeof(BITS));
}

bool esp_flash_encryption_cfg_verify_release_mode(void)
{
    uint32_t verified = 0;
    return act(TWIN_EFUSE_VERIFY_ENCRYPTION, 0, NULL, 0, &verified) == ESP_OK && verified != 0;
}

bool esp_secure_boot_cfg_verify_release_mode(void)
{
    uint32_t verified = 0;
#if CONFIG_SECURE_BOOT_ENABLE_AGGRESSIVE_KEY_REVOKE
    const uint32_t aggressive = 1;
#else
    const uint32_t aggressive = 0;
#endif
    return act(TWIN_EFUSE_VERIFY_SECURE_BOOT, aggressive, NULL, 0, &verified) == ESP_OK && verified != 0;
}

void esp_flash_encryption_set_release_mode(void)
{
    static const char *TAG = "flash_encrypt";
    if (esp_get_flash_encryption_mode() == ESP_FLASH_ENC_MODE_RELEASE) {
        return;
    }
    if (esp_get_flash_encryption_mode() == ESP_FLASH_ENC_MODE_DISABLED) {
        ESP_LOGE(TAG, "Flash encryption eFuse is not enabled, abort..");
        abort();
    }
    (void)burn(TWIN_EFUSE_RELEASE_MODE, 0, NULL, 0);
    if (esp_get_flash_encryption_mode() != ESP_FLASH_ENC_MODE_RELEASE) {
        ESP_LOGE(TAG, "Flash encryption mode is DEVELOPMENT, abort..");
        abort();
    }
    ESP_LOGI(TAG, "Flash encryption mode is RELEASE");
}

#if CONFIG_SECURE_BOOT_V2_ENABLED
/* esp_secure_boot_init_checks(): aborts where the digests cannot be what they should. */
static void secure_boot_init_checks(void)
{
#if CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS
    const uint32_t unused_may_stay = 1;
#else
    const uint32_t unused_may_stay = 0;
#endif
    if (burn(TWIN_EFUSE_CHECK_SECURE_BOOT, unused_may_stay, NULL, 0) != ESP_OK) {
        abort();
    }
}
#endif

esp_err_t native_efuse_startup(void)
{
    static const char *TAG = "efuse_init";
    esp_err_t err = ESP_OK;
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    if (!esp_efuse_check_secure_version(esp_app_get_description()->secure_version)) {
        ESP_LOGE(TAG, "init_efuse_secure(94): Incorrect secure version of app");
        err = ESP_FAIL;
    }
#endif
#if CONFIG_SECURE_FLASH_ENC_ENABLED
    if (err == ESP_OK) {
        esp_flash_encryption_init_checks();
    }
#endif
#if CONFIG_SECURE_BOOT_V2_ENABLED
    if (err == ESP_OK) {
        secure_boot_init_checks();
    }
#endif
#if CONFIG_SECURE_DISABLE_ROM_DL_MODE
    if (err == ESP_OK) {
        err = esp_efuse_disable_rom_download_mode();
        if (err != ESP_OK) {
            ESP_LOGE(TAG, "init_efuse_secure(118): Failed to disable ROM download mode");
        }
    }
#endif
#if CONFIG_SECURE_ENABLE_SECURE_ROM_DL_MODE && SOC_SUPPORTS_SECURE_DL_MODE
    if (err == ESP_OK) {
        err = esp_efuse_enable_rom_secure_download_mode();
        if (err != ESP_OK) {
            ESP_LOGE(TAG, "init_efuse_secure(123): Failed to enable Secure Download mode");
        }
    }
#endif
    if (err != ESP_OK) {
        ESP_LOGE(TAG, "init_efuse(166): Failed in secure eFuse init");
    }
    return err;
}

/* esp_security_init(): the digest of secure boot, or the curves of the ECDSA unit, stay as they are. */
esp_err_t native_security_startup(void)
{
#if CONFIG_SECURE_BOOT_V2_ENABLED &&                                                                         \
    (CONFIG_IDF_TARGET_ESP32H2 ||                                                                            \
     (CONFIG_IDF_TARGET_ESP32C5 && !CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_384_BITS &&                             \
      !CONFIG_SECURE_BOOT_SKIP_WRITE_PROTECTION_SCA))
    return burn(TWIN_EFUSE_START_UP_WRITE_PROTECT, 0, NULL, 0);
#else
    return ESP_OK;
#endif
}
