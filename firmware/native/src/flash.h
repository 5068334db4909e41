/** Flash of the twin, with the checks of ESP-IDF's esp_flash layer. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "esp_err.h"

/** Ciphertext as it lies there. */
esp_err_t flash_read_raw(uint32_t address, void *data, size_t size);

/** Through the cache: deciphered when flash encryption is on. */
esp_err_t flash_read_mapped(uint32_t address, void *data, size_t size);

/** Programs bytes as they are. Aborts when the region is the bootloader's, the table's or the running slot's.
 */
esp_err_t flash_write(uint32_t address, const void *data, size_t size);

/** Enciphers and programs; address and size in multiples of 16. */
esp_err_t flash_write_encrypted(uint32_t address, const void *data, size_t size);

/** Erases whole sectors. */
esp_err_t flash_erase(uint32_t address, size_t size);
