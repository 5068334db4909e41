/** Port of ESP-IDF's esp_mac.h. */
#pragma once

#include <stdint.h>

#include "esp_err.h"

#define MACSTR "%02x:%02x:%02x:%02x:%02x:%02x"
#define MAC2STR(a) (a)[0], (a)[1], (a)[2], (a)[3], (a)[4], (a)[5]

/** Base MAC of the eFuses, first byte first. */
esp_err_t esp_efuse_mac_get_default(uint8_t *mac);
