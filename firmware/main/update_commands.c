/* Commands that update, confirm, take back and look at slots. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "device_state.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "idf_compat.h"
#include "idle_turn.h"
#include "psa/crypto.h"
#include "sdkconfig.h"
#include "stock_ota.h"
#include "uart_source.h"

/* Progress of an update becomes events. */
static void on_progress(void *context, raw_ota_phase_t phase, uint32_t bytes, uint32_t total)
{
    const command_line_t *command = context;
    event_t event;
    event_start(&event, "ota");
    event_add_number(&event, "id", command->id);
    event_add_text(&event, "phase", raw_ota_phase_name(phase));
    event_add_number(&event, "bytes", bytes);
    event_add_number(&event, "total", total);
    event_send(&event);
}

/* Takes over a raw_ota result. */
static void end_raw(command_outcome_t *outcome, const raw_ota_result_t *result)
{
    if (result->error != RAW_OTA_OK) {
        command_fail(outcome, raw_ota_err_name(result->error), result->code, "%s", result->message);
    }
}

static void add_update(event_t *fields, const raw_ota_result_t *result)
{
    if (result->slot[0] != '\0') {
        event_add_text(fields, "slot", result->slot);
        event_add_number(fields, "offset", result->slot_offset);
    }
    if (result->version[0] != '\0') {
        event_add_text(fields, "version", result->version);
    }
    event_add_number(fields, "bytes", result->bytes_written);
    event_add_flag(fields, "repaired", result->repaired);
    event_add_number(fields, "resumes", result->resumes);
    if (result->http_status != 0) {
        event_add_number(fields, "http_status", result->http_status);
    }
    if (result->error == RAW_OTA_OK) {
        event_add_number(fields, "image_size", result->image_size);
        event_add_hex(fields, "sha256", result->body_sha256, sizeof(result->body_sha256));
    }
}

/* Options that updates over the network and over the console share. False: the outcome says what is wrong. */
static bool read_options(const command_line_t *command, raw_ota_options_t *options,
                         command_outcome_t *outcome)
{
    *options = RAW_OTA_OPTIONS_DEFAULT();
    options->bare = command_line_flag(command, "bare");
    options->skip_erase = command_line_flag(command, "noerase");
    options->on_progress = on_progress;
    options->progress_context = (void *)command;
#if !CONFIG_RAW_OTA_TEST_HOOKS
    if (options->skip_erase) {
        command_fail(outcome, "bad-argument", ESP_OK, "this build has no test hooks");
        return false;
    }
#else
    (void)outcome;
#endif
    return true;
}

/* Ends an update with what came of it. */
static void end_update(const command_line_t *command, const raw_ota_result_t *result,
                       command_outcome_t *outcome)
{
    end_raw(outcome, result);
    add_update(&outcome->fields, result);
    if (command_line_flag(command, "reboot")) {
        outcome->then = COMMAND_THEN_RESTART;
    }
}

void command_ota(const command_line_t *command, command_outcome_t *outcome)
{
    const char *url = command_line_get(command, "url");
    raw_ota_options_t options;
    if (!read_options(command, &options, outcome)) {
        return;
    }
    uint32_t resumes = 0;
    uint32_t within_s = 0;
    if (url == NULL || !command_line_number(command, "size", 0, &options.bare_size) ||
        !command_line_number(command, "resumes", UINT32_MAX, &resumes) ||
        !command_line_number(command, "within_s", 0, &within_s)) {
        command_fail(outcome, "bad-argument", ESP_OK,
                     "ota needs url=, and numbers for size=, resumes= and within_s=");
        return;
    }
    options.resumes = resumes <= INT16_MAX ? (int)resumes : -1;
    options.total_timeout_s = within_s <= INT16_MAX ? (int)within_s : 0;
    raw_ota_result_t result;
    (void)raw_ota_update_from_url(url, &options, &result);
    end_update(command, &result, outcome);
}

void command_ota_uart(const command_line_t *command, command_outcome_t *outcome)
{
    uart_source_t source = {.id = command->id};
    raw_ota_options_t options;
    if (!read_options(command, &options, outcome)) {
        return;
    }
    if (!command_line_number(command, "size", 0, &source.size) || source.size == 0) {
        command_fail(outcome, "bad-argument", ESP_OK,
                     "ota-uart needs size=, the bytes of the whole transfer");
        return;
    }
    const raw_ota_source_t bytes = {.context = &source, .read = uart_source_read, .size = source.size};
    raw_ota_result_t result;
    (void)raw_ota_update(&bytes, &options, &result);
    end_update(command, &result, outcome);
    if (source.timed_out) {
        command_fail(outcome, "uart-timeout", ESP_OK, "asked %d times for byte %" PRIu32 " in vain",
                     CONFIG_COMPANION_UART_ATTEMPTS, source.missing);
    }
    event_add_number(&outcome->fields, "repeats", source.repeats);
}

void command_ota_stock(const command_line_t *command, command_outcome_t *outcome)
{
    const char *url = command_line_get(command, "url");
    if (url == NULL) {
        command_fail(outcome, "bad-argument", ESP_OK, "ota-stock needs url=");
        return;
    }
    stock_ota_result_t result;
    const raw_ota_err_t err = stock_ota_update(url, &result);
    if (err != RAW_OTA_OK) {
        command_fail(outcome, raw_ota_err_name(err), result.code, "%s", result.step);
    }
    event_add_number(&outcome->fields, "bytes", result.bytes);
    if (result.http_status != 0) {
        event_add_number(&outcome->fields, "http_status", result.http_status);
    }
    if (command_line_flag(command, "reboot")) {
        outcome->then = COMMAND_THEN_RESTART;
    }
}

void command_confirm(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    raw_ota_result_t result;
    (void)raw_ota_confirm(&result);
    end_raw(outcome, &result);
    device_state_add(&outcome->fields);
}

void command_repair(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    raw_ota_result_t result;
    (void)raw_ota_repair(&result);
    end_raw(outcome, &result);
    event_add_flag(&outcome->fields, "repaired", result.repaired);
    device_state_add(&outcome->fields);
}

void command_rollback(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    command_end_esp(outcome, idf_compat_prepare_rollback(), "marking the running version invalid");
    outcome->then = COMMAND_THEN_CALL;
    outcome->last_call = idf_compat_finish_rollback;
}

/* SHA-256 over the raw bytes of a partition. */
static psa_status_t hash_raw(const esp_partition_t *partition, uint32_t size, uint8_t sha256[32],
                             esp_err_t *read)
{
    static uint8_t s_piece[4096]; /* `hash` is carried out one at a time: see command_hash */
    psa_hash_operation_t hash = PSA_HASH_OPERATION_INIT;
    int64_t rested_us = 0;
    psa_status_t status = psa_crypto_init();
    if (status == PSA_SUCCESS) {
        status = psa_hash_setup(&hash, PSA_ALG_SHA_256);
    }
    for (uint32_t at = 0; at < size && status == PSA_SUCCESS && *read == ESP_OK;) {
        const uint32_t piece = size - at < sizeof(s_piece) ? size - at : sizeof(s_piece);
        *read = esp_partition_read_raw(partition, at, s_piece, piece);
        if (*read == ESP_OK) {
            status = psa_hash_update(&hash, s_piece, piece);
        }
        idle_turn(&rested_us);
        at += piece;
    }
    size_t hash_size = 0;
    if (status == PSA_SUCCESS && *read == ESP_OK) {
        status = psa_hash_finish(&hash, sha256, 32, &hash_size);
    }
    (void)psa_hash_abort(&hash);
    return status;
}

void command_hash(const command_line_t *command, command_outcome_t *outcome)
{
    const char *label = command_line_get(command, "slot");
    const esp_partition_t *partition =
        label != NULL ? esp_partition_find_first(ESP_PARTITION_TYPE_ANY, ESP_PARTITION_SUBTYPE_ANY, label)
                      : NULL;
    if (partition == NULL) {
        command_fail(outcome, "bad-argument", ESP_ERR_NOT_FOUND,
                     "hash needs slot= with the label of a partition");
        return;
    }
    uint32_t size = 0;
    if (!command_line_number(command, "len", partition->size, &size) || size > partition->size) {
        command_fail(outcome, "bad-argument", ESP_OK, "len= is not a number up to %" PRIu32, partition->size);
        return;
    }
    /* An update must not change the slot meanwhile, nor a second `hash` share the buffer. */
    if (!raw_ota_lock()) {
        command_fail(outcome, raw_ota_err_name(RAW_OTA_BUSY), ESP_OK, "an update is under way");
        return;
    }
    uint8_t sha256[32];
    esp_err_t read = ESP_OK;
    const psa_status_t status = hash_raw(partition, size, sha256, &read);
    raw_ota_unlock();
    if (read != ESP_OK) {
        command_end_esp(outcome, read, "esp_partition_read_raw");
    } else if (status != PSA_SUCCESS) {
        command_fail(outcome, raw_ota_err_name(RAW_OTA_NO_MEMORY), ESP_FAIL, "SHA-256 failed (psa %d)",
                     (int)status);
    } else {
        event_add_text(&outcome->fields, "slot", partition->label);
        event_add_number(&outcome->fields, "len", size);
        event_add_hex(&outcome->fields, "sha256", sha256, sizeof(sha256));
    }
}

void command_probe(const command_line_t *command, command_outcome_t *outcome)
{
    const char *url = command_line_get(command, "url");
    if (url == NULL) {
        command_fail(outcome, "bad-argument", ESP_OK, "probe needs url=");
        return;
    }
    stock_ota_result_t result;
    const raw_ota_err_t err = stock_ota_probe(url, &result);
    if (err != RAW_OTA_OK) {
        command_fail(outcome, raw_ota_err_name(err), result.code, "%s", result.step);
    }
    event_add_number(&outcome->fields, "http_status", result.http_status);
    event_add_number(&outcome->fields, "length", result.length);
}
