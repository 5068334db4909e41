/* raw_ota's otadata source as v5.4 compiles it, over two records in memory.
 *
 *   earlier_idf_otadata SLOT SEQUENCE SEQUENCE    prints the otadata sectors that are erased when an update
 * of SLOT (0 or 1) begins; a sequence number of 0: an empty record
 */
#include "esp_idf_version.h"
#undef ESP_IDF_VERSION_MINOR
#define ESP_IDF_VERSION_MINOR 4

#include <stdio.h>
#include <stdlib.h>

#include "raw_ota_otadata.c"

static const esp_partition_t OTADATA = {.type = ESP_PARTITION_TYPE_DATA, .erase_size = 4096};
static const esp_partition_t SLOTS[] = {
    {.subtype = ESP_PARTITION_SUBTYPE_APP_OTA_0},
    {.subtype = ESP_PARTITION_SUBTYPE_APP_OTA_1},
};
static esp_ota_select_entry_t s_records[2];

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label)
{
    (void)label;
    return type == ESP_PARTITION_TYPE_DATA ? &OTADATA : &SLOTS[subtype - ESP_PARTITION_SUBTYPE_APP_OTA_0];
}

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t src_offset, void *dst, size_t size)
{
    memcpy(dst, &s_records[src_offset / partition->erase_size], size);
    return ESP_OK;
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size)
{
    (void)printf("%u of %u\n", (unsigned)(offset / partition->erase_size),
                 (unsigned)(size / partition->erase_size));
    return ESP_OK;
}

uint8_t esp_ota_get_app_partition_count(void)
{
    return 2;
}

const esp_partition_t *esp_ota_get_running_partition(void)
{
    return NULL;
}

esp_err_t esp_ota_set_boot_partition(const esp_partition_t *partition)
{
    (void)partition;
    return ESP_FAIL;
}

esp_err_t esp_ota_mark_app_valid_cancel_rollback(void)
{
    return ESP_FAIL;
}

uint32_t bootloader_common_ota_select_crc(const esp_ota_select_entry_t *record)
{
    return ~record->ota_seq;
}

static bool is_empty(const esp_ota_select_entry_t *record)
{
    return record->ota_seq == UINT32_MAX;
}

int bootloader_common_get_active_otadata(esp_ota_select_entry_t *records)
{
    if (is_empty(&records[0]) || is_empty(&records[1])) {
        return is_empty(&records[0]) ? (is_empty(&records[1]) ? -1 : 1) : 0;
    }
    return records[0].ota_seq >= records[1].ota_seq ? 0 : 1;
}

bool raw_ota_lock(void)
{
    return true;
}

void raw_ota_unlock(void)
{
}

raw_ota_err_t raw_ota_fail(raw_ota_result_t *result, raw_ota_err_t error, esp_err_t code, const char *format,
                           ...)
{
    (void)result;
    (void)code;
    (void)format;
    return error;
}

raw_ota_err_t raw_ota_fail_esp(raw_ota_result_t *result, esp_err_t code, const char *what)
{
    return raw_ota_fail(result, RAW_OTA_FLASH, code, "%s", what);
}

void native_log(esp_log_level_t level, const char *tag, const char *format, ...)
{
    (void)level;
    (void)tag;
    (void)format;
}

int main(int count, char **words)
{
    if (count != 4) {
        return 2;
    }
    for (int i = 0; i < 2; i++) {
        const uint32_t sequence = (uint32_t)strtoul(words[2 + i], NULL, 10);
        s_records[i].ota_seq = sequence != 0 ? sequence : UINT32_MAX;
        s_records[i].crc = bootloader_common_ota_select_crc(&s_records[i]);
    }
    raw_ota_result_t result;
    return raw_ota_forget_replaced(&SLOTS[atoi(words[1])], &result) == RAW_OTA_OK ? 0 : 1;
}
