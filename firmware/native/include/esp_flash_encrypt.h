/** Port of ESP-IDF's esp_flash_encrypt.h. */
#pragma once

#include <stdbool.h>

#include "esp_err.h"

typedef enum {
    ESP_FLASH_ENC_MODE_DISABLED,
    ESP_FLASH_ENC_MODE_DEVELOPMENT,
    ESP_FLASH_ENC_MODE_RELEASE,
} esp_flash_enc_mode_t;

bool esp_flash_encryption_enabled(void);
esp_flash_enc_mode_t esp_get_flash_encryption_mode(void);
bool esp_flash_encryption_cfg_verify_release_mode(void);
void esp_flash_encryption_set_release_mode(void);
void esp_flash_write_protect_crypt_cnt(void);
void esp_flash_encryption_init_checks(void);
