/** Port of ESP-IDF's esp_efuse.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "esp_err.h"
#include "sdkconfig.h"
#include "soc/soc_caps.h"

typedef enum {
    EFUSE_BLK0 = 0,
    EFUSE_BLK1 = 1,
    EFUSE_BLK2 = 2,
    EFUSE_BLK3 = 3,
#if CONFIG_IDF_TARGET_ESP32
    EFUSE_BLK_KEY0 = 1,
    EFUSE_BLK_KEY_MAX = 4,
#elif CONFIG_IDF_TARGET_ESP32C2
    EFUSE_BLK_KEY0 = 3,
    EFUSE_BLK_KEY_MAX = 4,
#else
    EFUSE_BLK_KEY0 = 4,
    EFUSE_BLK_KEY_MAX = 10,
#endif
} esp_efuse_block_t;

typedef struct {
    esp_efuse_block_t efuse_block : 8;
    uint8_t bit_start;
    uint16_t bit_count;
} esp_efuse_desc_t;

int esp_efuse_get_field_size(const esp_efuse_desc_t *field[]);
esp_err_t esp_efuse_read_field_blob(const esp_efuse_desc_t *field[], void *dst, size_t dst_size_bits);
esp_err_t esp_efuse_read_field_cnt(const esp_efuse_desc_t *field[], size_t *out_cnt);
esp_err_t esp_efuse_write_field_bit(const esp_efuse_desc_t *field[]);
esp_err_t esp_efuse_read_block(esp_efuse_block_t blk, void *dst_key, size_t offset_in_bits, size_t size_bits);
esp_err_t esp_efuse_disable_rom_download_mode(void);
#if SOC_SUPPORTS_SECURE_DL_MODE
esp_err_t esp_efuse_enable_rom_secure_download_mode(void);
#endif
uint32_t esp_efuse_read_secure_version(void);
bool esp_efuse_check_secure_version(uint32_t secure_version);
esp_err_t esp_efuse_update_secure_version(uint32_t secure_version);
