/** What the files of this component share and nobody outside needs. */
#pragma once

#include "raw_ota.h"

/** Flash erase unit, and the size of the first piece that is written and judged. */
#define RAW_OTA_SECTOR_SIZE 4096u

/** Cipher blocks: every ciphertext is a multiple of this. */
#define RAW_OTA_CIPHER_BLOCK 16u

/** Image header, first segment header and application description: less than this is no application. */
#define RAW_OTA_SMALLEST_IMAGE 288u

/**
 * Notes and logs a failure: error, ESP-IDF's code behind it (ESP_OK if none) and a message for a person.
 * @return `error`, so that a caller can write `return raw_ota_fail(...)`.
 */
raw_ota_err_t raw_ota_fail(raw_ota_result_t *result, raw_ota_err_t error, esp_err_t code, const char *format,
                           ...) __attribute__((format(printf, 4, 5)));

/** As raw_ota_fail(), the error chosen from the code of the call that failed. */
raw_ota_err_t raw_ota_fail_esp(raw_ota_result_t *result, esp_err_t code, const char *what);

/** raw_ota_repair() for a caller that holds the lock. Leaves otadata alone when it agrees. */
raw_ota_err_t raw_ota_repair_locked(raw_ota_result_t *result);

/**
 * Erases the otadata record of the version that lay in `slot` before it was erased, unless the bootloader
 * follows it. esp_ota_begin() does so from v5.5 on; before, a rollback could start an unfinished update's
 * image under it, as if it were confirmed.
 */
raw_ota_err_t raw_ota_forget_replaced(const esp_partition_t *slot, raw_ota_result_t *result);

/** Whether flash contents are deciphered on this device. */
bool raw_ota_is_encrypted(void);
