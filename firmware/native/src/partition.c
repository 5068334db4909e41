/* esp_partition_*: the table in flash, and the checks of ESP-IDF v5.5's partition_target.c. */
#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "esp_flash_encrypt.h"
#include "esp_flash_partitions.h"
#include "esp_log.h"
#include "esp_partition.h"
#include "flash.h"

static const char *TAG = "partition";

#define SECTOR_SIZE 4096
#define MAX_PARTITIONS 95 /* entries that fit a table of 0xC00 bytes beside the MD5 */

static esp_partition_t s_partitions[MAX_PARTITIONS];
static size_t s_count;

static bool is_encrypted(const esp_partition_info_t *entry)
{
    if (!esp_flash_encryption_enabled()) {
        return false;
    }
    const bool data = entry->type == ESP_PARTITION_TYPE_DATA;
    return (entry->flags & PART_FLAG_ENCRYPTED) != 0 || entry->type == ESP_PARTITION_TYPE_APP ||
           entry->type == ESP_PARTITION_TYPE_BOOTLOADER ||
           entry->type == ESP_PARTITION_TYPE_PARTITION_TABLE ||
           (data && entry->subtype == ESP_PARTITION_SUBTYPE_DATA_OTA) ||
           (data && entry->subtype == ESP_PARTITION_SUBTYPE_DATA_TEE_OTA) ||
           (data && entry->subtype == ESP_PARTITION_SUBTYPE_DATA_NVS_KEYS);
}

static void load(void)
{
    static uint8_t s_table[ESP_PARTITION_TABLE_MAX_LEN];
    const esp_err_t err = flash_read_mapped(ESP_PARTITION_TABLE_OFFSET, s_table, sizeof(s_table));
    if (err != ESP_OK) {
        ESP_LOGE(TAG, "load_partitions returned 0x%x", (unsigned)err);
        return;
    }
    for (size_t at = 0; at < sizeof(s_table) && s_count < MAX_PARTITIONS;
         at += sizeof(esp_partition_info_t)) {
        esp_partition_info_t entry;
        memcpy(&entry, s_table + at, sizeof(entry));
        if (entry.magic != ESP_PARTITION_MAGIC) {
            break;
        }
        esp_partition_t *partition = &s_partitions[s_count++];
        partition->type = (esp_partition_type_t)entry.type;
        partition->subtype = (esp_partition_subtype_t)entry.subtype;
        partition->address = entry.pos.offset;
        partition->size = entry.pos.size;
        partition->erase_size = SECTOR_SIZE;
        memcpy(partition->label, entry.label, sizeof(entry.label));
        partition->encrypted = is_encrypted(&entry);
        partition->readonly = (entry.flags & PART_FLAG_READONLY) != 0;
    }
}

const esp_partition_t *esp_partition_find_first(esp_partition_type_t type, esp_partition_subtype_t subtype,
                                                const char *label)
{
    static pthread_once_t s_loaded = PTHREAD_ONCE_INIT;
    (void)pthread_once(&s_loaded, load);
    if (type == ESP_PARTITION_TYPE_ANY && subtype != ESP_PARTITION_SUBTYPE_ANY) {
        return NULL;
    }
    for (size_t i = 0; i < s_count; i++) {
        const esp_partition_t *partition = &s_partitions[i];
        if ((type == ESP_PARTITION_TYPE_ANY || type == partition->type) &&
            (subtype == ESP_PARTITION_SUBTYPE_ANY || subtype == partition->subtype) &&
            (label == NULL || strcmp(label, partition->label) == 0)) {
            return partition;
        }
    }
    return NULL;
}

const esp_partition_t *esp_partition_verify(const esp_partition_t *partition)
{
    for (size_t i = 0; i < s_count; i++) {
        const esp_partition_t *known = &s_partitions[i];
        if (known->type == partition->type && known->subtype == partition->subtype &&
            known->address == partition->address && known->size == partition->size &&
            known->encrypted == partition->encrypted && strcmp(known->label, partition->label) == 0) {
            return known;
        }
    }
    return NULL;
}

/* The checks that all accesses share, in ESP-IDF's order. */
static esp_err_t check_range(const esp_partition_t *partition, size_t offset, size_t size)
{
    if (offset > partition->size) {
        return ESP_ERR_INVALID_ARG;
    }
    return size > partition->size - offset ? ESP_ERR_INVALID_SIZE : ESP_OK;
}

static esp_err_t check_change(const esp_partition_t *partition, size_t offset, size_t size)
{
    return partition->readonly ? ESP_ERR_NOT_ALLOWED : check_range(partition, offset, size);
}

esp_err_t esp_partition_read(const esp_partition_t *partition, size_t src_offset, void *dst, size_t size)
{
    assert(partition != NULL);
    const esp_err_t err = check_range(partition, src_offset, size);
    if (err != ESP_OK) {
        return err;
    }
    const uint32_t address = partition->address + (uint32_t)src_offset;
    return partition->encrypted ? flash_read_mapped(address, dst, size) : flash_read_raw(address, dst, size);
}

esp_err_t esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src,
                              size_t size)
{
    assert(partition != NULL);
    const esp_err_t err = check_change(partition, dst_offset, size);
    if (err != ESP_OK) {
        return err;
    }
    const uint32_t address = partition->address + (uint32_t)dst_offset;
    return partition->encrypted ? flash_write_encrypted(address, src, size) : flash_write(address, src, size);
}

esp_err_t esp_partition_read_raw(const esp_partition_t *partition, size_t src_offset, void *dst, size_t size)
{
    assert(partition != NULL);
    const esp_err_t err = check_range(partition, src_offset, size);
    return err != ESP_OK ? err : flash_read_raw(partition->address + (uint32_t)src_offset, dst, size);
}

esp_err_t esp_partition_write_raw(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                  size_t size)
{
    assert(partition != NULL);
    const esp_err_t err = check_change(partition, dst_offset, size);
    return err != ESP_OK ? err : flash_write(partition->address + (uint32_t)dst_offset, src, size);
}

esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size)
{
    assert(partition != NULL);
    const esp_err_t err = check_change(partition, offset, size);
    if (err != ESP_OK) {
        return err;
    }
    if (size % SECTOR_SIZE != 0) {
        return ESP_ERR_INVALID_SIZE;
    }
    if (offset % SECTOR_SIZE != 0) {
        return ESP_ERR_INVALID_ARG;
    }
    return flash_erase(partition->address + (uint32_t)offset, size);
}
