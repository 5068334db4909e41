/** otadata as esp_ota_ops keeps it; shared by the two files of the port's esp_ota_*. */
#pragma once

#include <stdbool.h>

#include "esp_flash_partitions.h"
#include "esp_partition.h"

/** Reads both records; NULL (and a log line) without an otadata partition. */
const esp_partition_t *otadata_read(esp_ota_select_entry_t records[2]);

/** Erases one sector and writes its record with sequence `seq`, enciphered when flash encryption is on. */
esp_err_t otadata_rewrite(esp_ota_select_entry_t *records, uint32_t seq, int index,
                          const esp_partition_t *partition);

/** Records that `subtype` is to be booted next, as ESP-IDF v5.5 numbers it. */
esp_err_t otadata_select(esp_partition_subtype_t subtype);

/** Verifies the image in a slot, printing what ESP-IDF prints. ESP_OK or ESP_ERR_OTA_VALIDATE_FAILED. */
esp_err_t ota_image_verify(const esp_partition_t *partition, bool silent);

/** Whether this is one of the slots ota_0 … ota_15. */
bool ota_is_slot(const esp_partition_t *partition);
