#include "network_driver.h"

const char *const network_driver_name = "none";

esp_err_t network_driver_start(bool *waits)
{
    *waits = false;
    return ESP_OK;
}

esp_err_t network_driver_join(const char *ssid, const char *password)
{
    (void)ssid;
    (void)password;
    return ESP_ERR_NOT_SUPPORTED;
}
