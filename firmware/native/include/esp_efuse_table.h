/** Port of ESP-IDF's esp_efuse_table.h: the fields that the sources read by name. */
#pragma once

#include "esp_efuse.h"
#include "sdkconfig.h"

#if CONFIG_IDF_TARGET_ESP32
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK3, 128, 32                                                                                  \
    }
#elif CONFIG_IDF_TARGET_ESP32C2
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 54, 4                                                                                    \
    }
#elif CONFIG_IDF_TARGET_ESP32S2
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 139, 16                                                                                  \
    }
#elif CONFIG_IDF_TARGET_ESP32H2
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 137, 16                                                                                  \
    }
#elif CONFIG_IDF_TARGET_ESP32C5
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 137, 9                                                                                   \
    }
#elif CONFIG_IDF_TARGET_ESP32P4
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 142, 16                                                                                  \
    }
#else /* ESP32-S3, C3, C6 */
#define NATIVE_EFUSE_SECURE_VERSION                                                                          \
    {                                                                                                        \
        EFUSE_BLK0, 142, 16                                                                                  \
    }
#endif

extern const esp_efuse_desc_t *ESP_EFUSE_SECURE_VERSION[];
