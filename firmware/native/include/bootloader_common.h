/** Port of ESP-IDF's bootloader_common.h: how the bootloader reads otadata. */
#pragma once

#include <stdbool.h>

#include "esp_flash_partitions.h"

uint32_t bootloader_common_ota_select_crc(const esp_ota_select_entry_t *record);

/** Empty, or marked invalid or aborted. */
bool bootloader_common_ota_select_invalid(const esp_ota_select_entry_t *record);

/** Not invalid, and the CRC is right. */
bool bootloader_common_ota_select_valid(const esp_ota_select_entry_t *record);

/** The record to follow among those marked in `valid`: the highest sequence (`max`) or the lowest; -1 for
 * none. */
int bootloader_common_select_otadata(const esp_ota_select_entry_t *records, bool *valid, bool max);

/** Index of the record that the bootloader follows; -1 for none. */
int bootloader_common_get_active_otadata(esp_ota_select_entry_t *records);
