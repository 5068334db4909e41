/** Port of ESP-IDF's esp_flash_partitions.h: otadata records and partition table entries. */
#pragma once

#include <stdint.h>

#define ESP_PARTITION_MAGIC 0x50AA
#define ESP_PARTITION_MAGIC_MD5 0xEBEB
#define PART_FLAG_ENCRYPTED (1u << 0)
#define PART_FLAG_READONLY (1u << 1)
#define ESP_PARTITION_TABLE_OFFSET CONFIG_PARTITION_TABLE_OFFSET
#define ESP_PARTITION_TABLE_MAX_LEN 0xC00

typedef enum {
    ESP_OTA_IMG_NEW = 0,
    ESP_OTA_IMG_PENDING_VERIFY = 1,
    ESP_OTA_IMG_VALID = 2,
    ESP_OTA_IMG_INVALID = 3,
    ESP_OTA_IMG_ABORTED = 4,
    ESP_OTA_IMG_UNDEFINED = 0xFFFFFFFFU,
} esp_ota_img_states_t;

typedef struct {
    uint32_t ota_seq;
    uint8_t seq_label[20];
    uint32_t ota_state;
    uint32_t crc; /**< of ota_seq alone */
} esp_ota_select_entry_t;

typedef struct {
    uint16_t magic;
    uint8_t type;
    uint8_t subtype;
    struct {
        uint32_t offset;
        uint32_t size;
    } pos;
    uint8_t label[16];
    uint32_t flags;
} esp_partition_info_t;

_Static_assert(sizeof(esp_ota_select_entry_t) == 32, "otadata record has 32 bytes");
_Static_assert(sizeof(esp_partition_info_t) == 32, "partition table entry has 32 bytes");
