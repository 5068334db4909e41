/* Wi-Fi station. Credentials come by command and stay in RAM: WIFI_STORAGE_RAM, and nothing logs them. */
#include <stdbool.h>
#include <string.h>

#include "esp_check.h"
#include "esp_event.h"
#include "esp_wifi.h"
#include "network_driver.h"

static const char *TAG = "wifi";

const char *const network_driver_name = "wifi";

/* A station that is refused so often in a row gives up; the next `wifi` tries anew. */
#define MAX_ATTEMPTS 10

static int s_attempts_left;

static void on_wifi_event(void *context, esp_event_base_t base, int32_t id, void *data)
{
    (void)context;
    (void)base;
    (void)data;
    if (id == WIFI_EVENT_STA_CONNECTED) {
        s_attempts_left = MAX_ATTEMPTS;
    } else if (id == WIFI_EVENT_STA_DISCONNECTED && s_attempts_left > 0) {
        s_attempts_left--;
        (void)esp_wifi_connect();
    }
}

esp_err_t network_driver_start(bool *waits)
{
    *waits = false;
    ESP_RETURN_ON_FALSE(esp_netif_create_default_wifi_sta() != NULL, ESP_ERR_NO_MEM, TAG, "no memory");
    const wifi_init_config_t config = WIFI_INIT_CONFIG_DEFAULT();
    ESP_RETURN_ON_ERROR(esp_wifi_init(&config), TAG, "esp_wifi_init");
    ESP_RETURN_ON_ERROR(esp_wifi_set_storage(WIFI_STORAGE_RAM), TAG, "esp_wifi_set_storage");
    ESP_RETURN_ON_ERROR(esp_event_handler_register(WIFI_EVENT, ESP_EVENT_ANY_ID, on_wifi_event, NULL), TAG,
                        "esp_event_handler_register");
    ESP_RETURN_ON_ERROR(esp_wifi_set_mode(WIFI_MODE_STA), TAG, "esp_wifi_set_mode");
    ESP_RETURN_ON_ERROR(esp_wifi_start(), TAG, "esp_wifi_start");
    /* A bench has current to spare; sleeping between beacons would only make downloads slow. */
    return esp_wifi_set_ps(WIFI_PS_NONE);
}

esp_err_t network_driver_join(const char *ssid, const char *password)
{
    wifi_config_t config = {0};
    if (strlen(ssid) > sizeof(config.sta.ssid) || strlen(password) > sizeof(config.sta.password)) {
        return ESP_ERR_INVALID_ARG;
    }
    memcpy(config.sta.ssid, ssid, strlen(ssid));
    memcpy(config.sta.password, password, strlen(password));
    s_attempts_left = 0;
    (void)esp_wifi_disconnect();
    const esp_err_t err = esp_wifi_set_config(WIFI_IF_STA, &config);
    memset(&config, 0, sizeof(config));
    ESP_RETURN_ON_ERROR(err, TAG, "esp_wifi_set_config");
    s_attempts_left = MAX_ATTEMPTS;
    return esp_wifi_connect();
}
