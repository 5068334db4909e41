/* Commands that damage the device on purpose; only with CONFIG_RAW_OTA_TEST_HOOKS. */
#include "sdkconfig.h"

#if CONFIG_RAW_OTA_TEST_HOOKS

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bootloader_common.h"
#include "commands.h"
#include "crash.h"
#include "esp_log.h"
#include "esp_ota_ops.h"

static const char *TAG = "test";

void command_crash(const command_line_t *command, command_outcome_t *outcome)
{
    const char *kind = command_line_get(command, "kind");
    outcome->then = COMMAND_THEN_CALL;
    if (kind == NULL || strcmp(kind, "abort") == 0) {
        outcome->last_call = abort;
    } else if (strcmp(kind, "wdt") == 0) {
        outcome->last_call = crash_by_watchdog;
    } else if (strcmp(kind, "null") == 0) {
        outcome->last_call = crash_by_null;
    } else {
        command_fail(outcome, "bad-argument", ESP_OK, "kind= is abort, wdt or null");
    }
}

/* The record that would select `slot` after the ones there are, as a careless updater writes it. False: no
 * number is left that would. */
static bool make_record(const raw_ota_otadata_t *otadata, const esp_partition_t *slot,
                        esp_ota_select_entry_t *record)
{
    const uint32_t slots = esp_ota_get_app_partition_count();
    uint64_t seq = slot->subtype - ESP_PARTITION_SUBTYPE_APP_OTA_MIN + 1;
    const uint32_t last = otadata->active >= 0 ? otadata->records[otadata->active].ota_seq : 0;
    if (seq <= last) {
        seq += (last - seq + slots) / slots * slots;
    }
    if (seq >= UINT32_MAX) {
        return false; /* 0xffffffff means empty */
    }
    memset(record, 0xFF, sizeof(*record));
    record->ota_seq = (uint32_t)seq;
    record->ota_state = ESP_OTA_IMG_NEW;
    record->crc = bootloader_common_ota_select_crc(record);
    return true;
}

/* Writes otadata raw, past the encryption: the mistake that `otadata-raw kind=plaintext` is there to make. */
static esp_err_t write_raw(const esp_partition_t *partition, const esp_ota_select_entry_t records[2])
{
    for (size_t i = 0; i < 2; i++) {
        const esp_err_t err =
            esp_partition_write_raw(partition, i * partition->erase_size, &records[i], sizeof(records[i]));
        if (err != ESP_OK) {
            return err;
        }
    }
    return ESP_OK;
}

void command_otadata_raw(const command_line_t *command, command_outcome_t *outcome)
{
    const char *kind = command_line_get(command, "kind");
    const char *label = command_line_get(command, "slot");
    const bool plaintext = kind != NULL && strcmp(kind, "plaintext") == 0;
    if (!plaintext && (kind == NULL || strcmp(kind, "erase") != 0)) {
        command_fail(outcome, "bad-argument", ESP_OK, "kind= is plaintext or erase");
        return;
    }
    const esp_partition_t *partition =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
    raw_ota_otadata_t otadata;
    esp_err_t err = raw_ota_read_otadata(&otadata);
    if (err == ESP_OK && plaintext && label != NULL) {
        const esp_partition_t *slot =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_ANY, label);
        if (slot == NULL) {
            command_fail(outcome, "bad-argument", ESP_ERR_NOT_FOUND, "slot= names no application slot");
            return;
        }
        if (!make_record(&otadata, slot, &otadata.records[otadata.active == 0 ? 1 : 0])) {
            command_fail(outcome, "bad-argument", ESP_ERR_INVALID_SIZE, "otadata has no number left");
            return;
        }
    }
    if (err == ESP_OK) {
        ESP_LOGW(TAG, "writing otadata past the encryption");
        err = esp_partition_erase_range(partition, 0, 2 * partition->erase_size);
    }
    if (err == ESP_OK && plaintext) {
        err = write_raw(partition, otadata.records);
    }
    command_end_esp(outcome, err, "writing otadata raw");
}

#endif /* CONFIG_RAW_OTA_TEST_HOOKS */
