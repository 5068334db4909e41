/** Port of ESP-IDF's esp_secure_boot.h. */
#pragma once

#include <stdbool.h>

bool esp_secure_boot_enabled(void);
