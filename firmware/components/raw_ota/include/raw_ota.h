/**
 * @file raw_ota.h
 * Updates whose bytes are already enciphered for this device, this slot and its flash-encryption key.
 *
 * The stock OTA functions encipher what they are given; an image that left the server as ciphertext would be
 * enciphered twice. This component writes the bytes as they are (`esp_partition_write_raw`) and keeps the
 * guards that going round `esp_ota_write` would lose:
 *
 *  - never the running slot, never two updates at once, never while the running version is unconfirmed;
 *  - nothing is erased before the package header is complete, signed and made for this chip, device and slot;
 *  - after a fall-back boot otadata is put in step with what runs before the other slot is touched;
 *  - the first sector is read back through the deciphering path before the rest is downloaded;
 *  - SHA-256 over what was received, over what the flash holds, and over what it deciphers to;
 *  - `esp_ota_set_boot_partition` verifies the image (and its signature with secure boot) before the switch.
 *
 * Sizes and offsets are bytes, multi-byte fields of the package are little endian. The package format is
 * described in the README of this component. No function here restarts the device.
 *
 * Stack: call the update functions from a task with at least 12 KiB of stack; checking an ECDSA signature
 * and, with secure boot, an RSA signature needs most of it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "esp_err.h"
#include "esp_flash_partitions.h"
#include "esp_partition.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of the package header that comes before the enciphered image. */
#define RAW_OTA_HEADER_SIZE 256

/** Why an update ended. The names that raw_ota_err_name() gives are part of the UART protocol. */
typedef enum {
    RAW_OTA_OK = 0,

    /* Package header. Nothing has been erased or written. */
    RAW_OTA_BAD_MAGIC,              /**< not a package */
    RAW_OTA_BAD_HEADER_VERSION,     /**< a later header version, or flags this code does not know */
    RAW_OTA_BAD_HEADER_SIZE,        /**< the header's own size field is wrong */
    RAW_OTA_BAD_SIGNATURE,          /**< no compiled-in key made this signature over these header bytes */
    RAW_OTA_NO_SIGNATURE_KEY,       /**< the application was built without a public key */
    RAW_OTA_WRONG_CHIP,             /**< made for another chip */
    RAW_OTA_WRONG_DEVICE,           /**< made for another base MAC */
    RAW_OTA_WRONG_SLOT,             /**< enciphered for another offset, or otadata names another slot */
    RAW_OTA_WRONG_CIPHER,           /**< not the cipher that this device deciphers with */
    RAW_OTA_WRONG_SIZE,             /**< sizes contradict each other, the slot or the transfer's length */
    RAW_OTA_WRONG_VERSION,          /**< no readable version, or another project's image */
    RAW_OTA_SECURE_VERSION_TOO_OLD, /**< secure version below the running one's or the eFuse's */
    RAW_OTA_BARE_NOT_ALLOWED,       /**< no header, and CONFIG_RAW_OTA_ALLOW_BARE is off */

    /* State of the device. Nothing has been erased or written. */
    RAW_OTA_BUSY,           /**< another update holds the lock */
    RAW_OTA_PENDING_VERIFY, /**< the running version has not been confirmed yet */
    RAW_OTA_RUNNING_SLOT,   /**< the only slot there is to write is the one that runs */
    RAW_OTA_NO_SLOT,        /**< no OTA slot or no otadata partition in the table */

    /* First sector. The slot has been erased and one sector written. */
    RAW_OTA_NOT_ERASED,        /**< flash holds something else than what was written */
    RAW_OTA_PLAINTEXT_IMAGE,   /**< the bytes received are a plaintext image */
    RAW_OTA_NOT_DECIPHERED,    /**< does not decipher to an image here: another key, or another offset */
    RAW_OTA_WRONG_DESCRIPTION, /**< deciphers to an image whose description contradicts the header */

    /* Rest of the image. The slot holds something unusable; otadata is untouched. */
    RAW_OTA_TRUNCATED,         /**< the transfer is shorter than the package, or ended before it */
    RAW_OTA_BODY_HASH,         /**< received bytes do not have the hash that the header signs */
    RAW_OTA_READBACK_MISMATCH, /**< flash does not hold what was received */
    RAW_OTA_IMAGE_HASH,        /**< deciphered image does not have the hash that the header signs */
    RAW_OTA_IMAGE_INVALID,     /**< ESP-IDF's image verification refused it (ESP_ERR_OTA_VALIDATE_FAILED) */

    /* Transfer. */
    RAW_OTA_HTTP_CONNECT,  /**< no connection: name, address, port, transport */
    RAW_OTA_HTTP_STATUS,   /**< an answer other than 200, or too many redirects */
    RAW_OTA_HTTP_TIMEOUT,  /**< nothing came for CONFIG_RAW_OTA_HTTP_TIMEOUT_MS, or the total time is up */
    RAW_OTA_HTTP_READ,     /**< the connection broke (reset, or no answer) before the transfer was complete */
    RAW_OTA_HTTP_ENCODING, /**< the server packed the file (gzip, ...), which was not asked for */
    RAW_OTA_CHANGED,       /**< broken transfer: the server's file is no longer the one that it began with */
    RAW_OTA_SOURCE,        /**< raw_ota_update(): the caller's source gave up, for a reason that it knows */
    RAW_OTA_TOO_LARGE,     /**< larger than the slot */

    /* Platform. */
    RAW_OTA_FLASH,     /**< a flash, otadata or esp_ota_* call failed; raw_ota_result_t::code says how */
    RAW_OTA_NO_MEMORY, /**< an allocation failed, or the crypto engine refused */

    RAW_OTA_ERR_COUNT, /**< not an error: how many there are */
} raw_ota_err_t;

/** Stages of an update, in order. */
typedef enum {
    RAW_OTA_PHASE_HEADER,       /**< header received, not yet judged */
    RAW_OTA_PHASE_BEGIN,        /**< every check that needs no flash operation has passed */
    RAW_OTA_PHASE_ERASE,        /**< the slot is about to be erased */
    RAW_OTA_PHASE_ERASED,       /**< the slot is erased; not with the test hook that leaves that out */
    RAW_OTA_PHASE_FIRST_SECTOR, /**< the first sector is written and deciphers to the announced image */
    RAW_OTA_PHASE_WRITE,        /**< bytes of the body written so far */
    RAW_OTA_PHASE_VERIFY,       /**< all bytes written; reading back */
    RAW_OTA_PHASE_SWITCH,       /**< verified; about to write otadata */
} raw_ota_phase_t;

/** Called in the task of the update. `bytes` of `total` bytes of the body are in flash. */
typedef void (*raw_ota_progress_t)(void *context, raw_ota_phase_t phase, uint32_t bytes, uint32_t total);

/** Where the bytes come from. */
typedef struct {
    void *context;
    /**
     * Fills `buffer` with up to `capacity` bytes.
     * @return number of bytes (> 0), 0 at the end of the transfer, or a negated raw_ota_err_t.
     */
    int (*read)(void *context, uint8_t *buffer, size_t capacity);
    /** Bytes of the whole transfer, header included; -1 when unknown. */
    int64_t size;
    /**
     * May be NULL. Told the bytes of the whole transfer once the header, or the caller, has given them: a
     * source that could not know ends too early when it ends before.
     */
    void (*expect)(void *context, int64_t size);
} raw_ota_source_t;

/** How to update. All zero is the safe default. */
typedef struct {
    /** The transfer is the ciphertext alone, without a header. Needs CONFIG_RAW_OTA_ALLOW_BARE. */
    bool bare;
    /** Bare only: size in bytes when the transfer does not tell it; 0 otherwise. */
    uint32_t bare_size;
    /** Test hook, needs CONFIG_RAW_OTA_TEST_HOOKS: leave out the erase. */
    bool skip_erase;
    /** Reconnections after a broken transfer: -1 for CONFIG_RAW_OTA_HTTP_RESUMES, else that many. */
    int resumes;
    /** Longest duration of a download in seconds; 0 for CONFIG_RAW_OTA_HTTP_TOTAL_TIMEOUT_S. */
    int total_timeout_s;
    /** PEM certificate of the server for https URLs, NUL terminated; NULL for plain http. */
    const char *server_cert_pem;
    raw_ota_progress_t on_progress; /**< may be NULL */
    void *progress_context;
} raw_ota_options_t;

/** Options with their defaults. */
#define RAW_OTA_OPTIONS_DEFAULT() ((raw_ota_options_t){.resumes = -1})

/** What happened. Filled on success and on failure. */
typedef struct {
    raw_ota_err_t error;
    esp_err_t code;          /**< ESP-IDF's own error behind `error`; ESP_OK when there is none */
    int http_status;         /**< last HTTP status; 0 when there was none */
    char message[128];       /**< for a person */
    char slot[17];           /**< label of the slot that was to be written; empty when none was chosen */
    uint32_t slot_offset;    /**< its flash offset */
    uint32_t bytes_written;  /**< bytes of the body written to flash */
    uint32_t image_size;     /**< plaintext size, from the header; 0 for a bare transfer */
    char version[33];        /**< version of the new image, once known */
    uint8_t body_sha256[32]; /**< of the bytes received; valid once all have been */
    bool repaired;           /**< otadata was put in step with the running slot first */
    int resumes;             /**< reconnections that were needed */
} raw_ota_result_t;

/**
 * Downloads, checks, writes and selects an update. Blocks; restarts nothing: the new version runs after the
 * next reset, unconfirmed (ESP_OTA_IMG_PENDING_VERIFY) when rollback is configured.
 *
 * @param url      http:// or https:// URL; up to CONFIG_RAW_OTA_HTTP_MAX_REDIRECTS redirects are followed.
 * @param options  may be NULL for the defaults.
 * @param result   filled in every case; must not be NULL.
 * @return result->error.
 */
raw_ota_err_t raw_ota_update_from_url(const char *url, const raw_ota_options_t *options,
                                      raw_ota_result_t *result);

/** As raw_ota_update_from_url(), with bytes from any source. */
raw_ota_err_t raw_ota_update(const raw_ota_source_t *source, const raw_ota_options_t *options,
                             raw_ota_result_t *result);

/**
 * Takes the lock that all updates share, without waiting. An application that also updates by ESP-IDF's own
 * functions holds it meanwhile: esp_ota_begin() by itself does not notice a second update.
 * @return false when another update holds it.
 */
bool raw_ota_lock(void);

/** Gives back what raw_ota_lock() took. */
void raw_ota_unlock(void);

/** Both otadata records, as the bootloader sees them. */
typedef struct {
    esp_ota_select_entry_t records[2]; /**< read through the deciphering path */
    int active;                        /**< index of the record that the bootloader would follow; -1: none */
    const esp_partition_t *slot;       /**< slot that the active record names; NULL: none */
} raw_ota_otadata_t;

/**
 * Reads otadata.
 * @return ESP_OK; ESP_ERR_NOT_FOUND without an otadata partition or OTA slots; errors of
 * esp_partition_read().
 */
esp_err_t raw_ota_read_otadata(raw_ota_otadata_t *otadata);

/**
 * Puts otadata in step with what runs: when its active record does not name the running slot (after a
 * fall-back boot, or when both records are damaged), selects the running slot and marks it valid. Takes the
 * lock.
 *
 * @return RAW_OTA_OK (result->repaired tells whether anything was written), RAW_OTA_BUSY, RAW_OTA_NO_SLOT,
 *         RAW_OTA_IMAGE_INVALID when the running image does not verify, RAW_OTA_FLASH.
 */
raw_ota_err_t raw_ota_repair(raw_ota_result_t *result);

/**
 * Confirms the running version (esp_ota_mark_app_valid_cancel_rollback). That function marks whatever record
 * is active; this one refuses with RAW_OTA_WRONG_SLOT when the active record does not name the running slot.
 */
raw_ota_err_t raw_ota_confirm(raw_ota_result_t *result);

/** Name of an error in the UART protocol and in logs, e.g. "not-deciphered"; "ok" for RAW_OTA_OK. */
const char *raw_ota_err_name(raw_ota_err_t error);

/** The raw_ota error that an error of an esp_ota_* or esp_partition_* call stands for. */
raw_ota_err_t raw_ota_err_from_esp(esp_err_t code);

/** Name of a phase, e.g. "first-sector". */
const char *raw_ota_phase_name(raw_ota_phase_t phase);

#ifdef __cplusplus
}
#endif
