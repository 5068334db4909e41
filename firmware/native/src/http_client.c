/*
 * esp_http_client, the open / fetch_headers / read way, with what ESP-IDF v5.5.5's client returns: no
 * Content-Length counts as chunked and fetch_headers gives 0; a time-out with nothing read gives
 * -ESP_ERR_HTTP_EAGAIN, with something read that much; redirects are left to the caller; bytes of a body that
 * came with the headers stay cached, even over a close; after an interim answer (1xx) fetch_headers may be
 * called again. No call has a limit of its own: bytes that never make a header are read until the connection
 * ends.
 */
#include "esp_http_client.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "esp_log.h"
#include "http_response.h"
#include "tcp.h"
#include "url.h"

static const char *TAG = "HTTP_CLIENT";

#define DEFAULT_BUFFER_SIZE 512
#define DEFAULT_TIMEOUT_MS 5000
#define MAX_HEADERS 8

typedef enum {
    STATE_INIT,
    STATE_CONNECTED,
    STATE_REQUEST_SENT,
    STATE_HEADERS_COMPLETE,
    STATE_DATA,
} state_t;

struct esp_http_client {
    esp_http_client_config_t config;
    atomic_int timeout_ms; /* may be set by another thread while a call waits */
    state_t state;
    int socket;
    char scheme[8];
    char host[URL_HOST_SIZE];
    int port;
    char path[URL_PATH_SIZE];
    struct {
        char *key;
        char *value;
    } headers[MAX_HEADERS];
    size_t header_count;
    char *location;
    char *buffer; /* one read from the connection */
    http_response_t response;
    int status_code;
    int64_t content_length;
    bool is_chunked;
    bool is_complete;  /* the parser has seen the end of the answer */
    int64_t processed; /* bytes of the body seen by the parser */
    char *cached;      /* body bytes that came with the headers */
    size_t cached_size;
    size_t cached_at;
    int last_errno;
    char *output; /* where the parser puts body bytes; NULL: into the cache */
    size_t output_size;
};

static int default_port(const char *scheme)
{
    return strcasecmp(scheme, "https") == 0 ? 443 : 80;
}

static void drop_cache(esp_http_client_handle_t client)
{
    free(client->cached);
    client->cached = NULL;
    client->cached_size = 0;
    client->cached_at = 0;
}

static char *copy_text(const char *text)
{
    char *copy = malloc(strlen(text) + 1);
    if (copy != NULL) {
        memcpy(copy, text, strlen(text) + 1);
    }
    return copy;
}

esp_err_t esp_http_client_set_header(esp_http_client_handle_t client, const char *key, const char *value)
{
    char *copy = copy_text(value);
    if (copy == NULL) {
        return ESP_ERR_NO_MEM;
    }
    for (size_t i = 0; i < client->header_count; i++) {
        if (strcasecmp(client->headers[i].key, key) == 0) {
            free(client->headers[i].value);
            client->headers[i].value = copy;
            return ESP_OK;
        }
    }
    char *key_copy = client->header_count < MAX_HEADERS ? copy_text(key) : NULL;
    if (key_copy == NULL) {
        free(copy);
        return ESP_ERR_NO_MEM;
    }
    client->headers[client->header_count].key = key_copy;
    client->headers[client->header_count].value = copy;
    client->header_count++;
    return ESP_OK;
}

esp_err_t esp_http_client_delete_header(esp_http_client_handle_t client, const char *key)
{
    for (size_t i = 0; i < client->header_count; i++) {
        if (strcasecmp(client->headers[i].key, key) == 0) {
            free(client->headers[i].key);
            free(client->headers[i].value);
            client->header_count--;
            memmove(&client->headers[i], &client->headers[i + 1],
                    (client->header_count - i) * sizeof(client->headers[0]));
            return ESP_OK;
        }
    }
    return ESP_ERR_NOT_FOUND;
}

esp_err_t esp_http_client_set_timeout_ms(esp_http_client_handle_t client, int timeout_ms)
{
    if (client == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    client->timeout_ms = timeout_ms;
    return ESP_OK;
}

esp_err_t esp_http_client_set_url(esp_http_client_handle_t client, const char *url)
{
    url_t parsed;
    if (!url_parse(url, &parsed)) {
        ESP_LOGE(TAG, "Error parse url %s", url);
        return ESP_ERR_INVALID_ARG;
    }
    const int old_port = client->port;
    if (parsed.scheme[0] != '\0') {
        const bool other_host = client->host[0] != '\0' && strcasecmp(client->host, parsed.host) != 0;
        memcpy(client->host, parsed.host, sizeof(client->host));
        memcpy(client->scheme, parsed.scheme, sizeof(client->scheme));
        client->port = parsed.port != 0 ? parsed.port : default_port(parsed.scheme);
        if (other_host) {
            /* Without the port, unlike the first time: so does ESP-IDF. */
            const esp_err_t err = esp_http_client_set_header(client, "Host", client->host);
            if (err != ESP_OK) {
                return err;
            }
        }
        if (other_host || client->port != old_port) {
            drop_cache(client);
            (void)esp_http_client_close(client);
        }
    }
    memcpy(client->path, parsed.path, sizeof(client->path));
    return ESP_OK;
}

esp_http_client_handle_t esp_http_client_init(const esp_http_client_config_t *config)
{
    esp_http_client_handle_t client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return NULL;
    }
    client->config = *config;
    client->socket = -1;
    if (client->config.buffer_size == 0) {
        client->config.buffer_size = DEFAULT_BUFFER_SIZE;
    }
    if (client->config.buffer_size_tx == 0) {
        client->config.buffer_size_tx = DEFAULT_BUFFER_SIZE;
    }
    client->timeout_ms = config->timeout_ms != 0 ? config->timeout_ms : DEFAULT_TIMEOUT_MS;
    client->buffer = malloc((size_t)client->config.buffer_size);
    if (client->buffer == NULL || config->url == NULL ||
        esp_http_client_set_url(client, config->url) != ESP_OK || client->host[0] == '\0') {
        (void)esp_http_client_cleanup(client);
        return NULL;
    }
    char host[URL_HOST_SIZE + 16];
    const bool is_ipv6 = strchr(client->host, ':') != NULL;
    int length = snprintf(host, sizeof(host), is_ipv6 ? "[%s]" : "%s", client->host);
    if (client->port != 80 && client->port != 443) {
        length += snprintf(host + length, sizeof(host) - (size_t)length, ":%d", client->port);
    }
    if (esp_http_client_set_header(client, "User-Agent", "ESP32 HTTP Client/1.0") != ESP_OK ||
        esp_http_client_set_header(client, "Host", host) != ESP_OK) {
        (void)esp_http_client_cleanup(client);
        return NULL;
    }
    return client;
}

esp_err_t esp_http_client_close(esp_http_client_handle_t client)
{
    if (client->state > STATE_INIT) {
        client->state = STATE_INIT;
        (void)close(client->socket);
        client->socket = -1;
    }
    return ESP_OK;
}

esp_err_t esp_http_client_cleanup(esp_http_client_handle_t client)
{
    if (client == NULL) {
        return ESP_FAIL;
    }
    (void)esp_http_client_close(client);
    for (size_t i = 0; i < client->header_count; i++) {
        free(client->headers[i].key);
        free(client->headers[i].value);
    }
    drop_cache(client);
    free(client->location);
    free(client->buffer);
    free(client);
    return ESP_OK;
}

static void on_begin(void *context)
{
    esp_http_client_handle_t client = context;
    client->is_chunked = false;
    client->is_complete = false;
}

static void on_complete(void *context)
{
    esp_http_client_handle_t client = context;
    client->is_complete = true;
}

static void on_header(void *context, char *key, char *value)
{
    esp_http_client_handle_t client = context;
    if (strcasecmp(key, "Location") == 0) {
        free(client->location);
        client->location = copy_text(value);
    }
    if (client->config.event_handler != NULL) {
        esp_http_client_event_t event = {
            .event_id = HTTP_EVENT_ON_HEADER,
            .client = client,
            .user_data = client->config.user_data,
            .header_key = key,
            .header_value = value,
        };
        (void)client->config.event_handler(&event);
    }
}

static void on_headers_complete(void *context)
{
    esp_http_client_handle_t client = context;
    client->status_code = client->response.status_code;
    client->content_length = (int64_t)client->response.length; /* beyond 63 bits, as in ESP-IDF, none */
    client->is_chunked = client->response.is_chunked;
    client->processed = 0;
    client->state = STATE_HEADERS_COMPLETE;
}

static void on_body(void *context, const char *bytes, size_t size)
{
    esp_http_client_handle_t client = context;
    client->processed += (int64_t)size;
    if (client->output != NULL) {
        memcpy(client->output + client->output_size, bytes, size);
        client->output_size += size;
        return;
    }
    char *grown = realloc(client->cached, client->cached_size + size);
    if (grown == NULL) {
        ESP_LOGE(TAG, "Failed to allocate memory for storing decoded data");
        return;
    }
    memcpy(grown + client->cached_size, bytes, size);
    client->cached = grown;
    client->cached_size += size;
}

static esp_err_t connect_client(esp_http_client_handle_t client)
{
    static const http_response_calls_t CALLS = {.on_begin = on_begin,
                                                .on_header = on_header,
                                                .on_headers_complete = on_headers_complete,
                                                .on_body = on_body,
                                                .on_complete = on_complete};
    free(client->location);
    client->location = NULL;
    client->processed = 0;
    http_response_start(&client->response, &CALLS, client);
    if (client->state >= STATE_CONNECTED) {
        return ESP_OK;
    }
    if (strcasecmp(client->scheme, "http") != 0) {
        ESP_LOGE(TAG, "No transport found");
        return ESP_ERR_HTTP_INVALID_TRANSPORT;
    }
    esp_err_t error = ESP_OK;
    client->socket = tcp_connect(client->host, client->port, client->timeout_ms, &error);
    if (client->socket < 0) {
        ESP_LOGE("transport_base", "Failed to open a new connection: %d", error);
        ESP_LOGE(TAG, "Connection failed, sock < 0");
        return ESP_ERR_HTTP_CONNECT;
    }
    client->state = STATE_CONNECTED;
    return ESP_OK;
}

esp_err_t esp_http_client_open(esp_http_client_handle_t client, int write_len)
{
    (void)write_len; /* GET only */
    const esp_err_t err = connect_client(client);
    if (err != ESP_OK) {
        return err;
    }
    char request[4096];
    int length = snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\n", client->path);
    if (length >= client->config.buffer_size_tx) {
        ESP_LOGE(TAG, "Out of buffer");
        return ESP_FAIL;
    }
    for (size_t i = 0; i < client->header_count && (size_t)length < sizeof(request); i++) {
        length += snprintf(request + length, sizeof(request) - (size_t)length, "%s: %s\r\n",
                           client->headers[i].key, client->headers[i].value);
    }
    if ((size_t)length + 2 >= sizeof(request)) {
        ESP_LOGE(TAG, "Out of buffer");
        return ESP_FAIL;
    }
    memcpy(request + length, "\r\n", 2);
    if (tcp_write(client->socket, request, (size_t)length + 2, client->timeout_ms) != 0) {
        ESP_LOGE(TAG, "Error write request");
        (void)esp_http_client_close(client);
        return ESP_ERR_HTTP_WRITE_DATA;
    }
    client->state = STATE_REQUEST_SENT;
    return ESP_OK;
}

int64_t esp_http_client_fetch_headers(esp_http_client_handle_t client)
{
    if (client->state < STATE_REQUEST_SENT) {
        return ESP_FAIL;
    }
    client->state = STATE_REQUEST_SENT;
    client->status_code = -1;
    client->output = NULL;
    while (client->state < STATE_HEADERS_COMPLETE) {
        const int got =
            tcp_read(client->socket, client->buffer, (size_t)client->config.buffer_size, client->timeout_ms);
        if (got == TCP_TIMEOUT) {
            ESP_LOGW(TAG, "Connection timed out before data was ready!");
            return -ESP_ERR_HTTP_EAGAIN;
        }
        if (got < 0) {
            client->last_errno = got == TCP_FAILED ? errno : 0;
            return ESP_FAIL;
        }
        http_response_feed(&client->response, client->buffer, (size_t)got);
    }
    client->state = STATE_DATA;
    if (client->content_length <= 0) {
        client->is_chunked = true;
        return 0;
    }
    return client->content_length;
}

bool esp_http_client_is_complete_data_received(esp_http_client_handle_t client)
{
    if (client->is_chunked) {
        return client->is_complete;
    }
    return client->processed == client->content_length;
}

/* Takes what is left of the cached bytes. */
static int take_cached(esp_http_client_handle_t client, char *buffer, int len)
{
    const size_t left = client->cached_size - client->cached_at;
    const size_t taken = left < (size_t)len ? left : (size_t)len;
    if (taken > 0) {
        memcpy(buffer, client->cached + client->cached_at, taken);
        client->cached_at += taken;
    }
    if (client->cached_at == client->cached_size) {
        drop_cache(client);
    }
    return (int)taken;
}

/* What a read that brought nothing from the connection comes to. */
static int end_read(esp_http_client_handle_t client, int got, int filled)
{
    if (got == TCP_CLOSED && client->is_chunked) {
        http_response_end(&client->response);
    }
    if (got == TCP_TIMEOUT) {
        return filled > 0 ? filled : -ESP_ERR_HTTP_EAGAIN;
    }
    if (got == TCP_FAILED) {
        client->last_errno = errno;
        ESP_LOGE(TAG, "transport_read: error - %d | %s", ESP_FAIL, esp_err_to_name(ESP_FAIL));
    }
    if (filled == 0 && !esp_http_client_is_complete_data_received(client)) {
        return ESP_FAIL;
    }
    return filled;
}

int esp_http_client_read(esp_http_client_handle_t client, char *buffer, int len)
{
    int filled = take_cached(client, buffer, len);
    while (filled < len) {
        const bool more =
            client->is_chunked ? !client->is_complete : client->processed < client->content_length;
        if (!more) {
            break;
        }
        const int wanted =
            len - filled < client->config.buffer_size ? len - filled : client->config.buffer_size;
        const int got = tcp_read(client->socket, client->buffer, (size_t)wanted, client->timeout_ms);
        if (got <= 0) {
            return end_read(client, got, filled);
        }
        client->output = buffer + filled;
        client->output_size = 0;
        http_response_feed(&client->response, client->buffer, (size_t)got);
        filled += (int)client->output_size;
        client->output = NULL;
    }
    return filled;
}

esp_err_t esp_http_client_set_redirection(esp_http_client_handle_t client)
{
    if (client->location == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    if (strcasecmp(client->scheme, "https") == 0 && strncasecmp(client->location, "https://", 8) != 0) {
        return ESP_ERR_HTTP_BASE + 13;
    }
    return esp_http_client_set_url(client, client->location);
}

int esp_http_client_get_errno(esp_http_client_handle_t client)
{
    const int last = client->last_errno;
    client->last_errno = 0;
    return last;
}

int esp_http_client_get_status_code(esp_http_client_handle_t client)
{
    return client->status_code;
}

int64_t esp_http_client_get_content_length(esp_http_client_handle_t client)
{
    return client->content_length;
}

bool esp_http_client_is_chunked_response(esp_http_client_handle_t client)
{
    return client->is_chunked;
}

int esp_http_client_get_socket(esp_http_client_handle_t client)
{
    return client == NULL ? -1 : client->socket;
}
