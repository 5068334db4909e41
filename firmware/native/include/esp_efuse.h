/** Port of ESP-IDF's esp_efuse.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "esp_err.h"
#include "soc/soc_caps.h"

esp_err_t esp_efuse_disable_rom_download_mode(void);
#if SOC_SUPPORTS_SECURE_DL_MODE
esp_err_t esp_efuse_enable_rom_secure_download_mode(void);
#endif
uint32_t esp_efuse_read_secure_version(void);
bool esp_efuse_check_secure_version(uint32_t secure_version);
