#include "commands.h"
#include "console.h"
#include "device_state.h"
#include "esp_app_desc.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "events.h"
#include "network.h"
#include "raw_ota.h"

static const char *TAG = "companion";

/* A disagreement is reported, not mended by itself: the next update or the command `repair` does that. */
static void report_otadata(void)
{
    raw_ota_otadata_t otadata;
    const esp_err_t err = raw_ota_read_otadata(&otadata);
    const esp_partition_t *running = esp_ota_get_running_partition();
    if (err != ESP_OK) {
        ESP_LOGE(TAG, "otadata cannot be read: %s", esp_err_to_name(err));
    } else if (otadata.slot != running) {
        ESP_LOGW(TAG, "otadata names %s, but %s runs", otadata.slot != NULL ? otadata.slot->label : "no slot",
                 running->label);
    }
}

void app_main(void)
{
    console_start();
    /* A version that cannot take an update must not stay: unconfirmed, this reset takes it back. */
    ESP_ERROR_CHECK(commands_start());
    ESP_LOGI(TAG, "version %s", esp_app_get_description()->version);
    report_otadata();
    network_start();
    event_t boot;
    event_start(&boot, "boot");
    device_state_add(&boot);
    network_add_state(&boot);
    event_send(&boot);
    console_run();
}
