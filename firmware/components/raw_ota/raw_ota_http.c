#include "raw_ota_http.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "esp_idf_version.h"
#include "esp_log.h"
#include "esp_rom_crc.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "sdkconfig.h"
#include "sys/socket.h"

static const char *TAG = "raw_ota_http";

/* ESP-IDF has names for some of them only from later versions on. */
#define STATUS_SWITCHING_PROTOCOLS 101
#define STATUS_PARTIAL_CONTENT 206
#define STATUS_REQUEST_TIMEOUT 408
#define STATUS_RANGE_NOT_SATISFIABLE 416
#define STATUS_TOO_MANY_REQUESTS 429

/* Interim answers (1xx) that may come before the one that counts. */
#define MAX_INTERIM 8

/* Room for the request line: URLs carry unguessable tokens. */
#define TRANSMIT_BUFFER_SIZE 1024

/* What the client waits for data when there is no time left. */
#define HURRY_MS 1

/* esp_http_client limits each wait for data, not a call: a server that sends a byte now and then keeps the
 * client in its headers, or in one read, for as long as it likes. When the time of the whole transfer is up,
 * a timer takes the client's patience away, and the call ends at the next byte that is not there. A server
 * that never pauses (headers without end, bytes that are no answer) gives no such moment: there the timer
 * shuts the connection down. Only while the client waits in a call that does not close its socket itself: the
 * same number may by then be somebody else's. */
static StaticSemaphore_t s_watch_memory;
static SemaphoreHandle_t s_watch_mutex;    /* guards what follows, and the client's patience */
static esp_http_client_handle_t s_waiting; /* the client in a call that waits for data; NULL: none */

/* ESP-IDF before v5.5 does not tell the socket; there a server that never pauses is not left. */
static void hang_up(esp_http_client_handle_t client)
{
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 5, 0)
    const int connection = esp_http_client_get_socket(client);
    if (connection >= 0) {
        (void)shutdown(connection, SHUT_RDWR); /* fails when the server has gone meanwhile */
    }
#else
    (void)client;
#endif
}

static void on_deadline(void *context)
{
    (void)context;
    (void)xSemaphoreTake(s_watch_mutex, portMAX_DELAY);
    if (s_waiting != NULL) {
        (void)esp_http_client_set_timeout_ms(s_waiting, HURRY_MS);
        hang_up(s_waiting);
    }
    (void)xSemaphoreGive(s_watch_mutex);
}

static bool is_overdue(const raw_ota_http_t *http)
{
    return http->deadline_us != 0 && esp_timer_get_time() >= http->deadline_us;
}

/* Sets how long the client waits for data; no longer than there is time for. */
static void set_patience(const raw_ota_http_t *http, int timeout_ms)
{
    (void)esp_http_client_set_timeout_ms(http->client, is_overdue(http) ? HURRY_MS : timeout_ms);
}

/* To be called before the client waits for data, with end_wait() after it; false: the time is up. */
static bool begin_wait(const raw_ota_http_t *http)
{
    (void)xSemaphoreTake(s_watch_mutex, portMAX_DELAY);
    const bool is_in_time = !is_overdue(http);
    s_waiting = is_in_time ? http->client : NULL;
    (void)xSemaphoreGive(s_watch_mutex);
    return is_in_time;
}

static void end_wait(void)
{
    (void)xSemaphoreTake(s_watch_mutex, portMAX_DELAY);
    s_waiting = NULL;
    (void)xSemaphoreGive(s_watch_mutex);
}

/* From now on the whole transfer may take `total_timeout_s`. */
static raw_ota_err_t start_clock(raw_ota_http_t *http)
{
    if (s_watch_mutex == NULL) { /* only the holder of the update lock comes here */
        s_watch_mutex = xSemaphoreCreateMutexStatic(&s_watch_memory);
    }
    if (http->total_timeout_s <= 0) {
        return RAW_OTA_OK;
    }
    const uint64_t patience_us = (uint64_t)http->total_timeout_s * 1000000u;
    http->deadline_us = esp_timer_get_time() + (int64_t)patience_us;
    const esp_timer_create_args_t timer = {.callback = on_deadline, .name = "raw_ota_http"};
    esp_err_t err = esp_timer_create(&timer, &http->watch);
    if (err == ESP_OK) {
        err = esp_timer_start_once(http->watch, patience_us);
    }
    if (err != ESP_OK) {
        return raw_ota_fail(http->result, RAW_OTA_NO_MEMORY, err, "no timer for the transfer");
    }
    return RAW_OTA_OK;
}

static void stop_clock(raw_ota_http_t *http)
{
    /* A callback that is under way finds nobody waiting any more. */
    if (http->watch != NULL) {
        (void)esp_timer_stop(http->watch); /* fails when it has fired */
        (void)esp_timer_delete(http->watch);
        http->watch = NULL;
    }
}

/* Only strong validators stand for the same bytes (RFC 9110, 8.8.1); one that is cut off stands for none. */
static void take_etag(raw_ota_http_answer_t *answer, const char *value)
{
    const bool is_strong = value[0] == '"' && strlen(value) < sizeof(answer->etag);
    (void)snprintf(answer->etag, sizeof(answer->etag), "%s", is_strong ? value : "");
}

static bool is_identity(const char *coding)
{
    const size_t length = strcspn(coding, " \t");
    return length == 0 || (length == strlen("identity") && strncasecmp(coding, "identity", length) == 0);
}

static bool is_tls_url(const char *url)
{
    return strncasecmp(url, "https://", strlen("https://")) == 0;
}

static bool is_plain_url(const char *url)
{
    return strncasecmp(url, "http://", strlen("http://")) == 0;
}

static esp_err_t on_event(esp_http_client_event_t *event)
{
    raw_ota_http_t *http = event->user_data;
    if (event->event_id != HTTP_EVENT_ON_HEADER) {
        return ESP_OK;
    }
    if (strcasecmp(event->header_key, "Content-Range") == 0) {
        (void)snprintf(http->answer.content_range, sizeof(http->answer.content_range), "%s",
                       event->header_value);
    } else if (strcasecmp(event->header_key, "ETag") == 0) {
        take_etag(&http->answer, event->header_value);
    } else if (strcasecmp(event->header_key, "Content-Encoding") == 0) {
        http->answer.is_packed = !is_identity(event->header_value);
    } else if (strcasecmp(event->header_key, "Location") == 0) {
        http->answer.leads_to_tls = is_tls_url(event->header_value);
        http->answer.leads_to_plain = is_plain_url(event->header_value);
    }
    return ESP_OK;
}

static bool is_redirect(int status)
{
    return status == HttpStatus_MovedPermanently || status == HttpStatus_Found ||
           status == HttpStatus_SeeOther || status == HttpStatus_TemporaryRedirect ||
           status == HttpStatus_PermanentRedirect;
}

static bool is_interim(int status)
{
    return status / 100 == 1 && status != STATUS_SWITCHING_PROTOCOLS;
}

static raw_ota_err_t fail_overdue(const raw_ota_http_t *http)
{
    return raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_TIMEOUT,
                        "not done after %d s, at byte %" PRId64, http->total_timeout_s, http->position);
}

/* Waits for one answer's headers. */
static raw_ota_err_t fetch_headers(raw_ota_http_t *http)
{
    memset(&http->answer, 0, sizeof(http->answer));
    if (!begin_wait(http)) {
        return fail_overdue(http);
    }
    const int64_t fetched = esp_http_client_fetch_headers(http->client);
    end_wait();
    if (fetched < 0 && is_overdue(http)) {
        return fail_overdue(http);
    }
    if (fetched == -ESP_ERR_HTTP_EAGAIN) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN, "no answer within %d ms",
                            CONFIG_RAW_OTA_HTTP_TIMEOUT_MS);
    }
    if (fetched < 0) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_FETCH_HEADER,
                            "connection ended before the answer's headers");
    }
    http->is_answered = true;
    http->result->http_status = esp_http_client_get_status_code(http->client);
    return RAW_OTA_OK;
}

/* Sends the request and takes the answer's headers; status and Content-Length are then known to the client.
 */
static raw_ota_err_t request(raw_ota_http_t *http)
{
    if (is_overdue(http)) {
        return fail_overdue(http);
    }
    const esp_err_t opened = esp_http_client_open(http->client, 0);
    if (opened != ESP_OK && is_overdue(http)) {
        return fail_overdue(http);
    }
    if (opened != ESP_OK) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_CONNECT, opened, "no connection: %s",
                            esp_err_to_name(opened));
    }
    raw_ota_err_t err = fetch_headers(http);
    for (int i = 0; err == RAW_OTA_OK && is_interim(http->result->http_status) && i < MAX_INTERIM; i++) {
        err = fetch_headers(http);
    }
    return err;
}

/* Gives up the connection. The body of an unwanted answer may already lie in the client's buffer and would be
 * taken for the beginning of the next answer, so it is read out before. */
static void leave(raw_ota_http_t *http)
{
    char discarded[64];
    set_patience(http, HURRY_MS);
    for (int i = 0; http->is_answered && i < CONFIG_RAW_OTA_HTTP_BUFFER_SIZE / (int)sizeof(discarded) + 1;
         i++) {
        http->is_answered =
            begin_wait(http) && esp_http_client_read(http->client, discarded, sizeof(discarded)) > 0;
        end_wait();
    }
    http->is_answered = false;
    set_patience(http, CONFIG_RAW_OTA_HTTP_TIMEOUT_MS);
    /* What closing a broken connection gives says nothing about the next one. */
    (void)esp_http_client_close(http->client);
}

/* Asks, and goes where the answers point. Ends with the status 200, or, when a part was asked for, with 206
 * or 416. */
static raw_ota_err_t request_following_redirects(raw_ota_http_t *http, bool asks_for_part)
{
    for (int hop = 0; hop <= CONFIG_RAW_OTA_HTTP_MAX_REDIRECTS; hop++) {
        const raw_ota_err_t err = request(http);
        if (err != RAW_OTA_OK) {
            return err;
        }
        const int status = http->result->http_status;
        if (status == HttpStatus_Ok ||
            (asks_for_part && (status == STATUS_PARTIAL_CONTENT || status == STATUS_RANGE_NOT_SATISFIABLE))) {
            if (status != STATUS_RANGE_NOT_SATISFIABLE && http->answer.is_packed) {
                return raw_ota_fail(http->result, RAW_OTA_HTTP_ENCODING, ESP_OK,
                                    "the server packed the file (Content-Encoding), which nobody asked for");
            }
            return RAW_OTA_OK;
        }
        if (!is_redirect(status)) {
            return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, ESP_OK, "the server answered %d", status);
        }
        /* Some versions of esp_http_client go there, and show everybody on the way what TLS hides. */
        if (http->is_tls && http->answer.leads_to_plain) {
            return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, ESP_OK,
                                "status %d leads from https:// to http://", status);
        }
        leave(http);
        const esp_err_t followed = esp_http_client_set_redirection(http->client);
        if (followed != ESP_OK) {
            return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, followed, "status %d leads nowhere",
                                status);
        }
        http->is_redirected = true;
        http->is_tls = http->is_tls || http->answer.leads_to_tls;
        ESP_LOGI(TAG, "redirected (status %d)", status);
    }
    return raw_ota_fail(http->result, RAW_OTA_HTTP_STATUS, ESP_ERR_HTTP_MAX_REDIRECT,
                        "more than %d redirects", CONFIG_RAW_OTA_HTTP_MAX_REDIRECTS);
}

/* Length of the answer's body; -1 when it does not say: esp_http_client takes such an answer for a chunked
 * one. */
static int64_t body_length(const raw_ota_http_t *http)
{
    const int64_t length = esp_http_client_get_content_length(http->client);
    return length > 0 ? length : -1;
}

raw_ota_err_t raw_ota_http_open(raw_ota_http_t *http, const char *url, const raw_ota_options_t *options,
                                raw_ota_result_t *result)
{
    memset(http, 0, sizeof(*http));
    http->result = result;
    http->url = url;
    http->is_tls = is_tls_url(url);
    http->size = -1;
    http->resumed_at = -1;
    http->resumes_left = options->resumes >= 0 ? options->resumes : CONFIG_RAW_OTA_HTTP_RESUMES;
    http->total_timeout_s =
        options->total_timeout_s > 0 ? options->total_timeout_s : CONFIG_RAW_OTA_HTTP_TOTAL_TIMEOUT_S;
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
    raw_ota_err_t err = start_clock(http);
    if (err != RAW_OTA_OK) {
        return err;
    }
    const esp_err_t set = esp_http_client_set_header(http->client, "Accept-Encoding", "identity");
    if (set != ESP_OK) {
        return raw_ota_fail(result, RAW_OTA_NO_MEMORY, set, "no memory for a request header");
    }
    err = request_following_redirects(http, false);
    if (err != RAW_OTA_OK) {
        return err;
    }
    http->size = body_length(http);
    memcpy(http->etag, http->answer.etag, sizeof(http->etag));
    ESP_LOGI(TAG, "status %d, %" PRId64 " bytes", result->http_status, http->size);
    return RAW_OTA_OK;
}

/* Back to where the update was ordered from: the place that a redirect named may have expired. */
static esp_err_t return_to_origin(raw_ota_http_t *http)
{
    const char *scheme_end = strstr(http->url, "://");
    if (!http->is_redirected || scheme_end == NULL) {
        return ESP_OK;
    }
    esp_err_t err = esp_http_client_set_url(http->client, http->url);
    if (err != ESP_OK) {
        return err;
    }
    http->is_redirected = false;
    http->is_tls = is_tls_url(http->url);
    /* Once the host has changed, esp_http_client names it without its port. */
    const char *authority = scheme_end + strlen("://");
    const size_t length = strcspn(authority, "/?#");
    const char *user_end = memchr(authority, '@', length);
    char host[264];
    const char *start = user_end != NULL ? user_end + 1 : authority;
    (void)snprintf(host, sizeof(host), "%.*s", (int)(authority + length - start), start);
    return esp_http_client_set_header(http->client, "Host", host);
}

/* Deleting a header that is not there is no failure. */
static esp_err_t set_or_delete_header(raw_ota_http_t *http, const char *key, const char *value)
{
    if (value[0] != '\0') {
        return esp_http_client_set_header(http->client, key, value);
    }
    const esp_err_t err = esp_http_client_delete_header(http->client, key);
    return err == ESP_ERR_NOT_FOUND ? ESP_OK : err;
}

/* Asks anew, on a connection of its own, for the bytes from `from` on; from 0 for the whole file. */
static raw_ota_err_t ask(raw_ota_http_t *http, int64_t from)
{
    char range[40] = "";
    if (from > 0) {
        (void)snprintf(range, sizeof(range), "bytes=%" PRId64 "-", from);
    }
    leave(http);
    esp_err_t err = return_to_origin(http);
    if (err == ESP_OK) {
        err = set_or_delete_header(http, "Range", range);
    }
    if (err == ESP_OK) {
        /* A server whose file has changed then sends all of it instead of a part that would not fit. */
        err = set_or_delete_header(http, "If-Range", from > 0 ? http->etag : "");
    }
    if (err != ESP_OK) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_CONNECT, err, "the request cannot be repeated");
    }
    return request_following_redirects(http, from > 0);
}

static raw_ota_err_t fail_changed(const raw_ota_http_t *http, const char *what)
{
    return raw_ota_fail(http->result, RAW_OTA_CHANGED, ESP_OK,
                        "the file on the server is not the one that the update began with: another %s", what);
}

/* Nothing that the answer says tells it from the file that the download began with? `size` is what it says of
 * the whole file, -1 when nothing. */
static raw_ota_err_t check_same_file(raw_ota_http_t *http, int64_t size)
{
    if (http->etag[0] != '\0' && http->answer.etag[0] != '\0' && strcmp(http->etag, http->answer.etag) != 0) {
        return fail_changed(http, "ETag");
    }
    if (http->size >= 0 && size >= 0 && size != http->size) {
        return fail_changed(http, "size");
    }
    return RAW_OTA_OK;
}

/* A number of at most 18 digits and the character after it; NULL when it is none. */
static const char *take_number(const char *text, char after, int64_t *number)
{
    const char *end = text;
    while (isdigit((unsigned char)*end)) {
        end++;
    }
    if (end == text || end - text > 18 || *end != after) {
        return NULL;
    }
    *number = strtoll(text, NULL, 10);
    return end + 1;
}

/* `bytes 100-199/200`, or with `*` for a size that is not known (-1). */
static bool parse_content_range(const char *text, int64_t *first, int64_t *last, int64_t *size)
{
    if (strncasecmp(text, "bytes ", strlen("bytes ")) != 0) {
        return false;
    }
    text = take_number(text + strlen("bytes "), '-', first);
    if (text != NULL) {
        text = take_number(text, '/', last);
    }
    if (text == NULL) {
        return false;
    }
    *size = -1;
    return strcmp(text, "*") == 0 || take_number(text, '\0', size) != NULL;
}

/* The answer with status 206 holds all bytes from `position` on? It may also tell that the file has changed.
 */
static raw_ota_err_t check_rest(raw_ota_http_t *http, bool *is_rest)
{
    int64_t first = 0;
    int64_t last = 0;
    int64_t size = -1;
    *is_rest = false;
    if (!parse_content_range(http->answer.content_range, &first, &last, &size)) {
        return RAW_OTA_OK;
    }
    const raw_ota_err_t err = check_same_file(http, size);
    if (err != RAW_OTA_OK) {
        return err;
    }
    const int64_t length = body_length(http);
    const int64_t end = size >= 0 ? size : http->size;
    *is_rest = first == http->position && last + 1 == end && (length < 0 || length == end - first);
    if (*is_rest) {
        http->size = end;
    }
    return RAW_OTA_OK;
}

/* Reads from the connection: > 0 bytes, 0 at the end of the answer, -1 when it broke (explain() says how). */
static int take(raw_ota_http_t *http, uint8_t *buffer, size_t capacity)
{
    http->last_errno = 0;
    http->last_read = -1;
    if (!begin_wait(http)) {
        return -1;
    }
    const int got = esp_http_client_read(http->client, (char *)buffer, (int)capacity);
    end_wait();
    if (got > 0) {
        return got;
    }
    /* All that had come was handed out. */
    http->is_answered = false;
    http->last_read = got;
    if (got == 0 && esp_http_client_is_complete_data_received(http->client)) {
        return 0;
    }
    /* Reading the errno also clears it: each break is judged by its own. After a clean close that ended a
     * partly filled read, lwIP answers the next one with ENOTCONN. */
    const int error = esp_http_client_get_errno(http->client);
    http->last_errno = error == ENOTCONN ? 0 : error;
    return -1;
}

/* What a read that gave no bytes means; `at` is where in the file. */
static raw_ota_err_t explain(const raw_ota_http_t *http, int64_t at)
{
    if (is_overdue(http)) {
        return fail_overdue(http);
    }
    if (http->last_read == -ESP_ERR_HTTP_EAGAIN) {
        return raw_ota_fail(http->result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN,
                            "no data for %d ms at byte %" PRId64, CONFIG_RAW_OTA_HTTP_TIMEOUT_MS, at);
    }
    if (http->last_errno == 0) {
        return raw_ota_fail(http->result, RAW_OTA_TRUNCATED, ESP_ERR_HTTP_CONNECTION_CLOSED,
                            "the server closed the connection at byte %" PRId64 " of %" PRId64, at,
                            http->size);
    }
    return raw_ota_fail(http->result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_CONNECTION_CLOSED,
                        "connection broke at byte %" PRId64 " (errno %d)", at, http->last_errno);
}

/* Reads away, from an answer with the whole file, what was handed out before: it must be the same bytes. */
static raw_ota_err_t skip_known(raw_ota_http_t *http)
{
    raw_ota_err_t err = check_same_file(http, body_length(http));
    if (err != RAW_OTA_OK) {
        return err;
    }
    uint8_t piece[256];
    uint32_t crc = 0;
    for (int64_t at = 0; at < http->position;) {
        const int64_t left = http->position - at;
        const int got = take(http, piece, left < (int64_t)sizeof(piece) ? (size_t)left : sizeof(piece));
        if (got <= 0) {
            return explain(http, at);
        }
        crc = esp_rom_crc32_le(crc, piece, (uint32_t)got);
        at += got;
    }
    if (crc != http->crc) {
        return fail_changed(http, "content");
    }
    if (http->size < 0) {
        http->size = body_length(http);
    }
    return RAW_OTA_OK;
}

/* Makes one attempt to get the client to where the next byte comes from. */
static raw_ota_err_t reach_next_byte(raw_ota_http_t *http)
{
    raw_ota_err_t err = ask(http, http->position);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (http->result->http_status != HttpStatus_Ok) {
        bool is_rest = false;
        if (http->result->http_status == STATUS_PARTIAL_CONTENT) {
            err = check_rest(http, &is_rest);
        }
        if (err != RAW_OTA_OK || is_rest) {
            return err;
        }
        ESP_LOGW(TAG, "the server answered %d, not the rest", http->result->http_status);
        err = ask(http, 0);
        if (err != RAW_OTA_OK) {
            return err;
        }
    }
    if (http->position > 0) {
        ESP_LOGW(TAG, "starting over: reading away %" PRId64 " bytes", http->position);
    }
    return skip_known(http);
}

/* Another attempt may end better? */
static bool may_pass(const raw_ota_http_t *http, raw_ota_err_t err)
{
    const int status = http->result->http_status;
    return err == RAW_OTA_HTTP_CONNECT || err == RAW_OTA_HTTP_TIMEOUT || err == RAW_OTA_HTTP_READ ||
           err == RAW_OTA_TRUNCATED ||
           (err == RAW_OTA_HTTP_STATUS &&
            (status / 100 == 5 || status == STATUS_REQUEST_TIMEOUT || status == STATUS_TOO_MANY_REQUESTS));
}

/* Goes on after a broken transfer. What the failure is when that is not possible: of the last attempt, or,
 * when there is none left, of the break itself. */
static raw_ota_err_t resume(raw_ota_http_t *http)
{
    raw_ota_err_t err = RAW_OTA_OK;
    while (http->resumes_left > 0 && !is_overdue(http)) {
        http->resumes_left--;
        http->result->resumes++;
        ESP_LOGW(TAG, "transfer broke at byte %" PRId64 " of %" PRId64 ", asking for the rest",
                 http->position, http->size);
        if (http->position == http->resumed_at) {
            /* The last attempt brought nothing: a server that comes back, or a network, takes a moment. */
            vTaskDelay(pdMS_TO_TICKS(CONFIG_RAW_OTA_HTTP_RESUME_PAUSE_MS));
        }
        http->resumed_at = http->position;
        err = reach_next_byte(http);
        if (err == RAW_OTA_OK) {
            /* Failed attempts before this one are forgotten. */
            http->result->error = RAW_OTA_OK;
            http->result->code = ESP_OK;
            http->result->message[0] = '\0';
            return RAW_OTA_OK;
        }
        if (!may_pass(http, err)) {
            return err;
        }
    }
    return err != RAW_OTA_OK ? err : explain(http, http->position);
}

int raw_ota_http_read(void *context, uint8_t *buffer, size_t capacity)
{
    raw_ota_http_t *http = context;
    for (;;) {
        const int got = take(http, buffer, capacity);
        if (got > 0) {
            http->crc = esp_rom_crc32_le(http->crc, buffer, (uint32_t)got);
            http->position += got;
            return got;
        }
        if (got == 0 && http->position >= http->size) {
            return 0;
        }
        const raw_ota_err_t err = resume(http);
        if (err != RAW_OTA_OK) {
            return -(int)err;
        }
    }
}

void raw_ota_http_expect(void *context, int64_t size)
{
    raw_ota_http_t *http = context;
    if (http->size < 0) {
        http->size = size;
    }
}

void raw_ota_http_close(raw_ota_http_t *http)
{
    stop_clock(http);
    if (http->client != NULL) {
        (void)esp_http_client_cleanup(http->client);
        http->client = NULL;
    }
}
