/** The network, as far as the rest of the firmware cares: has it an address, and joining one. */
#pragma once

#include <stdbool.h>

#include "esp_err.h"
#include "events.h"

/** Longest address text, with its NUL. */
#define NETWORK_ADDRESS_SIZE 16

/** Brings the network up and waits for an address, at most CONFIG_COMPANION_NET_WAIT_MS. Never fatal. */
void network_start(void);

/** Joins a Wi-Fi network and waits for an address. ESP_ERR_NOT_SUPPORTED without Wi-Fi. Credentials stay in
 * RAM. */
esp_err_t network_join(const char *ssid, const char *password);

/** Adds `net` (openeth, wifi, none, host), `up` and `ip`. */
void network_add_state(event_t *event);
