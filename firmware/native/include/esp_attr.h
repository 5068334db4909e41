/** Port of ESP-IDF's esp_attr.h. */
#pragma once

#define IRAM_ATTR
#define FORCE_INLINE_ATTR static inline __attribute__((always_inline))
