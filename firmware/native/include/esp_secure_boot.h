/** Port of ESP-IDF's esp_secure_boot.h. */
#pragma once

#include <stdbool.h>

bool esp_secure_boot_enabled(void);
bool esp_secure_boot_cfg_verify_release_mode(void);
