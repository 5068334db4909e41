/** From development to release, one fuse after another, so that no supply failure leaves a dead board. */
#pragma once

#include "esp_err.h"

/**
 * Burns what esp_flash_encryption_set_release_mode() burns, in an order of its own, and has that function
 * check it.
 *
 * ESP-IDF burns it all in one go. A chip blows its bits one after another, so a supply that fails meanwhile
 * can leave a counter with an even number of ones (encryption is off, the ciphertext in flash starts nothing)
 * or a write protection without the fuses that it freezes (release is out of reach). Here every burn is one
 * bit, and the board boots after each: first what release wants, then what freezes it, then the write
 * protection of the counter, whose value stays, and the lock of UART download (on ESP32 before the former,
 * which freezes it). Cut off anywhere, the same call goes on with what is missing.
 *
 * Aborts, as ESP-IDF has it, when flash encryption is off.
 * @return ESP_OK; what the eFuse driver says of the first fuse that does not take: the rest is not burned.
 */
esp_err_t release_mode_set(void);
