#include "raw_ota.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "esp_flash_encrypt.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "raw_ota_body.h"
#include "raw_ota_http.h"
#include "sdkconfig.h"

static const char *TAG = "raw_ota";

/* Taken without waiting by every update, raw or stock. */
static atomic_flag s_lock = ATOMIC_FLAG_INIT;

bool raw_ota_lock(void)
{
    return !atomic_flag_test_and_set(&s_lock);
}

void raw_ota_unlock(void)
{
    atomic_flag_clear(&s_lock);
}

bool raw_ota_is_encrypted(void)
{
    /* esp_flash_encryption_enabled() is deprecated from v6.0, its successor absent before. */
    return esp_get_flash_encryption_mode() != ESP_FLASH_ENC_MODE_DISABLED;
}

/* The slot to write: the next OTA slot after the running one. */
static raw_ota_err_t choose_slot(raw_ota_job_t *job)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    const esp_partition_t *slot = esp_ota_get_next_update_partition(NULL);
    if (slot == NULL) {
        return raw_ota_fail(job->result, RAW_OTA_NO_SLOT, ESP_ERR_NOT_FOUND,
                            "the partition table has no OTA slot");
    }
    memcpy(job->result->slot, slot->label, sizeof(job->result->slot));
    job->result->slot_offset = slot->address;
    if (slot == running) {
        return raw_ota_fail(job->result, RAW_OTA_RUNNING_SLOT, ESP_OK, "%s runs and is the only OTA slot",
                            slot->label);
    }
    job->slot = slot;
    return RAW_OTA_OK;
}

/* Receives and judges the header. */
static raw_ota_err_t take_header(raw_ota_job_t *job)
{
    uint8_t raw[RAW_OTA_HEADER_SIZE];
    size_t filled = 0;
    raw_ota_err_t err = raw_ota_fill(job, raw, sizeof(raw), &filled);
    if (err != RAW_OTA_OK) {
        return err;
    }
    if (filled < sizeof(raw)) {
        return raw_ota_fail(job->result, RAW_OTA_TRUNCATED, ESP_OK,
                            "transfer ended after %u bytes of the header", (unsigned)filled);
    }
    raw_ota_report(job, RAW_OTA_PHASE_HEADER, 0);
    err = raw_ota_package_parse(raw, &job->package, job->result);
    /* Signature first: nothing else in the header is believed before it. */
    if (err == RAW_OTA_OK) {
        err = raw_ota_package_check_signature(raw, job->result);
    }
    if (err == RAW_OTA_OK) {
        err = raw_ota_package_check(&job->package, job->slot, job->source->size, job->result);
    }
    if (err != RAW_OTA_OK) {
        return err;
    }
    job->body_size = job->package.body_size;
    job->result->image_size = job->package.image_size;
    memcpy(job->result->version, job->package.version, sizeof(job->result->version));
    ESP_LOGI(TAG, "package: version %s, %" PRIu32 " bytes for %s at 0x%" PRIx32, job->package.version,
             job->body_size, job->slot->label, job->slot->address);
    return RAW_OTA_OK;
}

/* A bare transfer has only its length to be judged by. */
static raw_ota_err_t take_bare_size(raw_ota_job_t *job)
{
#if !CONFIG_RAW_OTA_ALLOW_BARE
    return raw_ota_fail(job->result, RAW_OTA_BARE_NOT_ALLOWED, ESP_OK,
                        "this application accepts signed packages only");
#else
    const int64_t transfer = job->source->size;
    const int64_t asked = job->options->bare_size;
    if (transfer < 0 && asked == 0) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "neither the transfer nor the caller gives a size");
    }
    if (transfer >= 0 && asked > 0 && asked != transfer) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "transfer has %" PRId64 " bytes, not %" PRId64, transfer, asked);
    }
    const int64_t size = transfer >= 0 ? transfer : asked;
    if (size > (int64_t)job->slot->size) {
        return raw_ota_fail(job->result, RAW_OTA_TOO_LARGE, ESP_OK,
                            "%" PRId64 " bytes do not fit %s of %" PRIu32, size, job->slot->label,
                            job->slot->size);
    }
    if (size < RAW_OTA_SMALLEST_IMAGE || (raw_ota_is_encrypted() && size % RAW_OTA_CIPHER_BLOCK != 0)) {
        return raw_ota_fail(job->result, RAW_OTA_WRONG_SIZE, ESP_OK,
                            "%" PRId64 " bytes are no enciphered image", size);
    }
    job->body_size = (uint32_t)size;
    raw_ota_report(job, RAW_OTA_PHASE_HEADER, 0);
    ESP_LOGW(TAG, "bare ciphertext: %" PRIu32 " bytes for %s at 0x%" PRIx32 ", unsigned", job->body_size,
             job->slot->label, job->slot->address);
    return RAW_OTA_OK;
#endif
}

/* While the running version is unconfirmed the other slot is the only good fall-back. */
static raw_ota_err_t refuse_unconfirmed(const raw_ota_job_t *job)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    esp_ota_img_states_t state = ESP_OTA_IMG_UNDEFINED;
    if (esp_ota_get_state_partition(running, &state) == ESP_OK && state == ESP_OTA_IMG_PENDING_VERIFY) {
        return raw_ota_fail(job->result, RAW_OTA_PENDING_VERIFY, ESP_OK, "%s is not confirmed yet",
                            running->label);
    }
    return RAW_OTA_OK;
}

/* From erase to verified: everything during which an OTA handle is open. It is aborted on every path:
 * esp_ota_end() would refuse a handle that nothing was written through. */
static raw_ota_err_t fill_slot(const raw_ota_job_t *job)
{
    size_t erase_size = job->body_size;
#if CONFIG_RAW_OTA_TEST_HOOKS
    if (job->options->skip_erase) {
        ESP_LOGW(TAG, "test hook: not erasing");
        erase_size = OTA_WITH_SEQUENTIAL_WRITES;
    }
#endif
    raw_ota_report(job, RAW_OTA_PHASE_ERASE, 0);
    /* Handles count from 1; a begin that fails in its erase leaves one behind all the same. */
    esp_ota_handle_t handle = 0;
    const esp_err_t begun = esp_ota_begin(job->slot, erase_size, &handle);
    raw_ota_err_t err;
    if (begun != ESP_OK) {
        err = raw_ota_fail_esp(job->result, begun, "esp_ota_begin");
    } else {
        if (erase_size == job->body_size) {
            raw_ota_report(job, RAW_OTA_PHASE_ERASED, 0);
        }
        err = raw_ota_forget_replaced(job->slot, job->result);
        if (err == RAW_OTA_OK) {
            err = raw_ota_write_body(job);
        }
        if (err == RAW_OTA_OK) {
            raw_ota_report(job, RAW_OTA_PHASE_VERIFY, job->body_size);
            err = raw_ota_verify_body(job);
        }
    }
    if (handle != 0) {
        const esp_err_t aborted = esp_ota_abort(handle);
        if (aborted != ESP_OK && err == RAW_OTA_OK) {
            err = raw_ota_fail_esp(job->result, aborted, "esp_ota_abort");
        }
    }
    return err;
}

static raw_ota_err_t run(raw_ota_job_t *job)
{
    raw_ota_err_t err = choose_slot(job);
    if (err == RAW_OTA_OK) {
        err = job->options->bare ? take_bare_size(job) : take_header(job);
    }
    if (err == RAW_OTA_OK) {
        if (job->source->expect != NULL) {
            const int64_t header = job->options->bare ? 0 : RAW_OTA_HEADER_SIZE;
            job->source->expect(job->source->context, header + job->body_size);
        }
        err = refuse_unconfirmed(job);
    }
    if (err == RAW_OTA_OK) {
        raw_ota_report(job, RAW_OTA_PHASE_BEGIN, 0);
        err = raw_ota_repair_locked(job->result);
    }
    if (err == RAW_OTA_OK) {
        err = fill_slot(job);
    }
    if (err != RAW_OTA_OK) {
        return err;
    }
    raw_ota_report(job, RAW_OTA_PHASE_SWITCH, job->body_size);
    const esp_err_t selected = esp_ota_set_boot_partition(job->slot);
    if (selected != ESP_OK) {
        return raw_ota_fail_esp(job->result, selected, "esp_ota_set_boot_partition");
    }
    /* After the largest number comes 0xffffffff, which means empty: ESP-IDF writes it and says ESP_OK. */
    const esp_partition_t *next = esp_ota_get_boot_partition();
    if (next == NULL || next->address != job->slot->address) {
        return raw_ota_fail(job->result, RAW_OTA_FLASH, ESP_ERR_OTA_SELECT_INFO_INVALID,
                            "otadata was written and does not name %s", job->slot->label);
    }
    ESP_LOGI(TAG, "%s (version %.32s) is selected for the next boot", job->slot->label, job->result->version);
    return RAW_OTA_OK;
}

raw_ota_err_t raw_ota_update(const raw_ota_source_t *source, const raw_ota_options_t *options,
                             raw_ota_result_t *result)
{
    const raw_ota_options_t defaults = RAW_OTA_OPTIONS_DEFAULT();
    memset(result, 0, sizeof(*result));
    if (!raw_ota_lock()) {
        return raw_ota_fail(result, RAW_OTA_BUSY, ESP_OK, "another update is under way");
    }
    raw_ota_job_t job = {
        .source = source,
        .options = options != NULL ? options : &defaults,
        .result = result,
    };
    const raw_ota_err_t err = run(&job);
    raw_ota_unlock();
    return err;
}

raw_ota_err_t raw_ota_update_from_url(const char *url, const raw_ota_options_t *options,
                                      raw_ota_result_t *result)
{
    const raw_ota_options_t defaults = RAW_OTA_OPTIONS_DEFAULT();
    memset(result, 0, sizeof(*result));
    if (!raw_ota_lock()) {
        return raw_ota_fail(result, RAW_OTA_BUSY, ESP_OK, "another update is under way");
    }
    /* The connection is opened under the lock: a refused second update must not load the server. */
    raw_ota_http_t http;
    raw_ota_source_t source = {
        .context = &http, .read = raw_ota_http_read, .size = -1, .expect = raw_ota_http_expect};
    raw_ota_job_t job = {
        .source = &source,
        .options = options != NULL ? options : &defaults,
        .result = result,
    };
    raw_ota_err_t err = raw_ota_http_open(&http, url, job.options, result);
    if (err == RAW_OTA_OK) {
        source.size = http.size;
        err = run(&job);
    }
    raw_ota_http_close(&http);
    raw_ota_unlock();
    return err;
}
