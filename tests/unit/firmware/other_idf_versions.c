/* raw_ota's HTTP source and error table with an ESP-IDF that the port does not stand for: its client goes
 * where any redirect points, as that of v5.3, v5.4 and v6.0 does, and it has an error that came with v6.1.
 *
 *   other_idf_versions follow URL [LOCATION]...   prints the error's name and the places that were asked
 *   other_idf_versions name CODE                  prints the name for an esp_err_t
 */
#define ESP_ERR_OTA_ALREADY_IN_PROGRESS 0x1507

#include <stdarg.h>

#include "raw_ota_errors.c"
#undef TAG
#define TAG TAG_OF_HTTP
#include "raw_ota_http.c"

struct esp_http_client {
    esp_http_client_config_t config;
    const char *place;
    char **locations; /* of the answers to come, NULL at the end */
    const char *location;
};

static struct esp_http_client s_client;

esp_http_client_handle_t esp_http_client_init(const esp_http_client_config_t *config)
{
    s_client.config = *config;
    s_client.place = config->url;
    return &s_client;
}

esp_err_t esp_http_client_open(esp_http_client_handle_t client, int write_len)
{
    (void)write_len;
    (void)fputs(client->place, stdout);
    (void)fputc('\n', stdout);
    client->location = *client->locations;
    if (client->location != NULL) {
        client->locations++;
    }
    return ESP_OK;
}

int64_t esp_http_client_fetch_headers(esp_http_client_handle_t client)
{
    char key[] = "Location";
    if (client->location != NULL) {
        esp_http_client_event_t event = {
            .event_id = HTTP_EVENT_ON_HEADER,
            .client = client,
            .user_data = client->config.user_data,
            .header_key = key,
            .header_value = (char *)client->location,
        };
        (void)client->config.event_handler(&event);
    }
    return 0;
}

int esp_http_client_get_status_code(esp_http_client_handle_t client)
{
    return client->location != NULL ? HttpStatus_Found : HttpStatus_Ok;
}

esp_err_t esp_http_client_set_redirection(esp_http_client_handle_t client)
{
    return esp_http_client_set_url(client, client->location);
}

esp_err_t esp_http_client_set_url(esp_http_client_handle_t client, const char *url)
{
    client->place = url;
    return ESP_OK;
}

esp_err_t esp_http_client_set_header(esp_http_client_handle_t client, const char *key, const char *value)
{
    (void)client;
    (void)key;
    (void)value;
    return ESP_OK;
}

esp_err_t esp_http_client_delete_header(esp_http_client_handle_t client, const char *key)
{
    (void)client;
    (void)key;
    return ESP_OK;
}

esp_err_t esp_http_client_set_timeout_ms(esp_http_client_handle_t client, int timeout_ms)
{
    (void)client;
    (void)timeout_ms;
    return ESP_OK;
}

bool esp_http_client_is_chunked_response(esp_http_client_handle_t client)
{
    (void)client;
    return false;
}

int esp_http_client_read(esp_http_client_handle_t client, char *buffer, int len)
{
    (void)client;
    (void)buffer;
    (void)len;
    return 0;
}

int esp_http_client_get_errno(esp_http_client_handle_t client)
{
    (void)client;
    return 0;
}

int64_t esp_http_client_get_content_length(esp_http_client_handle_t client)
{
    (void)client;
    return 0;
}

bool esp_http_client_is_complete_data_received(esp_http_client_handle_t client)
{
    (void)client;
    return true;
}

esp_err_t esp_http_client_close(esp_http_client_handle_t client)
{
    (void)client;
    return ESP_OK;
}

esp_err_t esp_http_client_cleanup(esp_http_client_handle_t client)
{
    (void)client;
    return ESP_OK;
}

int esp_http_client_get_socket(esp_http_client_handle_t client)
{
    (void)client;
    return -1;
}

SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *memory)
{
    return memory;
}

BaseType_t xSemaphoreTake(SemaphoreHandle_t semaphore, TickType_t ticks)
{
    (void)semaphore;
    (void)ticks;
    return pdTRUE;
}

BaseType_t xSemaphoreGive(SemaphoreHandle_t semaphore)
{
    (void)semaphore;
    return pdTRUE;
}

int64_t esp_timer_get_time(void)
{
    return 0;
}

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle)
{
    (void)create_args;
    (void)out_handle;
    return ESP_OK;
}

esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us)
{
    (void)timer;
    (void)timeout_us;
    return ESP_OK;
}

esp_err_t esp_timer_stop(esp_timer_handle_t timer)
{
    (void)timer;
    return ESP_OK;
}

esp_err_t esp_timer_delete(esp_timer_handle_t timer)
{
    (void)timer;
    return ESP_OK;
}

uint32_t esp_rom_crc32_le(uint32_t crc, const uint8_t *buffer, uint32_t length)
{
    (void)buffer;
    (void)length;
    return crc;
}

void vTaskDelay(TickType_t ticks)
{
    (void)ticks;
}

const char *esp_err_to_name(esp_err_t code)
{
    (void)code;
    return "";
}

void native_log(esp_log_level_t level, const char *tag, const char *format, ...)
{
    (void)level;
    (void)tag;
    (void)format;
}

int main(int count, char **words)
{
    if (count == 3 && strcmp(words[1], "name") == 0) {
        (void)puts(raw_ota_err_name(raw_ota_err_from_esp((esp_err_t)strtol(words[2], NULL, 0))));
        return 0;
    }
    if (count < 3 || strcmp(words[1], "follow") != 0) {
        return 2;
    }
    const raw_ota_options_t options = RAW_OTA_OPTIONS_DEFAULT();
    raw_ota_http_t http;
    raw_ota_result_t result;
    memset(&result, 0, sizeof(result));
    s_client.locations = words + 3;
    (void)puts(raw_ota_err_name(raw_ota_http_open(&http, words[2], &options, &result)));
    raw_ota_http_close(&http);
    return 0;
}
