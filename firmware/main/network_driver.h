/** What each kind of network implements for network.c. */
#pragma once

#include <stdbool.h>

#include "esp_err.h"

/** Name of this kind in events. */
extern const char *const network_driver_name;

/** Starts the interface. `waits` tells whether an address can be expected without further commands. */
esp_err_t network_driver_start(bool *waits);

/** Joins a network that needs credentials; ESP_ERR_NOT_SUPPORTED where that makes no sense. */
esp_err_t network_driver_join(const char *ssid, const char *password);
