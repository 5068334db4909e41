/** Port of ESP-IDF's esp_log.h: lines `I (123) tag: text`, CR LF, one write each. */
#pragma once

#include <stdint.h>

#include "sdkconfig.h"

typedef enum {
    ESP_LOG_NONE,
    ESP_LOG_ERROR,
    ESP_LOG_WARN,
    ESP_LOG_INFO,
    ESP_LOG_DEBUG,
    ESP_LOG_VERBOSE,
} esp_log_level_t;

/** Milliseconds since the reset. */
uint32_t esp_log_timestamp(void);

/** Prints one line with its level, time stamp and tag. */
void native_log(esp_log_level_t level, const char *tag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define ESP_LOG_LEVEL(level, tag, ...)                                                                       \
    do {                                                                                                     \
        if ((level) <= CONFIG_LOG_DEFAULT_LEVEL) {                                                           \
            native_log((level), (tag), __VA_ARGS__);                                                         \
        }                                                                                                    \
    } while (0)
#define ESP_LOGE(tag, ...) ESP_LOG_LEVEL(ESP_LOG_ERROR, tag, __VA_ARGS__)
#define ESP_LOGW(tag, ...) ESP_LOG_LEVEL(ESP_LOG_WARN, tag, __VA_ARGS__)
#define ESP_LOGI(tag, ...) ESP_LOG_LEVEL(ESP_LOG_INFO, tag, __VA_ARGS__)
#define ESP_LOGD(tag, ...) ESP_LOG_LEVEL(ESP_LOG_DEBUG, tag, __VA_ARGS__)
