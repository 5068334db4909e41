/** An update's bytes over HTTP, by esp_http_client. */
#pragma once

#include "esp_http_client.h"
#include "raw_ota_internal.h"

/** One download. */
typedef struct {
    esp_http_client_handle_t client;
    raw_ota_result_t *result;
    int64_t size;        /**< bytes of the whole transfer; -1 when the server does not say */
    int64_t position;    /**< bytes handed out so far */
    int64_t deadline_us; /**< esp_timer time at which patience ends; 0: never */
    int resumes_left;
    char content_range[48]; /**< header of the last answer; empty when it had none */
} raw_ota_http_t;

/** Connects, follows redirects, and leaves the download at its first byte. Close it in every case. */
raw_ota_err_t raw_ota_http_open(raw_ota_http_t *http, const char *url, const raw_ota_options_t *options,
                                raw_ota_result_t *result);

/** raw_ota_source_t::read of a raw_ota_http_t. */
int raw_ota_http_read(void *context, uint8_t *buffer, size_t capacity);

/** Gives up connection and memory. */
void raw_ota_http_close(raw_ota_http_t *http);
