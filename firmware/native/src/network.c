/* network.h on the host: the network is there already. */
#include "network.h"

void network_start(void)
{
}

esp_err_t network_join(const char *ssid, const char *password)
{
    (void)ssid;
    (void)password;
    return ESP_ERR_NOT_SUPPORTED;
}

void network_add_state(event_t *event)
{
    event_add_text(event, "net", "host");
    event_add_flag(event, "up", true);
    event_add_text(event, "ip", "127.0.0.1");
}
