#include "network.h"

#include <stdio.h>
#include <string.h>

#include "esp_event.h"
#include "esp_log.h"
#include "esp_netif.h"
#include "freertos/event_groups.h"
#include "freertos/FreeRTOS.h"
#include "network_driver.h"
#include "sdkconfig.h"

static const char *TAG = "network";

#define HAS_ADDRESS BIT0

static StaticEventGroup_t s_events_memory;
static EventGroupHandle_t s_events;
static char s_address[NETWORK_ADDRESS_SIZE];

static void on_ip_event(void *context, esp_event_base_t base, int32_t id, void *data)
{
    (void)context;
    (void)base;
    if (id == IP_EVENT_ETH_GOT_IP || id == IP_EVENT_STA_GOT_IP) {
        const ip_event_got_ip_t *got = data;
        (void)snprintf(s_address, sizeof(s_address), IPSTR, IP2STR(&got->ip_info.ip));
        (void)xEventGroupSetBits(s_events, HAS_ADDRESS);
    } else if (id == IP_EVENT_ETH_LOST_IP || id == IP_EVENT_STA_LOST_IP) {
        (void)xEventGroupClearBits(s_events, HAS_ADDRESS);
    }
}

static bool wait_for_address(void)
{
    const EventBits_t bits = xEventGroupWaitBits(s_events, HAS_ADDRESS, pdFALSE, pdFALSE,
                                                 pdMS_TO_TICKS(CONFIG_COMPANION_NET_WAIT_MS));
    return (bits & HAS_ADDRESS) != 0;
}

void network_start(void)
{
    s_events = xEventGroupCreateStatic(&s_events_memory);
    bool waits = false;
    esp_err_t err = esp_netif_init();
    if (err == ESP_OK) {
        err = esp_event_loop_create_default();
    }
    if (err == ESP_OK) {
        err = esp_event_handler_register(IP_EVENT, ESP_EVENT_ANY_ID, on_ip_event, NULL);
    }
    if (err == ESP_OK) {
        err = network_driver_start(&waits);
    }
    if (err != ESP_OK) {
        ESP_LOGE(TAG, "%s: %s", network_driver_name, esp_err_to_name(err));
    } else if (waits && !wait_for_address()) {
        ESP_LOGW(TAG, "no address after %d ms", CONFIG_COMPANION_NET_WAIT_MS);
    }
}

esp_err_t network_join(const char *ssid, const char *password)
{
    (void)xEventGroupClearBits(s_events, HAS_ADDRESS);
    const esp_err_t err = network_driver_join(ssid, password);
    if (err != ESP_OK) {
        return err;
    }
    return wait_for_address() ? ESP_OK : ESP_ERR_TIMEOUT;
}

void network_add_state(event_t *event)
{
    const bool up = s_events != NULL && (xEventGroupGetBits(s_events) & HAS_ADDRESS) != 0;
    event_add_text(event, "net", network_driver_name);
    event_add_flag(event, "up", up);
    if (up) {
        event_add_text(event, "ip", s_address);
    }
}
