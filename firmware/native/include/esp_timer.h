/** Port of ESP-IDF's esp_timer.h. */
#pragma once

#include <stdint.h>

/** Microseconds since the application started. */
int64_t esp_timer_get_time(void);
