/* The half of esp_ota_ops that writes images. Behaviour and log lines of ESP-IDF v5.5.5. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "esp_app_format.h"
#include "esp_efuse.h"
#include "esp_flash_encrypt.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "otadata.h"
#include "sdkconfig.h"
#include "twin_lines.h"
#include "twin_rpc.h"

static const char *TAG = "esp_ota_ops";

#define CIPHER_BLOCK 16

/* An open handle. */
typedef struct {
    esp_ota_handle_t handle; /* 0: free */
    const esp_partition_t *partition;
    bool erases_as_it_goes;
    uint32_t written;
    uint8_t partial[CIPHER_BLOCK]; /* with flash encryption only whole blocks can be written */
    size_t partial_size;
} entry_t;

#define MAX_ENTRIES 8

static entry_t s_entries[MAX_ENTRIES];
static esp_ota_handle_t s_last_handle;
static pthread_mutex_t s_mutex = PTHREAD_MUTEX_INITIALIZER;

static entry_t *new_entry(const esp_partition_t *partition)
{
    entry_t *found = NULL;
    pthread_mutex_lock(&s_mutex);
    for (size_t i = 0; i < MAX_ENTRIES && found == NULL; i++) {
        if (s_entries[i].handle == 0) {
            found = &s_entries[i];
            memset(found, 0, sizeof(*found));
            found->handle = ++s_last_handle;
            found->partition = partition;
        }
    }
    pthread_mutex_unlock(&s_mutex);
    return found;
}

static entry_t *find_entry(esp_ota_handle_t handle)
{
    for (size_t i = 0; i < MAX_ENTRIES && handle != 0; i++) {
        if (s_entries[i].handle == handle) {
            return &s_entries[i];
        }
    }
    return NULL;
}

/* What this build asks of an image (CONFIG_SECURE_SIGNED_ON_UPDATE comes with secure boot). */
#if !CONFIG_SECURE_BOOT_V2_ENABLED
#define SIGNATURE TWIN_SIGNATURE_NONE
#elif CONFIG_SECURE_SIGNED_APPS_RSA_SCHEME
#define SIGNATURE TWIN_SIGNATURE_RSA_3072
#elif CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_192_BITS
#define SIGNATURE TWIN_SIGNATURE_ECDSA_P192
#elif CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_384_BITS
#define SIGNATURE TWIN_SIGNATURE_ECDSA_P384
#elif CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME
#define SIGNATURE TWIN_SIGNATURE_ECDSA_P256
#else
#define SIGNATURE TWIN_SIGNATURE_OF_CHIP
#endif

esp_err_t ota_image_verify(const esp_partition_t *partition, bool silent)
{
    static const uint8_t WANTED = SIGNATURE;
    static char s_lines[8192];
    static pthread_mutex_t s_lines_mutex = PTHREAD_MUTEX_INITIALIZER;
    size_t size = 0;
    pthread_mutex_lock(&s_lines_mutex);
    const int32_t status = twin_call(TWIN_IMAGE_VERIFY, partition->address, partition->size, &WANTED,
                                     sizeof(WANTED), s_lines, sizeof(s_lines) - 1, &size, NULL);
    s_lines[size] = '\0';
    if (!silent) {
        twin_lines_print(s_lines);
    }
    pthread_mutex_unlock(&s_lines_mutex);
    return status == ESP_OK ? ESP_OK : ESP_ERR_OTA_VALIDATE_FAILED;
}

esp_err_t esp_ota_begin(const esp_partition_t *partition, size_t image_size, esp_ota_handle_t *out_handle)
{
    if (partition == NULL || out_handle == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    partition = esp_partition_verify(partition);
    if (partition == NULL) {
        return ESP_ERR_NOT_FOUND;
    }
    if (!ota_is_slot(partition)) {
        return ESP_ERR_INVALID_ARG;
    }
    const esp_partition_t *running = esp_ota_get_running_partition();
    if (partition == running) {
        return ESP_ERR_OTA_PARTITION_CONFLICT;
    }
#if CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE
    esp_ota_img_states_t state;
    if (esp_ota_get_state_partition(running, &state) == ESP_OK && state == ESP_OTA_IMG_PENDING_VERIFY) {
        ESP_LOGE(TAG, "Running app has not confirmed state (ESP_OTA_IMG_PENDING_VERIFY)");
        return ESP_ERR_OTA_ROLLBACK_INVALID_STATE;
    }
#endif
    entry_t *entry = new_entry(partition);
    if (entry == NULL) {
        return ESP_ERR_NO_MEM;
    }
    *out_handle = entry->handle;
    entry->erases_as_it_goes = image_size == OTA_WITH_SEQUENTIAL_WRITES;
    if (!entry->erases_as_it_goes) {
        const bool whole = image_size == 0 || image_size == OTA_SIZE_UNKNOWN;
        const size_t sector = partition->erase_size;
        const size_t erase_size = whole ? partition->size : (image_size + sector - 1) / sector * sector;
        const esp_err_t err = esp_partition_erase_range(partition, 0, erase_size);
        if (err != ESP_OK) {
            return err; /* the handle stays open, as in ESP-IDF */
        }
    }
#if CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE
    (void)esp_ota_invalidate_inactive_ota_data_slot();
#endif
    return ESP_OK;
}

static esp_err_t erase_ahead(const entry_t *entry, size_t size)
{
    const uint32_t sector = entry->partition->erase_size;
    const uint32_t first = entry->written / sector;
    const uint32_t last = (entry->written + (uint32_t)size - 1) / sector;
    if (entry->written % sector == 0) {
        return esp_partition_erase_range(entry->partition, entry->written,
                                         (size_t)(last - first + 1) * sector);
    }
    if (first != last) {
        return esp_partition_erase_range(entry->partition, (size_t)(first + 1) * sector,
                                         (size_t)(last - first) * sector);
    }
    return ESP_OK;
}

/* Completes and writes a block that an earlier call left unfinished; takes what it needs from `data`. */
static esp_err_t finish_partial(entry_t *entry, const uint8_t **data, size_t *size)
{
    const size_t missing = CIPHER_BLOCK - entry->partial_size;
    const size_t taken = missing < *size ? missing : *size;
    memcpy(entry->partial + entry->partial_size, *data, taken);
    entry->partial_size += taken;
    *data += taken;
    *size -= taken;
    if (entry->partial_size < CIPHER_BLOCK) {
        return ESP_OK;
    }
    const esp_err_t err = esp_partition_write(entry->partition, entry->written, entry->partial, CIPHER_BLOCK);
    if (err == ESP_OK) {
        entry->written += CIPHER_BLOCK;
        entry->partial_size = 0;
        memset(entry->partial, 0xFF, sizeof(entry->partial));
    }
    return err;
}

esp_err_t esp_ota_write(esp_ota_handle_t handle, const void *data, size_t size)
{
    const uint8_t *bytes = data;
    if (data == NULL) {
        ESP_LOGE(TAG, "write data is invalid");
        return ESP_ERR_INVALID_ARG;
    }
    if (size == 0) {
        return ESP_OK;
    }
    entry_t *entry = find_entry(handle);
    if (entry == NULL) {
        ESP_LOGE(TAG, "not found the handle");
        return ESP_ERR_INVALID_ARG;
    }
    if (entry->erases_as_it_goes) {
        const esp_err_t err = erase_ahead(entry, size);
        if (err != ESP_OK) {
            return err;
        }
    }
    if (entry->written == 0 && entry->partial_size == 0 && bytes[0] != ESP_IMAGE_HEADER_MAGIC) {
        ESP_LOGE(TAG, "OTA image has invalid magic byte (expected 0xE9, saw 0x%02x)", bytes[0]);
        return ESP_ERR_OTA_VALIDATE_FAILED;
    }
    if (esp_flash_encryption_enabled()) {
        if (entry->partial_size > 0) {
            const esp_err_t err = finish_partial(entry, &bytes, &size);
            if (err != ESP_OK || entry->partial_size > 0) {
                return err;
            }
        }
        entry->partial_size = size % CIPHER_BLOCK;
        size -= entry->partial_size;
        memcpy(entry->partial, bytes + size, entry->partial_size);
    }
    const esp_err_t err = esp_partition_write(entry->partition, entry->written, bytes, size);
    if (err == ESP_OK) {
        entry->written += (uint32_t)size;
    }
    return err;
}

esp_err_t esp_ota_abort(esp_ota_handle_t handle)
{
    entry_t *entry = find_entry(handle);
    if (entry == NULL) {
        return ESP_ERR_NOT_FOUND;
    }
    entry->handle = 0;
    return ESP_OK;
}

/* What esp_ota_end() does before it gives up the handle. */
static esp_err_t finish(entry_t *entry)
{
    if (entry->written == 0) {
        return ESP_ERR_INVALID_ARG;
    }
    if (entry->partial_size > 0) {
        if (esp_partition_write(entry->partition, entry->written, entry->partial, CIPHER_BLOCK) != ESP_OK) {
            return ESP_ERR_INVALID_STATE;
        }
        entry->written += CIPHER_BLOCK;
        entry->partial_size = 0;
    }
    const esp_err_t err = ota_image_verify(entry->partition, false);
    if (err != ESP_OK) {
        ESP_LOGE(TAG, "New image failed verification");
    }
    return err;
}

esp_err_t esp_ota_end(esp_ota_handle_t handle)
{
    entry_t *entry = find_entry(handle);
    if (entry == NULL) {
        return ESP_ERR_NOT_FOUND;
    }
    const esp_err_t err = finish(entry);
    entry->handle = 0;
    return err;
}

esp_err_t esp_ota_get_partition_description(const esp_partition_t *partition, esp_app_desc_t *app_desc)
{
    if (partition == NULL || app_desc == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    if (partition->type != ESP_PARTITION_TYPE_APP) {
        return ESP_ERR_NOT_SUPPORTED;
    }
    const esp_err_t err =
        esp_partition_read(partition, sizeof(esp_image_header_t) + sizeof(esp_image_segment_header_t),
                           app_desc, sizeof(*app_desc));
    if (err != ESP_OK) {
        return err;
    }
    return app_desc->magic_word == ESP_APP_DESC_MAGIC_WORD ? ESP_OK : ESP_ERR_NOT_FOUND;
}

#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
/* Refuses, and erases, an image whose secure version the eFuses forbid. */
static esp_err_t check_secure_version(const esp_partition_t *partition)
{
    esp_app_desc_t description;
    esp_err_t err = esp_ota_get_partition_description(partition, &description);
    if (err != ESP_OK || esp_efuse_check_secure_version(description.secure_version)) {
        return err;
    }
    ESP_LOGE(TAG,
             "This a new partition can not be booted due to a secure version is lower than stored in efuse. "
             "Partition will be erased.");
    err = esp_partition_erase_range(partition, 0, partition->size);
    return err != ESP_OK ? err : ESP_ERR_OTA_SMALL_SEC_VER;
}
#endif

esp_err_t esp_ota_set_boot_partition(const esp_partition_t *partition)
{
    if (partition == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    if (ota_image_verify(partition, false) != ESP_OK) {
        return ESP_ERR_OTA_VALIDATE_FAILED;
    }
    if (partition->type != ESP_PARTITION_TYPE_APP) {
        return ESP_ERR_INVALID_ARG;
    }
    if (partition->subtype == ESP_PARTITION_SUBTYPE_APP_FACTORY) {
        const esp_partition_t *otadata =
            esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
        return otadata == NULL ? ESP_ERR_NOT_FOUND : esp_partition_erase_range(otadata, 0, otadata->size);
    }
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    const esp_err_t err = check_secure_version(partition);
    if (err != ESP_OK) {
        return err;
    }
#endif
    return otadata_select(partition->subtype);
}
