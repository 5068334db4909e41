/**
 * The chip under the fuzzed firmware: a small flash with a toy cipher, eFuse facts, SHA-256 and signatures,
 * in this process; flash encryption is on, in release mode. It implements twin_rpc.h, so that the port above
 * it is the same as under the twin, and it holds the rules that no update may break: a change of flash that
 * breaks one ends the process where it happens.
 *
 * Flash, in bytes from 0: nothing, partition table, otadata (two sectors), ota_0 (runs), ota_1, nvs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "esp_flash_partitions.h"
#include "sdkconfig.h"
#include "twin_rpc.h"

#define CHIP_SECTOR 4096u
#define CHIP_OTADATA (ESP_PARTITION_TABLE_OFFSET + 0x1000u)
#define CHIP_SLOT_SIZE 0x4000u
#define CHIP_OTA_0 (CHIP_OTADATA + 2 * CHIP_SECTOR)
#define CHIP_OTA_1 (CHIP_OTA_0 + CHIP_SLOT_SIZE)
#define CHIP_NVS (CHIP_OTA_1 + CHIP_SLOT_SIZE)
#define CHIP_FLASH_SIZE (CHIP_NVS + CHIP_SECTOR)

/** What of the board a fuzz input decides. */
typedef struct {
    uint8_t otadata_kinds;     /**< low nibble: record 0, high nibble: record 1; see chip_reset() */
    uint8_t otadata_sequences; /**< the same, of the sequence numbers; 13 to 15 are near 2^31 and 2^32 */
    uint8_t otadata_states;    /**< the same, of the states */
    uint8_t old_slot;          /**< of ota_1 before: 0 erased, 1 an image, else noise */
    uint8_t signature_answer;  /**< 0: by the toy signature; else what every check answers */
    uint8_t image_answer;      /**< 0: the image is looked at; else it never verifies */
    uint8_t failing_op;        /**< twin_op_t that fails; 0: none */
    uint8_t failing_after;     /**< how many of them succeed before */
    uint8_t failing_code;      /**< index of a code; see FAILURES */
    bool fails_once;           /**< else: from then on always */
    bool fails_halfway;        /**< a failing write has written its first half */
} chip_facts_t;

/** What the rules allow a target's firmware to do; all false for raw_ota alone. */
typedef struct {
    bool unsigned_changes; /**< flash may change without a signature that was found good */
    bool slot_by_cipher;   /**< the stock path writes the slot through the cipher */
    bool raw_otadata;      /**< the command otadata-raw damages otadata on purpose */
} chip_rules_t;

/** What the firmware has done since chip_reset(). */
typedef struct {
    unsigned slot_changes;
    unsigned otadata_changes;
    unsigned open_hashes;
    bool signature_good; /**< one was checked and found good */
    bool slot_verified;  /**< ota_1 verified, and has not changed since */
    bool failed;         /**< an operation was made to fail */
} chip_record_t;

/** A new board: ota_0 runs a valid image, the rest is as `facts` say. */
void chip_reset(const chip_facts_t *facts, const chip_rules_t *rules);

const chip_record_t *chip_record(void);

/** The slot that the bootloader would boot from otadata: 0, 1, or -1 for none. */
int chip_selected_slot(void);

/** State in the record that selects it; ESP_OTA_IMG_UNDEFINED where there is none. */
uint32_t chip_selected_state(void);

/** Flash as it is, undeciphered. */
const uint8_t *chip_flash(void);

/** Enciphers (or deciphers) in place as flash at `address` holds it; `key` 0 is the board's. */
void chip_cipher(uint32_t key, uint32_t address, uint8_t *bytes, size_t size);

/** The toy signature over a header's hash: SHA-256 of key and hash, twice. */
void chip_sign(const uint8_t key[65], const uint8_t hash[32], uint8_t signature[64]);

/** Whether `size` bytes at `image` are an application image that a bootloader would take; its length goes to
 * `length`. */
bool chip_is_image(const uint8_t *image, size_t size, size_t *length);

/** Writes checksum and SHA-256 of an image anew, where its segments fit; the length, 0 where they do not. */
size_t chip_repair_image(uint8_t *image, size_t size);

/** Where esp_restart() goes: must not come back. NULL: the process ends, which is a finding. */
extern void (*chip_on_restart)(void);
