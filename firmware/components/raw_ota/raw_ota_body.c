#include "raw_ota_body.h"

#include <inttypes.h>
#include <string.h>

#include "esp_app_desc.h"
#include "esp_app_format.h"
#include "esp_log.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "psa/crypto.h"
#include "sdkconfig.h"

static const char *TAG = "raw_ota";

_Static_assert(CONFIG_RAW_OTA_BUFFER_SIZE % RAW_OTA_SECTOR_SIZE == 0,
               "RAW_OTA_BUFFER_SIZE is not in whole sectors");
/* Both belong to the holder of the lock. The first is what goes to flash; the second is for looking at flash
 * while the first is still needed. */
static uint8_t s_buffer[CONFIG_RAW_OTA_BUFFER_SIZE] __attribute__((aligned(16)));
static uint8_t s_readback[512] __attribute__((aligned(16)));

/* What an application image begins with. */
typedef struct {
    esp_image_header_t header;
    esp_image_segment_header_t segment;
    esp_app_desc_t description;
} image_head_t;

_Static_assert(sizeof(image_head_t) == RAW_OTA_SMALLEST_IMAGE, "the image's head has no gaps");

void raw_ota_report(const raw_ota_job_t *job, raw_ota_phase_t phase, uint32_t bytes)
{
    if (job->options->on_progress != NULL) {
        job->options->on_progress(job->options->progress_context, phase, bytes, job->body_size);
    }
}

raw_ota_err_t raw_ota_fill(const raw_ota_job_t *job, uint8_t *buffer, size_t size, size_t *filled)
{
    *filled = 0;
    while (*filled < size) {
        const int got = job->source->read(job->source->context, buffer + *filled, size - *filled);
        if (got == 0) {
            return RAW_OTA_OK;
        }
        if (got < 0) {
            const raw_ota_err_t error = (raw_ota_err_t)-got;
            if (job->result->error == RAW_OTA_OK) {
                return raw_ota_fail(job->result, error, ESP_OK, "the source of the update failed");
            }
            return error;
        }
        *filled += (size_t)got;
    }
    return RAW_OTA_OK;
}

/* Sleeps for a tick now and then: a task that writes or hashes a whole slot without a pause would starve the
 * idle task, and the task watchdog would end it. By time, since flash may be slow. */
static void rest_now_and_then(void)
{
    static int64_t s_rested_us; /* of the holder of the lock */
    const int64_t now_us = esp_timer_get_time();
    if (now_us - s_rested_us > 500 * 1000) {
        vTaskDelay(1);
        s_rested_us = now_us;
    }
}

static raw_ota_err_t fail_hash(const raw_ota_job_t *job, psa_status_t status)
{
    return raw_ota_fail(job->result, RAW_OTA_NO_MEMORY, ESP_FAIL, "SHA-256 failed (psa %d)", (int)status);
}

/* Whether `head` is the beginning of an application. One byte alone would pass noise one time in 256; these
 * fields together pass it one time in 2^44. */
static bool is_image_head(const image_head_t *head)
{
    return head->header.magic == ESP_IMAGE_HEADER_MAGIC && head->header.segment_count >= 1 &&
           head->header.segment_count <= ESP_IMAGE_MAX_SEGMENTS &&
           head->description.magic_word == ESP_APP_DESC_MAGIC_WORD;
}

/* Flash holds exactly what was received? If not, the sector was not erased before. */
static raw_ota_err_t check_written(const raw_ota_job_t *job, size_t size)
{
    for (size_t at = 0; at < size; at += sizeof(s_readback)) {
        const size_t piece = size - at < sizeof(s_readback) ? size - at : sizeof(s_readback);
        const esp_err_t err = esp_partition_read_raw(job->slot, at, s_readback, piece);
        if (err != ESP_OK) {
            return raw_ota_fail_esp(job->result, err, "esp_partition_read_raw of the first sector");
        }
        if (memcmp(s_readback, s_buffer + at, piece) != 0) {
            return raw_ota_fail(job->result, RAW_OTA_NOT_ERASED, ESP_OK,
                                "%s does not hold what was written: it was not erased", job->slot->label);
        }
    }
    return RAW_OTA_OK;
}

/* What deciphered is for this chip and carries a hash? */
static raw_ota_err_t check_image_header(const raw_ota_job_t *job, const esp_image_header_t *header)
{
    if (header->chip_id != CONFIG_IDF_FIRMWARE_CHIP_ID) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_DESCRIPTION, ESP_OK,
                            "image is for chip id %u, this chip is %u", (unsigned)header->chip_id,
                            CONFIG_IDF_FIRMWARE_CHIP_ID);
    }
    if (header->hash_appended != 1) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_DESCRIPTION, ESP_OK, "image has no hash of its own");
    }
    return RAW_OTA_OK;
}

/* The description of what deciphered agrees with the header (package) or with the running application (bare)?
 */
static raw_ota_err_t check_description(const raw_ota_job_t *job, const esp_app_desc_t *description)
{
    const esp_app_desc_t *running = esp_app_get_description();
    const bool bare = job->options->bare;
    const char *project = bare ? running->project_name : job->package.project_name;
    memcpy(job->result->version, description->version, sizeof(description->version));
    if (strncmp(description->project_name, project, sizeof(description->project_name)) != 0) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_DESCRIPTION, ESP_OK,
                            "image is of project %.32s, not %.32s", description->project_name, project);
    }
    if (bare) {
        return raw_ota_check_secure_version(description->secure_version, job->result);
    }
    if (strncmp(description->version, job->package.version, sizeof(description->version)) != 0) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_DESCRIPTION, ESP_OK,
                            "image is version %.32s, the header says %s", description->version,
                            job->package.version);
    }
    if (description->secure_version != job->package.secure_version) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_DESCRIPTION, ESP_OK,
                            "image has secure version %" PRIu32 ", the header says %" PRIu32,
                            description->secure_version, job->package.secure_version);
    }
    return RAW_OTA_OK;
}

/* Judges the first sector, which is in s_buffer and in flash. */
static raw_ota_err_t check_first_sector(const raw_ota_job_t *job, size_t size)
{
    raw_ota_err_t err = check_written(job, size);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (raw_ota_is_encrypted() && is_image_head((const image_head_t *)s_buffer)) {
        return raw_ota_fail(job->result, RAW_OTA_PLAINTEXT_IMAGE, ESP_OK,
                            "this is a plaintext image; a raw update wants ciphertext");
    }
    _Static_assert(sizeof(s_readback) >= sizeof(image_head_t), "image head does not fit");
    const esp_err_t read = esp_partition_read(job->slot, 0, s_readback, sizeof(image_head_t));
    if (read != ESP_OK) {
        return raw_ota_fail_esp(job->result, read, "deciphering read of the first sector");
    }
    const image_head_t *head = (const image_head_t *)s_readback;
    if (!is_image_head(head)) {
        return raw_ota_fail(job->result, RAW_OTA_NOT_DECIPHERED, ESP_OK,
                            "does not decipher to an image at 0x%" PRIx32
                            " (first byte 0x%02x): another key or slot",
                            job->slot->address, head->header.magic);
    }
    err = check_image_header(job, &head->header);
    if (err == RAW_OTA_OK) {
        err = check_description(job, &head->description);
    }
    if (err == RAW_OTA_OK) {
        ESP_LOGI(TAG, "first sector deciphers to version %s", job->result->version);
    }
    return err;
}

/* Receives, hashes and writes one piece of up to a buffer; its size goes to `size`. */
static raw_ota_err_t move_piece(const raw_ota_job_t *job, uint32_t at, psa_hash_operation_t *hash,
                                size_t *size)
{
    const uint32_t left = job->body_size - at;
    /* The first sector travels alone: it is judged before anything more is fetched. */
    const size_t most = at == 0 ? RAW_OTA_SECTOR_SIZE : sizeof(s_buffer);
    *size = left < most ? left : most;
    size_t filled = 0;
    const raw_ota_err_t err = raw_ota_fill(job, s_buffer, *size, &filled);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (filled < *size) {
        return raw_ota_fail(job->result, RAW_OTA_TRUNCATED, ESP_OK,
                            "transfer ended after %" PRIu32 " of %" PRIu32 " bytes", at + (uint32_t)filled,
                            job->body_size);
    }
    const psa_status_t status = psa_hash_update(hash, s_buffer, *size);
    if (status != PSA_SUCCESS) {
        return fail_hash(job, status);
    }
    const esp_err_t written = esp_partition_write_raw(job->slot, at, s_buffer, *size);
    if (written != ESP_OK) {
        return raw_ota_fail_esp(job->result, written, "esp_partition_write_raw");
    }
    job->result->bytes_written = at + (uint32_t)*size;
    return RAW_OTA_OK;
}

static raw_ota_err_t write_pieces(const raw_ota_job_t *job, psa_hash_operation_t *hash)
{
    uint32_t reported = 0;
    for (uint32_t at = 0; at < job->body_size;) {
        size_t size = 0;
        raw_ota_err_t err = move_piece(job, at, hash, &size);
        if (err == RAW_OTA_OK && at == 0) {
            err = check_first_sector(job, size);
            if (err == RAW_OTA_OK) {
                raw_ota_report(job, RAW_OTA_PHASE_FIRST_SECTOR, (uint32_t)size);
            }
        }
        if (err != RAW_OTA_OK) {
            return err;
        }
        rest_now_and_then();
        at += (uint32_t)size;
        if (at - reported >= CONFIG_RAW_OTA_PROGRESS_STEP || at == job->body_size) {
            raw_ota_report(job, RAW_OTA_PHASE_WRITE, at);
            reported = at;
        }
    }
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_write_body(const raw_ota_job_t *job)
{
    psa_hash_operation_t hash = PSA_HASH_OPERATION_INIT;
    psa_status_t status = psa_crypto_init();
    if (status == PSA_SUCCESS) {
        status = psa_hash_setup(&hash, PSA_ALG_SHA_256);
    }
    if (status != PSA_SUCCESS) {
        return fail_hash(job, status);
    }
    const raw_ota_err_t err = write_pieces(job, &hash);
    if (err != RAW_OTA_OK) {
        (void)psa_hash_abort(&hash);
        return err;
    }
    size_t hash_size = 0;
    uint8_t *sha256 = job->result->body_sha256;
    status = psa_hash_finish(&hash, sha256, sizeof(job->result->body_sha256), &hash_size);
    if (status != PSA_SUCCESS) {
        (void)psa_hash_abort(&hash);
        return fail_hash(job, status);
    }
    if (!job->options->bare && memcmp(sha256, job->package.body_sha256, hash_size) != 0) {
        return raw_ota_fail(job->result, RAW_OTA_BODY_HASH, ESP_OK,
                            "received bytes do not have the hash that the header signs");
    }
    return RAW_OTA_OK;
}

/* SHA-256 over the first `size` bytes of the slot, read with `read` (raw or deciphering). */
static raw_ota_err_t hash_slot(const raw_ota_job_t *job,
                               esp_err_t (*read)(const esp_partition_t *, size_t, void *, size_t),
                               uint32_t size, uint8_t sha256[32])
{
    psa_hash_operation_t hash = PSA_HASH_OPERATION_INIT;
    psa_status_t status = psa_hash_setup(&hash, PSA_ALG_SHA_256);
    for (uint32_t at = 0; at < size && status == PSA_SUCCESS;) {
        const uint32_t piece = size - at < sizeof(s_buffer) ? size - at : sizeof(s_buffer);
        const esp_err_t err = read(job->slot, at, s_buffer, piece);
        if (err != ESP_OK) {
            (void)psa_hash_abort(&hash);
            return raw_ota_fail_esp(job->result, err, "reading the slot back");
        }
        status = psa_hash_update(&hash, s_buffer, piece);
        rest_now_and_then();
        at += piece;
    }
    size_t hash_size = 0;
    if (status == PSA_SUCCESS) {
        status = psa_hash_finish(&hash, sha256, 32, &hash_size);
    }
    if (status != PSA_SUCCESS) {
        (void)psa_hash_abort(&hash);
        return fail_hash(job, status);
    }
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_verify_body(const raw_ota_job_t *job)
{
    uint8_t sha256[32];
    raw_ota_err_t err = hash_slot(job, esp_partition_read_raw, job->body_size, sha256);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (memcmp(sha256, job->result->body_sha256, sizeof(sha256)) != 0) {
        return raw_ota_fail(job->result, RAW_OTA_READBACK_MISMATCH, ESP_OK,
                            "%s does not hold what was received", job->slot->label);
    }
    if (job->options->bare) {
        return RAW_OTA_OK;
    }
    err = hash_slot(job, esp_partition_read, job->package.image_size, sha256);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (memcmp(sha256, job->package.image_sha256, sizeof(sha256)) != 0) {
        return raw_ota_fail(job->result, RAW_OTA_IMAGE_HASH, ESP_OK,
                            "deciphered image does not have the hash that the header signs");
    }
    return RAW_OTA_OK;
}
