#include "raw_ota_http.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "esp_log.h"
#include "esp_timer.h"
#include "sdkconfig.h"

static const char *TAG = "raw_ota_http";

/* ESP-IDF has a name for it from v5.5 on. */
#define STATUS_PARTIAL_CONTENT 206

/* Room for the request line: URLs carry unguessable tokens. */
#define TRANSMIT_BUFFER_SIZE 1024

static esp_err_t on_event(esp_http_client_event_t *event)
{
    raw_ota_http_t *http = event->user_data;
    if (event->event_id == HTTP_EVENT_ON_HEADER && strcasecmp(event->header_key, "Content-Range") == 0) {
        (void)snprintf(http->content_range, sizeof(http->content_range), "%s", event->header_value);
    }
    return ESP_OK;
}

static bool is_redirect(int status)
{
    return status == HttpStatus_MovedPermanently || status == HttpStatus_Found ||
           status == HttpStatus_SeeOther || status == HttpStatus_TemporaryRedirect ||
           status == HttpStatus_PermanentRedirect;
}

/* Sends the request and takes the answer's headers; status and Content-Length are then known to the client.
 */
static raw_ota_err_t request(raw_ota_http_t *http)
{
    http->content_range[0] = '\0';
    const esp_err_t opened = esp_http_client_open(http->client, 0);
    if (opened != ESP_OK) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_CONNECT, opened, "no connection: %s",
                            esp_err_to_name(opened));
    }
    const int64_t fetched = esp_http_client_fetch_headers(http->client);
    if (fetched == -ESP_ERR_HTTP_EAGAIN) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN, "no answer within %d ms",
                            CONFIG_RAW_OTA_HTTP_TIMEOUT_MS);
    }
    if (fetched < 0) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_FETCH_HEADER,
                            "connection ended before the answer's headers");
    }
    http->result->http_status = esp_http_client_get_status_code(http->client);
    return RAW_OTA_OK;
}

/* Goes where the answer points. The body of a redirect may already lie in the client's buffer and would be
 * taken for the beginning of the next answer, so it is read out before the connection is closed. */
static esp_err_t follow_redirect(raw_ota_http_t *http)
{
    char discarded[64];
    for (int i = 0; i < CONFIG_RAW_OTA_HTTP_BUFFER_SIZE / (int)sizeof(discarded) + 1; i++) {
        if (esp_http_client_read(http->client, discarded, sizeof(discarded)) <= 0) {
            break;
        }
    }
    esp_err_t err = esp_http_client_set_redirection(http->client);
    if (err == ESP_OK) {
        err = esp_http_client_close(http->client);
    }
    return err;
}

static raw_ota_err_t request_following_redirects(raw_ota_http_t *http)
{
    for (int hop = 0; hop <= CONFIG_RAW_OTA_HTTP_MAX_REDIRECTS; hop++) {
        const raw_ota_err_t err = request(http);
        if (err != RAW_OTA_OK) {
            return err;
        }
        const int status = http->result->http_status;
        if (status == HttpStatus_Ok) {
            return RAW_OTA_OK;
        }
        if (!is_redirect(status)) {
            return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, ESP_OK, "the server answered %d", status);
        }
        const esp_err_t followed = follow_redirect(http);
        if (followed != ESP_OK) {
            return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, followed, "status %d leads nowhere",
                                status);
        }
        ESP_LOGI(TAG, "redirected (status %d)", status);
    }
    return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, ESP_ERR_HTTP_MAX_REDIRECT,
                        "more than %d redirects", CONFIG_RAW_OTA_HTTP_MAX_REDIRECTS);
}

raw_ota_err_t raw_ota_http_open(raw_ota_http_t *http, const char *url, const raw_ota_options_t *options,
                                raw_ota_result_t *result)
{
    memset(http, 0, sizeof(*http));
    http->result = result;
    http->resumes_left = options->resumes >= 0 ? options->resumes : CONFIG_RAW_OTA_HTTP_RESUMES;
    if (CONFIG_RAW_OTA_HTTP_TOTAL_TIMEOUT_S > 0) {
        http->deadline_us = esp_timer_get_time() + (int64_t)CONFIG_RAW_OTA_HTTP_TOTAL_TIMEOUT_S * 1000000;
    }
    const esp_http_client_config_t config = {
        .url = url,
        .cert_pem = options->server_cert_pem,
        .timeout_ms = CONFIG_RAW_OTA_HTTP_TIMEOUT_MS,
        .disable_auto_redirect = true,
        .event_handler = on_event,
        .user_data = http,
        .buffer_size = CONFIG_RAW_OTA_HTTP_BUFFER_SIZE,
        .buffer_size_tx = TRANSMIT_BUFFER_SIZE,
        .keep_alive_enable = true,
    };
    http->client = esp_http_client_init(&config);
    if (http->client == NULL) {
        return raw_ota_fail(result, RAW_OTA_HTTP_CONNECT, ESP_ERR_INVALID_ARG, "the URL cannot be used");
    }
    const raw_ota_err_t err = request_following_redirects(http);
    if (err != RAW_OTA_OK) {
        return err;
    }
    /* esp_http_client takes an answer without Content-Length for a chunked one. */
    const int64_t length = esp_http_client_get_content_length(http->client);
    http->size = length > 0 ? length : -1;
    ESP_LOGI(TAG, "status %d, %" PRId64 " bytes", result->http_status, http->size);
    return RAW_OTA_OK;
}

/* The answer holds the bytes from `position` on, up to the same end as before? */
static bool is_rest(const raw_ota_http_t *http)
{
    if (http->result->http_status != STATUS_PARTIAL_CONTENT ||
        strncmp(http->content_range, "bytes ", strlen("bytes ")) != 0) {
        return false;
    }
    const long long first = strtoll(http->content_range + strlen("bytes "), NULL, 10);
    return first == http->position &&
           esp_http_client_get_content_length(http->client) == http->size - http->position;
}

/* Asks for the rest of a broken transfer; false when that is not possible. */
static bool resume(raw_ota_http_t *http)
{
    if (http->resumes_left <= 0 || http->size < 0 || http->position == 0) {
        return false;
    }
    http->resumes_left--;
    http->result->resumes++;
    ESP_LOGW(TAG, "transfer broke at byte %" PRId64 " of %" PRId64 ", asking for the rest", http->position,
             http->size);
    char range[40];
    (void)snprintf(range, sizeof(range), "bytes=%" PRId64 "-", http->position);
    if (esp_http_client_close(http->client) != ESP_OK ||
        esp_http_client_set_header(http->client, "Range", range) != ESP_OK || request(http) != RAW_OTA_OK) {
        return false;
    }
    if (!is_rest(http)) {
        ESP_LOGW(TAG, "the server answered %d, not the rest", http->result->http_status);
        return false;
    }
    /* A failed attempt before this one is forgotten. */
    http->result->error = RAW_OTA_OK;
    http->result->code = ESP_OK;
    http->result->message[0] = '\0';
    return true;
}

/* What a read that gave no bytes means. `broken` is the errno of the connection, 0 for a clean close. */
static raw_ota_err_t explain(const raw_ota_http_t *http, int got, int broken)
{
    if (got == -ESP_ERR_HTTP_EAGAIN) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN,
                            "no data for %d ms at byte %" PRId64, CONFIG_RAW_OTA_HTTP_TIMEOUT_MS,
                            http->position);
    }
    if (broken == 0) {
        return raw_ota_fail(http->result, RAW_OTA_TRUNCATED, ESP_ERR_HTTP_CONNECTION_CLOSED,
                            "the server closed the connection at byte %" PRId64 " of %" PRId64,
                            http->position, http->size);
    }
    return raw_ota_fail(http->result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_CONNECTION_CLOSED,
                        "connection broke at byte %" PRId64 " (errno %d)", http->position, broken);
}

int raw_ota_http_read(void *context, uint8_t *buffer, size_t capacity)
{
    raw_ota_http_t *http = context;
    for (;;) {
        if (http->deadline_us != 0 && esp_timer_get_time() > http->deadline_us) {
            return -(int)raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_TIMEOUT,
                                      "not done after %d s, at byte %" PRId64,
                                      CONFIG_RAW_OTA_HTTP_TOTAL_TIMEOUT_S, http->position);
        }
        const int got = esp_http_client_read(http->client, (char *)buffer, (int)capacity);
        if (got > 0) {
            http->position += got;
            return got;
        }
        if (got == 0 && esp_http_client_is_complete_data_received(http->client)) {
            return 0;
        }
        /* Reading it also clears it: each break is judged by its own errno. */
        const int broken = esp_http_client_get_errno(http->client);
        if (!resume(http)) {
            return -(int)explain(http, got, broken);
        }
    }
}

void raw_ota_http_close(raw_ota_http_t *http)
{
    if (http->client != NULL) {
        (void)esp_http_client_cleanup(http->client);
        http->client = NULL;
    }
}
