/** An update's bytes over HTTP, by esp_http_client. */
#pragma once

#include "esp_http_client.h"
#include "esp_timer.h"
#include "raw_ota_internal.h"

/** Room for an entity tag with its quotes; a longer one counts as none. */
#define RAW_OTA_HTTP_ETAG_SIZE 100

/** What the last answer's headers said besides its length. */
typedef struct {
    char etag[RAW_OTA_HTTP_ETAG_SIZE]; /**< strong validator; empty when it had none */
    char content_range[80];            /**< empty when it had none */
    bool is_packed;                    /**< a content coding, such as gzip, lies around the bytes */
    bool leads_to_tls;                 /**< a redirect to an https:// place */
    bool leads_to_plain;               /**< a redirect to an http:// place */
} raw_ota_http_answer_t;

/** One download, over as many connections as it takes. */
typedef struct {
    esp_http_client_handle_t client;
    raw_ota_result_t *result;
    const char *url;     /**< the one that the caller gave, before any redirect */
    int64_t size;        /**< bytes of the whole transfer; -1 when nobody has said so far */
    int64_t position;    /**< bytes handed out so far */
    uint32_t crc;        /**< CRC-32 of those */
    int total_timeout_s; /**< 0: no limit */
    int64_t deadline_us; /**< esp_timer time at which patience ends; 0: never */
    esp_timer_handle_t watch;
    int resumes_left;
    int64_t resumed_at;                /**< position at the last reconnection; -1: there was none */
    bool is_redirected;                /**< the client is no longer at `url` */
    bool is_tls;                       /**< the place that the client is at is an https:// one */
    bool is_answered;                  /**< an answer has come whose body may not have been read */
    int last_read;                     /**< what the last read that brought nothing returned, */
    int last_errno;                    /**< and the errno of the connection by then; 0: closed cleanly */
    char etag[RAW_OTA_HTTP_ETAG_SIZE]; /**< of the file that this download began with; empty: not known */
    raw_ota_http_answer_t answer;
} raw_ota_http_t;

/** Connects, follows redirects, and leaves the download at its first byte. Close it in every case. Only the
 * holder of the update lock may have one open. `url` must outlive it. */
raw_ota_err_t raw_ota_http_open(raw_ota_http_t *http, const char *url, const raw_ota_options_t *options,
                                raw_ota_result_t *result);

/** raw_ota_source_t::read of a raw_ota_http_t. */
int raw_ota_http_read(void *context, uint8_t *buffer, size_t capacity);

/** raw_ota_source_t::expect of a raw_ota_http_t: an answer without a length that ends earlier has broken. */
void raw_ota_http_expect(void *context, int64_t size);

/** Gives up connection and memory. */
void raw_ota_http_close(raw_ota_http_t *http);
