/** The control beside raw_ota: an update by ESP-IDF's own esp_ota_begin/write/end, and a mere HTTP request.
 */
#pragma once

#include <stdint.h>

#include "raw_ota.h"

/** What happened. */
typedef struct {
    const char *step; /**< what was being done when it failed */
    esp_err_t code;   /**< ESP-IDF's error there; ESP_OK when it has none */
    int http_status;  /**< 0: no answer */
    int64_t length;   /**< what esp_http_client_fetch_headers() returned */
    uint32_t bytes;   /**< handed to esp_ota_write() */
} stock_ota_result_t;

/** Downloads a plaintext image and installs it with ESP-IDF's functions, under the lock of raw_ota. */
raw_ota_err_t stock_ota_update(const char *url, stock_ota_result_t *result);

/** Asks for `url` and reads the answer's headers. */
raw_ota_err_t stock_ota_probe(const char *url, stock_ota_result_t *result);
