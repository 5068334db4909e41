#include "device_state.h"

#include <stdio.h>

#include "esp_app_desc.h"
#include "esp_efuse.h"
#include "esp_efuse_table.h"
#include "esp_flash_encrypt.h"
#include "esp_mac.h"
#include "esp_ota_ops.h"
#include "esp_secure_boot.h"
#include "esp_system.h"
#include "raw_ota.h"
#include "sdkconfig.h"

#define PROTOCOL_VERSION 1

static const char *image_state_name(const esp_partition_t *partition)
{
    esp_ota_img_states_t state = ESP_OTA_IMG_UNDEFINED;
    if (esp_ota_get_state_partition(partition, &state) != ESP_OK) {
        return "undefined";
    }
    switch (state) {
    case ESP_OTA_IMG_NEW:
        return "new";
    case ESP_OTA_IMG_PENDING_VERIFY:
        return "pending";
    case ESP_OTA_IMG_VALID:
        return "valid";
    case ESP_OTA_IMG_INVALID:
        return "invalid";
    case ESP_OTA_IMG_ABORTED:
        return "aborted";
    default:
        return "undefined";
    }
}

static const char *encryption_name(void)
{
    switch (esp_get_flash_encryption_mode()) {
    case ESP_FLASH_ENC_MODE_DEVELOPMENT:
        return "development";
    case ESP_FLASH_ENC_MODE_RELEASE:
        return "release";
    default:
        return "off";
    }
}

static const char *reset_name(void)
{
    switch (esp_reset_reason()) {
    case ESP_RST_POWERON:
    case ESP_RST_EXT:
        return "poweron";
    case ESP_RST_SW:
        return "sw";
    case ESP_RST_PANIC:
        return "panic";
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT:
        return "wdt";
    default:
        return "other";
    }
}

static void add_slots(event_t *event)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    const esp_partition_t *next = esp_ota_get_next_update_partition(NULL);
    raw_ota_otadata_t otadata;
    const bool known = raw_ota_read_otadata(&otadata) == ESP_OK && otadata.slot != NULL;
    event_add_text(event, "slot", running->label);
    event_add_number(event, "offset", running->address);
    event_add_text(event, "state", image_state_name(running));
    event_add_text(event, "otadata_slot", known ? otadata.slot->label : "none");
    event_add_flag(event, "agree", known && otadata.slot == running);
    const bool has_next = next != NULL && next != running;
    event_add_text(event, "next", has_next ? next->label : "none");
    event_add_number(event, "next_offset", has_next ? next->address : 0);
}

/* Size of BLOCK0, which holds every fuse that decides about security, and the protection of the others. */
#if CONFIG_IDF_TARGET_ESP32
#define BLOCK0_BITS 224
#elif CONFIG_IDF_TARGET_ESP32C2
#define BLOCK0_BITS 64
#else
#define BLOCK0_BITS 192
#endif

/* Which halves of the key blocks read as zeros, because they are blank or hidden: bit 2n for the lower 128
 * bits of the nth key block, bit 2n+1 for the upper. */
static uint32_t blank_halves(void)
{
    uint32_t blank = 0;
    for (int block = EFUSE_BLK_KEY0; block < EFUSE_BLK_KEY_MAX; block++) {
        for (int half = 0; half < 2; half++) {
            uint32_t words[4] = {0};
            const esp_err_t err =
                esp_efuse_read_block((esp_efuse_block_t)block, words, (size_t)half * 128, 128);
            if (err == ESP_OK && (words[0] | words[1] | words[2] | words[3]) == 0) {
                blank |= UINT32_C(1) << (2 * (block - EFUSE_BLK_KEY0) + half);
            }
        }
    }
    return blank;
}

/* BLOCK0 as it reads. Where UART download is restricted nobody else can tell a host what is burned. */
static void add_fuses(event_t *event)
{
    /* A description of our own: esp_efuse_read_block() and esp_efuse_read_reg() refuse this block. */
    static const esp_efuse_desc_t BLOCK0 = {EFUSE_BLK0, 0, BLOCK0_BITS};
    const esp_efuse_desc_t *field[] = {&BLOCK0, NULL};
    uint8_t bytes[BLOCK0_BITS / 8] = {0};
    if (esp_efuse_read_field_blob(field, bytes, BLOCK0_BITS) == ESP_OK) {
        event_add_hex(event, "fuses", bytes, sizeof(bytes));
        event_add_number(event, "blank_key_halves", blank_halves());
    }
    size_t secure_version = 0;
    if (esp_efuse_read_field_cnt(ESP_EFUSE_SECURE_VERSION, &secure_version) == ESP_OK) {
        event_add_number(event, "fuse_secure_version", (int64_t)secure_version);
    }
}

void device_state_add(event_t *event)
{
    const esp_app_desc_t *app = esp_app_get_description();
    uint8_t mac[6] = {0};
    char mac_text[18] = "";
    if (esp_efuse_mac_get_default(mac) == ESP_OK) {
        (void)snprintf(mac_text, sizeof(mac_text), MACSTR, MAC2STR(mac));
    }
    const bool encrypted = esp_get_flash_encryption_mode() != ESP_FLASH_ENC_MODE_DISABLED;
    event_add_number(event, "proto", PROTOCOL_VERSION);
    event_add_text(event, "project", app->project_name);
    event_add_text(event, "version", app->version);
    event_add_text(event, "idf", app->idf_ver);
    event_add_text(event, "chip", CONFIG_IDF_TARGET);
    event_add_text(event, "mac", mac_text);
    add_slots(event);
    event_add_text(event, "fe", encryption_name());
    const bool secure_boot = esp_secure_boot_enabled();
    event_add_flag(event, "sb", secure_boot);
    /* ESP-IDF's check logs what is missing; on a plain chip that would only be noise. */
    event_add_flag(event, "release_ok", encrypted && esp_flash_encryption_cfg_verify_release_mode());
    if (secure_boot) {
        event_add_flag(event, "sb_release_ok", esp_secure_boot_cfg_verify_release_mode());
    }
    event_add_number(event, "secure_version", app->secure_version);
    add_fuses(event);
    event_add_text(event, "reset", reset_name());
}
