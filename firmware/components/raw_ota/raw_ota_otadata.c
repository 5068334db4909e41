#include <inttypes.h>
#include <string.h>

#include "bootloader_common.h"
#include "esp_idf_version.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "raw_ota_internal.h"
#include "sdkconfig.h"

static const char *TAG = "raw_ota";

static const esp_partition_t *find_otadata(void)
{
    return esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
}

/* The slot that a record with this sequence number names. */
static const esp_partition_t *slot_named(uint32_t sequence)
{
    const uint32_t index = (sequence - 1) % esp_ota_get_app_partition_count();
    return esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(index), NULL);
}

esp_err_t raw_ota_read_otadata(raw_ota_otadata_t *otadata)
{
    memset(otadata, 0, sizeof(*otadata));
    otadata->active = -1;
    const esp_partition_t *partition = find_otadata();
    if (partition == NULL || esp_ota_get_app_partition_count() == 0) {
        return ESP_ERR_NOT_FOUND;
    }
    for (size_t i = 0; i < 2; i++) {
        const esp_err_t err = esp_partition_read(partition, i * partition->erase_size, &otadata->records[i],
                                                 sizeof(otadata->records[i]));
        if (err != ESP_OK) {
            return err;
        }
    }
    otadata->active = bootloader_common_get_active_otadata(otadata->records);
    if (otadata->active >= 0) {
        otadata->slot = slot_named(otadata->records[otadata->active].ota_seq);
    }
    return ESP_OK;
}

raw_ota_err_t raw_ota_repair_locked(raw_ota_result_t *result)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    raw_ota_otadata_t otadata;
    esp_err_t err = raw_ota_read_otadata(&otadata);
    if (err == ESP_ERR_NOT_FOUND) {
        return raw_ota_fail(result, RAW_OTA_NO_SLOT, err, "no otadata partition or no OTA slots");
    }
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "reading otadata");
    }
    if (otadata.slot == running) {
        return RAW_OTA_OK;
    }
    ESP_LOGW(TAG, "otadata names %s, but %s runs: putting otadata in step",
             otadata.slot != NULL ? otadata.slot->label : "no slot", running->label);
    /* A record under which the other slot was once VALID would outlive the erase of that slot, and in v5.x
     * the next record could get the same sequence number. */
    err = esp_ota_set_boot_partition(running);
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "esp_ota_set_boot_partition(running)");
    }
    err = esp_ota_mark_app_valid_cancel_rollback();
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "esp_ota_mark_app_valid_cancel_rollback");
    }
    err = raw_ota_read_otadata(&otadata);
    if (err != ESP_OK || otadata.slot != running) {
        return raw_ota_fail(result, RAW_OTA_FLASH, err, "otadata still does not name %s", running->label);
    }
    result->repaired = true;
    ESP_LOGI(TAG, "otadata names %s now (sequence %" PRIu32 ")", running->label,
             otadata.records[otadata.active].ota_seq);
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_forget_replaced(const esp_partition_t *slot, raw_ota_result_t *result)
{
#if CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE && ESP_IDF_VERSION < ESP_IDF_VERSION_VAL(5, 5, 0)
    raw_ota_otadata_t otadata;
    esp_err_t err = raw_ota_read_otadata(&otadata);
    if (err == ESP_OK && otadata.active >= 0) {
        const size_t other = otadata.active == 0 ? 1 : 0;
        const esp_ota_select_entry_t *record = &otadata.records[other];
        if (record->ota_seq != UINT32_MAX && record->crc == bootloader_common_ota_select_crc(record) &&
            slot_named(record->ota_seq) == slot) {
            const esp_partition_t *partition = find_otadata();
            err = esp_partition_erase_range(partition, other * partition->erase_size, partition->erase_size);
        }
    }
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "erasing the replaced version's otadata record");
    }
#else
    (void)slot;
    (void)result;
#endif
    return RAW_OTA_OK;
}

static raw_ota_err_t confirm_locked(raw_ota_result_t *result)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    raw_ota_otadata_t otadata;
    esp_err_t err = raw_ota_read_otadata(&otadata);
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "reading otadata");
    }
    if (otadata.slot != running) {
        return raw_ota_fail(result, RAW_OTA_WRONG_SLOT, ESP_OK,
                            "otadata names %s, not the running %s: repair it first",
                            otadata.slot != NULL ? otadata.slot->label : "no slot", running->label);
    }
    err = esp_ota_mark_app_valid_cancel_rollback();
    if (err != ESP_OK) {
        return raw_ota_fail_esp(result, err, "esp_ota_mark_app_valid_cancel_rollback");
    }
    return RAW_OTA_OK;
}

/* Runs one of the two under the lock that updates take. */
static raw_ota_err_t locked(raw_ota_err_t (*change)(raw_ota_result_t *), raw_ota_result_t *result)
{
    memset(result, 0, sizeof(*result));
    if (!raw_ota_lock()) {
        return raw_ota_fail(result, RAW_OTA_BUSY, ESP_OK, "an update is under way");
    }
    const raw_ota_err_t err = change(result);
    raw_ota_unlock();
    return err;
}

raw_ota_err_t raw_ota_repair(raw_ota_result_t *result)
{
    return locked(raw_ota_repair_locked, result);
}

raw_ota_err_t raw_ota_confirm(raw_ota_result_t *result)
{
    return locked(confirm_locked, result);
}
