#include "stock_ota.h"

#include <inttypes.h>
#include <string.h>

#include "esp_http_client.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "idle_turn.h"
#include "sdkconfig.h"

static const char *TAG = "stock_ota";

static raw_ota_err_t fail(stock_ota_result_t *result, raw_ota_err_t error, esp_err_t code, const char *step)
{
    result->step = step;
    result->code = code;
    ESP_LOGE(TAG, "%s failed: %s (0x%x)", step, esp_err_to_name(code), (unsigned)code);
    return error;
}

static raw_ota_err_t fail_esp(stock_ota_result_t *result, esp_err_t code, const char *step)
{
    return fail(result, raw_ota_err_from_esp(code), code, step);
}

static esp_http_client_handle_t new_client(const char *url)
{
    const esp_http_client_config_t config = {
        .url = url,
        .timeout_ms = CONFIG_RAW_OTA_HTTP_TIMEOUT_MS,
        .buffer_size_tx = 1024,
        .keep_alive_enable = true,
    };
    return esp_http_client_init(&config);
}

/* Sends the request and reads the answer's headers. */
static raw_ota_err_t get(esp_http_client_handle_t client, stock_ota_result_t *result)
{
    const esp_err_t opened = esp_http_client_open(client, 0);
    if (opened != ESP_OK) {
        return fail(result, RAW_OTA_HTTP_CONNECT, opened, "esp_http_client_open");
    }
    result->length = esp_http_client_fetch_headers(client);
    if (result->length == -ESP_ERR_HTTP_EAGAIN) {
        return fail(result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN, "esp_http_client_fetch_headers");
    }
    if (result->length < 0) {
        return fail(result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_FETCH_HEADER, "esp_http_client_fetch_headers");
    }
    result->http_status = esp_http_client_get_status_code(client);
    return RAW_OTA_OK;
}

/* Download into an open handle. */
static raw_ota_err_t copy(esp_http_client_handle_t client, esp_ota_handle_t handle,
                          stock_ota_result_t *result)
{
    static char s_piece[1024]; /* belongs to the holder of the lock */
    int64_t rested_us = 0;
    for (;;) {
        const int got = esp_http_client_read(client, s_piece, sizeof(s_piece));
        if (got == -ESP_ERR_HTTP_EAGAIN) {
            return fail(result, RAW_OTA_HTTP_TIMEOUT, ESP_ERR_HTTP_EAGAIN, "esp_http_client_read");
        }
        if (got < 0 || (got == 0 && !esp_http_client_is_complete_data_received(client))) {
            return fail(result, RAW_OTA_HTTP_READ, ESP_ERR_HTTP_CONNECTION_CLOSED, "esp_http_client_read");
        }
        if (got == 0) {
            return RAW_OTA_OK;
        }
        const esp_err_t written = esp_ota_write(handle, s_piece, (size_t)got);
        if (written != ESP_OK) {
            return fail_esp(result, written, "esp_ota_write");
        }
        result->bytes += (uint32_t)got;
        idle_turn(&rested_us);
    }
}

static raw_ota_err_t install(esp_http_client_handle_t client, stock_ota_result_t *result)
{
    raw_ota_err_t err = get(client, result);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (result->http_status != HttpStatus_Ok) {
        return fail(result, RAW_OTA_HTTP_STATUS, ESP_OK, "status of the answer");
    }
    const esp_partition_t *slot = esp_ota_get_next_update_partition(NULL);
    if (slot == NULL) {
        return fail(result, RAW_OTA_NO_SLOT, ESP_ERR_NOT_FOUND, "esp_ota_get_next_update_partition");
    }
    ESP_LOGI(TAG, "writing to %s at 0x%" PRIx32, slot->label, slot->address);
    esp_ota_handle_t handle = 0;
    esp_err_t code = esp_ota_begin(slot, OTA_SIZE_UNKNOWN, &handle);
    if (code != ESP_OK) {
        return fail_esp(result, code, "esp_ota_begin");
    }
    err = copy(client, handle, result);
    if (err != RAW_OTA_OK) {
        (void)esp_ota_abort(handle);
        return err;
    }
    code = esp_ota_end(handle);
    if (code != ESP_OK) {
        return fail_esp(result, code, "esp_ota_end");
    }
    code = esp_ota_set_boot_partition(slot);
    return code == ESP_OK ? RAW_OTA_OK : fail_esp(result, code, "esp_ota_set_boot_partition");
}

/* Runs `work` with a client for `url`. */
static raw_ota_err_t with_client(const char *url, stock_ota_result_t *result,
                                 raw_ota_err_t (*work)(esp_http_client_handle_t, stock_ota_result_t *))
{
    esp_http_client_handle_t client = new_client(url);
    if (client == NULL) {
        return fail(result, RAW_OTA_HTTP_CONNECT, ESP_ERR_INVALID_ARG, "esp_http_client_init");
    }
    const raw_ota_err_t err = work(client, result);
    (void)esp_http_client_cleanup(client);
    return err;
}

raw_ota_err_t stock_ota_update(const char *url, stock_ota_result_t *result)
{
    memset(result, 0, sizeof(*result));
    if (!raw_ota_lock()) {
        return fail(result, RAW_OTA_BUSY, ESP_OK, "taking the update lock");
    }
    const raw_ota_err_t err = with_client(url, result, install);
    raw_ota_unlock();
    return err;
}

raw_ota_err_t stock_ota_probe(const char *url, stock_ota_result_t *result)
{
    memset(result, 0, sizeof(*result));
    return with_client(url, result, get);
}
