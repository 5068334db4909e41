/* The half of esp_ota_ops that reads and writes otadata. Behaviour of ESP-IDF v5.5.5. */
#include "otadata.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "bootloader_common.h"
#include "esp_efuse.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "esp_rom_crc.h"
#include "esp_system.h"
#include "sdkconfig.h"
#include "twin_rpc.h"

static const char *TAG = "esp_ota_ops";

uint32_t bootloader_common_ota_select_crc(const esp_ota_select_entry_t *record)
{
    return esp_rom_crc32_le(UINT32_MAX, (const uint8_t *)&record->ota_seq, sizeof(record->ota_seq));
}

bool bootloader_common_ota_select_invalid(const esp_ota_select_entry_t *record)
{
    return record->ota_seq == UINT32_MAX || record->ota_state == ESP_OTA_IMG_INVALID ||
           record->ota_state == ESP_OTA_IMG_ABORTED;
}

bool bootloader_common_ota_select_valid(const esp_ota_select_entry_t *record)
{
    return !bootloader_common_ota_select_invalid(record) &&
           record->crc == bootloader_common_ota_select_crc(record);
}

int bootloader_common_select_otadata(const esp_ota_select_entry_t *records, bool *valid, bool max)
{
    if (valid[0] && valid[1]) {
        const bool first =
            max ? records[0].ota_seq >= records[1].ota_seq : records[0].ota_seq <= records[1].ota_seq;
        return first ? 0 : 1;
    }
    return valid[0] ? 0 : valid[1] ? 1 : -1;
}

int bootloader_common_get_active_otadata(esp_ota_select_entry_t *records)
{
    bool valid[2] = {bootloader_common_ota_select_valid(&records[0]),
                     bootloader_common_ota_select_valid(&records[1])};
    return bootloader_common_select_otadata(records, valid, true);
}

bool ota_is_slot(const esp_partition_t *partition)
{
    return partition != NULL && partition->type == ESP_PARTITION_TYPE_APP &&
           partition->subtype >= ESP_PARTITION_SUBTYPE_APP_OTA_0 &&
           partition->subtype < ESP_PARTITION_SUBTYPE_APP_OTA_MAX;
}

const esp_partition_t *otadata_read(esp_ota_select_entry_t records[2])
{
    const esp_partition_t *partition =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
    if (partition == NULL) {
        ESP_LOGE(TAG, "not found otadata");
        return NULL;
    }
    for (size_t i = 0; i < 2; i++) {
        if (esp_partition_read(partition, i * partition->erase_size, &records[i], sizeof(records[i])) !=
            ESP_OK) {
            return NULL;
        }
    }
    return partition;
}

esp_err_t otadata_rewrite(esp_ota_select_entry_t *records, uint32_t seq, int index,
                          const esp_partition_t *partition)
{
    records[index].ota_seq = seq;
    records[index].crc = bootloader_common_ota_select_crc(&records[index]);
    const size_t offset = (size_t)index * partition->erase_size;
    const esp_err_t err = esp_partition_erase_range(partition, offset, partition->erase_size);
    return err != ESP_OK ? err
                         : esp_partition_write(partition, offset, &records[index], sizeof(records[index]));
}

static uint32_t new_state(void)
{
#if CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE
    return ESP_OTA_IMG_NEW;
#else
    return ESP_OTA_IMG_UNDEFINED;
#endif
}

esp_err_t otadata_select(esp_partition_subtype_t subtype)
{
    esp_ota_select_entry_t records[2];
    const esp_partition_t *partition = otadata_read(records);
    if (partition == NULL) {
        return ESP_ERR_NOT_FOUND;
    }
    const uint32_t slots = esp_ota_get_app_partition_count();
    const uint32_t slot = subtype & 0x0F;
    if (slot >= slots) {
        return ESP_ERR_INVALID_ARG;
    }
    const int active = bootloader_common_get_active_otadata(records);
    /* The smallest number that names the slot and is not below the active one. v5.x writes it into the other
     * sector even when it is the active number itself. */
    uint32_t seq = slot + 1;
    int index = 0;
    if (active >= 0) {
        seq = (slot + 1) % slots;
        /* ESP-IDF adds the slots one time after the other. Behind the last number it, too, goes on from 0. */
        while (records[active].ota_seq > seq) {
            seq += ((records[active].ota_seq - seq - 1) / slots + 1) * slots;
        }
        index = active == 0 ? 1 : 0;
    }
    records[index].ota_state = new_state();
    return otadata_rewrite(records, seq, index, partition);
}

uint8_t esp_ota_get_app_partition_count(void)
{
    uint8_t count = 0;
    while (count < 16 &&
           esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(count), NULL) != NULL) {
        count++;
    }
    return count;
}

const esp_partition_t *esp_ota_get_running_partition(void)
{
    static const esp_partition_t *s_running;
    if (s_running != NULL) {
        return s_running;
    }
    for (unsigned subtype = 0; subtype <= ESP_PARTITION_SUBTYPE_APP_TEST; subtype++) {
        const esp_partition_t *partition =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, (esp_partition_subtype_t)subtype, NULL);
        if (partition != NULL && partition->address == twin_info()->boot_offset) {
            s_running = partition;
            return partition;
        }
    }
    abort(); /* the partition table does not hold what was booted */
}

const esp_partition_t *esp_ota_get_next_update_partition(const esp_partition_t *start_from)
{
    const esp_partition_t *start =
        start_from == NULL ? esp_ota_get_running_partition() : esp_partition_verify(start_from);
    assert(start != NULL);
    const esp_partition_t *first = NULL;
    bool next_is_it = false;
    for (unsigned i = 0; i < 16; i++) {
        const esp_partition_t *slot =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(i), NULL);
        if (slot == NULL) {
            continue;
        }
        if (next_is_it) {
            return slot;
        }
        first = first == NULL ? slot : first;
        next_is_it = slot == start;
    }
    return first;
}

static const esp_partition_t *default_boot_partition(void)
{
    const esp_partition_t *factory =
        esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_APP_FACTORY, NULL);
    if (factory != NULL) {
        return factory;
    }
    for (unsigned i = 0; i < 16; i++) {
        const esp_partition_t *slot =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(i), NULL);
        if (slot != NULL) {
            return slot;
        }
    }
    return esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_APP_TEST, NULL);
}

const esp_partition_t *esp_ota_get_boot_partition(void)
{
    esp_ota_select_entry_t records[2];
    if (otadata_read(records) == NULL) {
        return NULL;
    }
    const uint32_t slots = esp_ota_get_app_partition_count();
    if (slots == 0 || (bootloader_common_ota_select_invalid(&records[0]) &&
                       bootloader_common_ota_select_invalid(&records[1]))) {
        return default_boot_partition();
    }
    const int active = bootloader_common_get_active_otadata(records);
    if (active < 0) {
        ESP_LOGE(TAG, "ota data invalid, no current app. Assuming factory");
        return default_boot_partition();
    }
    const uint32_t slot = (records[active].ota_seq - 1) % slots;
    return esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(slot), NULL);
}

esp_err_t esp_ota_get_state_partition(const esp_partition_t *partition, esp_ota_img_states_t *ota_state)
{
    if (partition == NULL || ota_state == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    if (!ota_is_slot(partition)) {
        return ESP_ERR_NOT_SUPPORTED;
    }
    esp_ota_select_entry_t records[2];
    const uint32_t slots = esp_ota_get_app_partition_count();
    if (otadata_read(records) == NULL || slots == 0) {
        return ESP_ERR_NOT_FOUND;
    }
    const uint32_t asked = partition->subtype - ESP_PARTITION_SUBTYPE_APP_OTA_MIN;
    /* The first record that names the slot wins, active or not. */
    for (size_t i = 0; i < 2; i++) {
        if ((records[i].ota_seq - 1) % slots == asked &&
            records[i].crc == bootloader_common_ota_select_crc(&records[i])) {
            *ota_state = (esp_ota_img_states_t)records[i].ota_state;
            return ESP_OK;
        }
    }
    return ESP_ERR_NOT_FOUND;
}

esp_err_t esp_ota_invalidate_inactive_ota_data_slot(void)
{
    esp_ota_select_entry_t records[2];
    const esp_partition_t *partition = otadata_read(records);
    const uint32_t slots = esp_ota_get_app_partition_count();
    const int active = partition != NULL ? bootloader_common_get_active_otadata(records) : -1;
    if (active < 0 || slots == 0) {
        return ESP_FAIL;
    }
    const int inactive = active == 0 ? 1 : 0;
    const esp_ota_select_entry_t *record = &records[inactive];
    if (record->ota_seq == UINT32_MAX || record->crc != bootloader_common_ota_select_crc(record)) {
        return ESP_FAIL;
    }
    const esp_partition_t *named = esp_partition_find_first(
        ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA((record->ota_seq - 1) % slots), NULL);
    if (named == NULL || named == esp_ota_get_running_partition()) {
        return ESP_FAIL;
    }
    return esp_partition_erase_range(partition, (size_t)inactive * partition->erase_size,
                                     partition->erase_size);
}

bool esp_ota_check_rollback_is_possible(void)
{
    esp_ota_select_entry_t records[2];
    const uint32_t slots = esp_ota_get_app_partition_count();
    if (otadata_read(records) == NULL || slots == 0) {
        return false;
    }
    bool valid[2] = {bootloader_common_ota_select_valid(&records[0]),
                     bootloader_common_ota_select_valid(&records[1])};
    const int active = bootloader_common_select_otadata(records, valid, true);
    if (active < 0) {
        return false;
    }
    const int last = active == 0 ? 1 : 0;
    if (!valid[last]) {
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
        return false; /* nothing is known of the factory app's secure version */
#else
        const esp_partition_t *factory =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_APP_FACTORY, NULL);
        return factory != NULL && ota_image_verify(factory, true) == ESP_OK;
#endif
    }
    const esp_partition_t *slot = esp_partition_find_first(
        ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA((records[last].ota_seq - 1) % slots), NULL);
    if (slot == NULL || ota_image_verify(slot, true) != ESP_OK) {
        return false;
    }
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    esp_app_desc_t description;
    return esp_ota_get_partition_description(slot, &description) == ESP_OK &&
           esp_efuse_check_secure_version(description.secure_version);
#else
    return true;
#endif
}

#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
/* From now on nothing older than what runs will boot. */
static esp_err_t raise_secure_version(void)
{
    esp_app_desc_t description;
    const esp_err_t err = esp_ota_get_partition_description(esp_ota_get_running_partition(), &description);
    return err != ESP_OK ? err : esp_efuse_update_secure_version(description.secure_version);
}
#endif

static esp_err_t mark(bool valid)
{
    esp_ota_select_entry_t records[2];
    const esp_partition_t *partition = otadata_read(records);
    if (partition == NULL) {
        return ESP_ERR_NOT_FOUND;
    }
    const int active = bootloader_common_get_active_otadata(records);
    if (active < 0 || esp_ota_get_app_partition_count() == 0) {
        ESP_LOGE(TAG, "Running firmware is factory");
        return ESP_FAIL;
    }
    if (valid && records[active].ota_state == ESP_OTA_IMG_VALID) {
        return ESP_OK;
    }
    if (!valid && !esp_ota_check_rollback_is_possible()) {
        ESP_LOGE(TAG, "Rollback is not possible, do not have any suitable apps in slots");
        return ESP_ERR_OTA_ROLLBACK_FAILED;
    }
    records[active].ota_state = valid ? ESP_OTA_IMG_VALID : ESP_OTA_IMG_INVALID;
    const esp_err_t err = otadata_rewrite(records, records[active].ota_seq, active, partition);
    if (err == ESP_OK && !valid) {
        ESP_LOGI(TAG, "Rollback to previously worked partition.");
    }
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    if (err == ESP_OK && valid) {
        return raise_secure_version();
    }
#endif
    return err;
}

esp_err_t esp_ota_mark_app_valid_cancel_rollback(void)
{
    return mark(true);
}

esp_err_t esp_ota_mark_app_invalid_rollback(void)
{
    return mark(false);
}

esp_err_t esp_ota_mark_app_invalid_rollback_and_reboot(void)
{
    const esp_err_t err = mark(false);
    if (err == ESP_OK) {
        esp_restart();
    }
    return err;
}
