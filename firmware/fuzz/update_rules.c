#include "update_rules.h"

#include <string.h>

#include "esp_app_desc.h"
#include "esp_app_format.h"
#include "esp_ota_ops.h"
#include "psa/crypto.h"
#include "rule.h"
#include "sha256.h"

#define RUNNING 0
#define OTHER 1

static int s_selected_before;
static int s_phase; /* the last one that was reported; -1: none */
static int s_open_handles;
static int s_keys;
static unsigned long s_updates;
static unsigned long s_accepted;
static unsigned long s_by_error[RAW_OTA_ERR_COUNT];

/* The linker sends these calls here (--wrap): what is taken must be given back. */
esp_err_t __real_esp_ota_begin(const esp_partition_t *partition, size_t size, esp_ota_handle_t *handle);
esp_err_t __wrap_esp_ota_begin(const esp_partition_t *partition, size_t size, esp_ota_handle_t *handle);
esp_err_t __real_esp_ota_abort(esp_ota_handle_t handle);
esp_err_t __wrap_esp_ota_abort(esp_ota_handle_t handle);
esp_err_t __real_esp_ota_end(esp_ota_handle_t handle);
esp_err_t __wrap_esp_ota_end(esp_ota_handle_t handle);
psa_status_t __real_psa_import_key(const psa_key_attributes_t *attributes, const uint8_t *data, size_t size,
                                   psa_key_id_t *key);
psa_status_t __wrap_psa_import_key(const psa_key_attributes_t *attributes, const uint8_t *data, size_t size,
                                   psa_key_id_t *key);
psa_status_t __real_psa_destroy_key(psa_key_id_t key);
psa_status_t __wrap_psa_destroy_key(psa_key_id_t key);

esp_err_t __wrap_esp_ota_begin(const esp_partition_t *partition, size_t size, esp_ota_handle_t *handle)
{
    const esp_ota_handle_t before = *handle;
    const esp_err_t err = __real_esp_ota_begin(partition, size, handle);
    s_open_handles += *handle != before; /* also when it fails in its erase */
    return err;
}

esp_err_t __wrap_esp_ota_abort(esp_ota_handle_t handle)
{
    const esp_err_t err = __real_esp_ota_abort(handle);
    s_open_handles -= err == ESP_OK;
    return err;
}

esp_err_t __wrap_esp_ota_end(esp_ota_handle_t handle)
{
    const esp_err_t err = __real_esp_ota_end(handle);
    s_open_handles -= err != ESP_ERR_NOT_FOUND;
    return err;
}

psa_status_t __wrap_psa_import_key(const psa_key_attributes_t *attributes, const uint8_t *data, size_t size,
                                   psa_key_id_t *key)
{
    const psa_status_t status = __real_psa_import_key(attributes, data, size, key);
    s_keys += status == PSA_SUCCESS;
    return status;
}

psa_status_t __wrap_psa_destroy_key(psa_key_id_t key)
{
    const psa_status_t status = __real_psa_destroy_key(key);
    s_keys -= status == PSA_SUCCESS;
    return status;
}

void update_begins(void)
{
    s_selected_before = chip_selected_slot();
    s_phase = -1;
}

void update_progress(void *context, raw_ota_phase_t phase, uint32_t bytes, uint32_t total)
{
    (void)context;
    RULE((int)phase >= s_phase, "phase %d after %d", (int)phase, s_phase);
    RULE(bytes <= total || phase < RAW_OTA_PHASE_FIRST_SECTOR, "%u of %u bytes", (unsigned)bytes,
         (unsigned)total);
    s_phase = (int)phase;
}

void nothing_is_held(void)
{
    RULE(raw_ota_lock(), "the lock is still held");
    raw_ota_unlock();
    RULE(s_open_handles == 0, "%d OTA handles are still open", s_open_handles);
    RULE(s_keys == 0, "%d keys are still in the key store", s_keys);
    RULE(chip_record()->open_hashes == 0 || chip_record()->failed, "%u hashes are still open",
         chip_record()->open_hashes);
}

/* raw_ota.h promises of these that nothing has been erased or written. */
static bool promises_no_change(raw_ota_err_t error, bool bare)
{
    return error >= RAW_OTA_BAD_MAGIC && error <= RAW_OTA_NO_SLOT &&
           !(bare && error == RAW_OTA_SECURE_VERSION_TOO_OLD);
}

/* What is in the slot after a success is what raw_ota says that it is. */
static void judge_slot(const raw_ota_result_t *result, bool bare)
{
    static uint8_t s_image[CHIP_SLOT_SIZE];
    uint8_t digest[32];
    RULE(result->bytes_written >= RAW_OTA_HEADER_SIZE && result->bytes_written <= CHIP_SLOT_SIZE,
         "%u bytes written", (unsigned)result->bytes_written);
    sha256_of(chip_flash() + CHIP_OTA_1, result->bytes_written, digest);
    RULE(memcmp(digest, result->body_sha256, sizeof(digest)) == 0, "the slot does not hold what came");
    memcpy(s_image, chip_flash() + CHIP_OTA_1, CHIP_SLOT_SIZE);
    chip_cipher(0, CHIP_OTA_1, s_image, CHIP_SLOT_SIZE);
    size_t length = 0;
    RULE(chip_is_image(s_image, CHIP_SLOT_SIZE, &length), "the slot holds no image");
    RULE(bare || result->image_size <= result->bytes_written, "image of %u bytes",
         (unsigned)result->image_size);
    const char *version = (const char *)s_image + 32 + offsetof(esp_app_desc_t, version);
    RULE(strncmp(version, result->version, 32) == 0, "version %.32s is told as %s", version, result->version);
    RULE(chip_selected_slot() == OTHER, "slot %d is selected", chip_selected_slot());
    RULE(chip_selected_state() == ESP_OTA_IMG_NEW, "its state is %u", (unsigned)chip_selected_state());
}

void update_ends(raw_ota_err_t returned, const raw_ota_result_t *result, bool bare)
{
    const chip_record_t *record = chip_record();
    RULE(result->error == returned, "%d returned, %d in the result", (int)returned, (int)result->error);
    RULE(memchr(result->message, 0, sizeof(result->message)) != NULL, "the message has no end");
    RULE(memchr(result->slot, 0, sizeof(result->slot)) != NULL, "the slot has no end");
    RULE(memchr(result->version, 0, sizeof(result->version)) != NULL, "the version has no end");
    RULE(returned == RAW_OTA_OK || result->message[0] != '\0', "error %d says nothing", (int)returned);
    if (promises_no_change(returned, bare)) {
        RULE(record->slot_changes == 0 && record->otadata_changes == 0, "error %d after %u and %u changes",
             (int)returned, record->slot_changes, record->otadata_changes);
    }
    const int selected = chip_selected_slot();
    if (returned == RAW_OTA_OK) {
        RULE(s_phase == RAW_OTA_PHASE_SWITCH, "ended in phase %d", s_phase);
        judge_slot(result, bare);
        s_accepted++;
    } else if (selected == OTHER && s_selected_before != OTHER) {
        /* A failure after the switch, of reading otadata back: what is selected is good. */
        RULE(s_phase == RAW_OTA_PHASE_SWITCH && record->slot_verified, "error %d, and yet it is selected",
             (int)returned);
    } else {
        RULE(selected == s_selected_before || selected == RUNNING || record->failed,
             "error %d, and slot %d is selected instead of %d", (int)returned, selected, s_selected_before);
    }
    nothing_is_held();
    s_updates++;
    s_by_error[returned < RAW_OTA_ERR_COUNT ? returned : 0]++;
}

void update_report(void)
{
    if (s_updates == 0) {
        return;
    }
    (void)fprintf(stderr, "%lu updates, %lu accepted\n", s_updates, s_accepted);
    for (int i = 1; i < RAW_OTA_ERR_COUNT; i++) {
        if (s_by_error[i] > 0) {
            (void)fprintf(stderr, "%lu %s\n", s_by_error[i], raw_ota_err_name((raw_ota_err_t)i));
        }
    }
}
