/** Getting the body into the slot: download, raw write, first-sector check, hashes. */
#pragma once

#include "raw_ota_package.h"

/** One update under way. */
typedef struct {
    const raw_ota_source_t *source;
    const raw_ota_options_t *options;
    raw_ota_result_t *result;
    const esp_partition_t *slot;
    raw_ota_package_t package; /**< all zero for a bare transfer */
    uint32_t body_size;
} raw_ota_job_t;

/** Tells the caller's progress callback, if there is one. */
void raw_ota_report(const raw_ota_job_t *job, raw_ota_phase_t phase, uint32_t bytes);

/** Reads until `size` bytes are there or the source ends; the number of bytes goes to `filled`. */
raw_ota_err_t raw_ota_fill(const raw_ota_job_t *job, uint8_t *buffer, size_t size, size_t *filled);

/** Downloads the body and writes it into the erased slot; judges the first sector on the way. */
raw_ota_err_t raw_ota_write_body(const raw_ota_job_t *job);

/** Reads the slot back: raw against the hash of what was received, deciphered against the image's hash. */
raw_ota_err_t raw_ota_verify_body(const raw_ota_job_t *job);
