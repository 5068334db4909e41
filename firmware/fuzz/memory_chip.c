#include "memory_chip.h"

#include <string.h>

#include "esp_app_desc.h"
#include "esp_app_format.h"
#include "esp_ota_ops.h"
#include "esp_rom_crc.h"
#include "psa/crypto.h"
#include "rule.h"
#include "sha256.h"

#define KEY 0x5eed5eedu
#define MAX_HASHES 8

void (*chip_on_restart)(void);

static uint8_t s_flash[CHIP_FLASH_SIZE];
static uint8_t s_start[CHIP_FLASH_SIZE]; /* flash of a new board, apart from otadata and ota_1 */
static bool s_changed[CHIP_FLASH_SIZE / CHIP_SECTOR];
static chip_facts_t s_facts;
static chip_rules_t s_rules;
static chip_record_t s_record;
static unsigned s_fails_in;
static twin_info_t s_info = {
    .version = 1,
    .chip_id = CONFIG_IDF_FIRMWARE_CHIP_ID,
    .flash_size = CHIP_FLASH_SIZE,
    .boot_offset = CHIP_OTA_0,
    .table_offset = ESP_PARTITION_TABLE_OFFSET,
    .reset_reason = 1,
    .fe_enabled = 1,
    .fe_mode = 2,
    .mac = {0x7c, 0xdf, 0xa1, 0x00, 0x00, 0x01},
};
static struct {
    bool used;
    sha256_t hash;
} s_hashes[MAX_HASHES];

/* Codes that an operation fails with. None of them means something that raw_ota says of a package or of the
 * state of the device: those errors promise that nothing has been erased. */
static const int32_t FAILURES[] = {0x6001,
                                   0x6002,
                                   -1,
                                   0x101,
                                   0x107,
                                   PSA_ERROR_GENERIC_ERROR,
                                   PSA_ERROR_INSUFFICIENT_MEMORY,
                                   PSA_ERROR_BAD_STATE};

/* Byte `at` of the keystream: murmur3's finaliser over key and 32-bit word. */
static uint8_t pad(uint32_t key, uint32_t at)
{
    uint32_t word = (key ^ KEY) + at / 4;
    word ^= word >> 16;
    word *= 0x85ebca6bu;
    word ^= word >> 13;
    word *= 0xc2b2ae35u;
    word ^= word >> 16;
    return (uint8_t)(word >> (8 * (at % 4)));
}

/* The board's own keystream over all of flash: most of the time of a run would go into making it. */
static const uint8_t *own_pads(void)
{
    static uint8_t s_pads[CHIP_FLASH_SIZE];
    static bool s_made;
    for (uint32_t i = 0; !s_made && i < CHIP_FLASH_SIZE; i++) {
        s_pads[i] = pad(0, i);
    }
    s_made = true;
    return s_pads;
}

void chip_cipher(uint32_t key, uint32_t address, uint8_t *bytes, size_t size)
{
    const uint8_t *pads = own_pads();
    for (size_t i = 0; i < size; i++) {
        const uint32_t at = address + (uint32_t)i;
        bytes[i] ^= key == 0 && at < CHIP_FLASH_SIZE ? pads[at] : pad(key, at);
    }
}

void chip_sign(const uint8_t key[65], const uint8_t hash[32], uint8_t signature[64])
{
    sha256_t sum;
    sha256_start(&sum);
    sha256_update(&sum, key, 65);
    sha256_update(&sum, hash, 32);
    sha256_finish(&sum, signature);
    memcpy(signature + 32, signature, 32);
}

/* Length of the image with checksum, without the hash behind; 0 when its segments do not fit `size`. */
static size_t image_body(const uint8_t *image, size_t size)
{
    esp_image_header_t header;
    if (size < sizeof(header)) {
        return 0;
    }
    memcpy(&header, image, sizeof(header));
    if (header.magic != ESP_IMAGE_HEADER_MAGIC || header.segment_count == 0 ||
        header.segment_count > ESP_IMAGE_MAX_SEGMENTS || header.chip_id != CONFIG_IDF_FIRMWARE_CHIP_ID) {
        return 0;
    }
    size_t at = sizeof(header);
    for (int i = 0; i < header.segment_count; i++) {
        esp_image_segment_header_t segment;
        if (size - at < sizeof(segment)) {
            return 0;
        }
        memcpy(&segment, image + at, sizeof(segment));
        at += sizeof(segment);
        if (segment.data_len % 4 != 0 || segment.data_len > size - at) {
            return 0;
        }
        at += segment.data_len;
    }
    const size_t end = at / 16 * 16 + 16; /* the checksum is the last byte of a block */
    return end <= size ? end : 0;
}

static uint8_t image_checksum(const uint8_t *image)
{
    uint8_t sum = 0xEF;
    size_t at = sizeof(esp_image_header_t);
    for (int i = 0; i < image[1]; i++) {
        esp_image_segment_header_t segment;
        memcpy(&segment, image + at, sizeof(segment));
        at += sizeof(segment);
        for (uint32_t byte = 0; byte < segment.data_len; byte++) {
            sum ^= image[at++];
        }
    }
    return sum;
}

bool chip_is_image(const uint8_t *image, size_t size, size_t *length)
{
    const size_t end = image_body(image, size);
    if (end == 0 || image[end - 1] != image_checksum(image)) {
        return false;
    }
    *length = end;
    if (image[sizeof(esp_image_header_t) - 1] == 1) {
        uint8_t digest[32];
        if (size - end < sizeof(digest)) {
            return false;
        }
        sha256_of(image, end, digest);
        *length += sizeof(digest);
        return memcmp(image + end, digest, sizeof(digest)) == 0;
    }
    return true;
}

size_t chip_repair_image(uint8_t *image, size_t size)
{
    const size_t end = image_body(image, size);
    if (end == 0 || size - end < 32) {
        return 0;
    }
    image[end - 1] = image_checksum(image);
    sha256_of(image, end, image + end);
    return end + 32;
}

static void put_partition(uint8_t *at, uint8_t type, uint8_t subtype, uint32_t offset, uint32_t size,
                          const char *label)
{
    esp_partition_info_t entry = {.magic = ESP_PARTITION_MAGIC, .type = type, .subtype = subtype};
    entry.pos.offset = offset;
    entry.pos.size = size;
    memcpy(entry.label, label, strlen(label));
    memcpy(at, &entry, sizeof(entry));
}

/* The smallest image of this project, of `size` bytes with its hash. */
static size_t put_image(uint8_t *at, const char *version)
{
    const esp_image_header_t header = {
        .magic = ESP_IMAGE_HEADER_MAGIC,
        .segment_count = 1,
        .chip_id = CONFIG_IDF_FIRMWARE_CHIP_ID,
        .hash_appended = 1,
    };
    const esp_image_segment_header_t segment = {.load_addr = 0x3c000020, .data_len = sizeof(esp_app_desc_t)};
    esp_app_desc_t description = *esp_app_get_description();
    memset(description.version, 0, sizeof(description.version));
    memcpy(description.version, version, strlen(version));
    memcpy(at, &header, sizeof(header));
    memcpy(at + sizeof(header), &segment, sizeof(segment));
    memcpy(at + sizeof(header) + sizeof(segment), &description, sizeof(description));
    return chip_repair_image(at, CHIP_SLOT_SIZE);
}

/* Flash of a board, made once. */
static void make_start(void)
{
    if (s_start[ESP_PARTITION_TABLE_OFFSET] != 0) {
        return;
    }
    memset(s_start, 0xFF, sizeof(s_start));
    uint8_t *table = s_start + ESP_PARTITION_TABLE_OFFSET;
    put_partition(table, 1, 0, CHIP_OTADATA, 2 * CHIP_SECTOR, "otadata");
    put_partition(table + 32, 0, 0x10, CHIP_OTA_0, CHIP_SLOT_SIZE, "ota_0");
    put_partition(table + 64, 0, 0x11, CHIP_OTA_1, CHIP_SLOT_SIZE, "ota_1");
    put_partition(table + 96, 1, 2, CHIP_NVS, CHIP_SECTOR, "nvs");
    chip_cipher(0, ESP_PARTITION_TABLE_OFFSET, table, CHIP_SECTOR);
    const size_t size = put_image(s_start + CHIP_OTA_0, "1.0.0");
    chip_cipher(0, CHIP_OTA_0, s_start + CHIP_OTA_0, size);
    memset(s_changed, true, sizeof(s_changed));
}

/* Kinds: 0 erased; 1 a record; 2 one with a wrong CRC; else bytes that were never a record. */
static void put_record(size_t index)
{
    const unsigned shift = index == 0 ? 0 : 4;
    const unsigned kind = (s_facts.otadata_kinds >> shift) & 0xFu;
    uint8_t *at = s_flash + CHIP_OTADATA + index * CHIP_SECTOR;
    s_changed[(CHIP_OTADATA / CHIP_SECTOR) + index] = true;
    if (kind == 0) {
        return;
    }
    static const uint32_t STATES[] = {ESP_OTA_IMG_VALID,
                                      ESP_OTA_IMG_NEW,
                                      ESP_OTA_IMG_PENDING_VERIFY,
                                      ESP_OTA_IMG_INVALID,
                                      ESP_OTA_IMG_ABORTED,
                                      ESP_OTA_IMG_UNDEFINED,
                                      7,
                                      0x00010000};
    esp_ota_select_entry_t record;
    static const uint32_t LARGE[] = {0x7FFFFFFF, 0xFFFFFFFD, 0xFFFFFFFE};
    memset(&record, 0xFF, sizeof(record));
    record.ota_seq = (s_facts.otadata_sequences >> shift) & 0xFu;
    if (record.ota_seq > 12) {
        record.ota_seq = LARGE[record.ota_seq - 13];
    }
    record.ota_state = STATES[(s_facts.otadata_states >> shift) & 0x7u];
    record.crc = esp_rom_crc32_le(UINT32_MAX, (const uint8_t *)&record.ota_seq, sizeof(record.ota_seq));
    if (kind == 2) {
        record.crc ^= 1;
    } else if (kind > 2) {
        memset(&record, (int)kind, sizeof(record));
    }
    memcpy(at, &record, sizeof(record));
    chip_cipher(0, CHIP_OTADATA + (uint32_t)(index * CHIP_SECTOR), at, sizeof(record));
}

static void put_old_slot(void)
{
    if (s_facts.old_slot == 0) {
        return;
    }
    uint8_t *slot = s_flash + CHIP_OTA_1;
    if (s_facts.old_slot == 1) {
        const size_t size = put_image(slot, "0.9.0");
        chip_cipher(0, CHIP_OTA_1, slot, size);
    } else {
        memset(slot, s_facts.old_slot, CHIP_SLOT_SIZE);
    }
    for (size_t i = 0; i < CHIP_SLOT_SIZE / CHIP_SECTOR; i++) {
        s_changed[CHIP_OTA_1 / CHIP_SECTOR + i] = true;
    }
}

static void reset(const chip_facts_t *facts, const chip_rules_t *rules)
{
    s_facts = *facts;
    s_rules = *rules;
    memset(&s_record, 0, sizeof(s_record));
    memset(s_hashes, 0, sizeof(s_hashes));
    s_fails_in = facts->failing_after;
    for (size_t i = 0; i < CHIP_FLASH_SIZE / CHIP_SECTOR; i++) {
        if (s_changed[i]) {
            memcpy(s_flash + i * CHIP_SECTOR, s_start + i * CHIP_SECTOR, CHIP_SECTOR);
            s_changed[i] = false;
        }
    }
    put_record(0);
    put_record(1);
    put_old_slot();
}

void chip_reset(const chip_facts_t *facts, const chip_rules_t *rules)
{
    static bool s_started;
    make_start();
    if (!s_started) {
        /* The port reads the partition table once: as at the start of a program, and not in the run of some
         * input. */
        static const chip_facts_t SOUND;
        s_started = true;
        reset(&SOUND, rules);
        (void)esp_ota_get_running_partition();
    }
    reset(facts, rules);
}

const chip_record_t *chip_record(void)
{
    return &s_record;
}

const uint8_t *chip_flash(void)
{
    return s_flash;
}

static bool read_selected(esp_ota_select_entry_t *selected)
{
    bool found = false;
    for (size_t i = 0; i < 2; i++) {
        esp_ota_select_entry_t record;
        const uint32_t at = CHIP_OTADATA + (uint32_t)(i * CHIP_SECTOR);
        memcpy(&record, s_flash + at, sizeof(record));
        chip_cipher(0, at, (uint8_t *)&record, sizeof(record));
        const bool valid =
            record.ota_seq != UINT32_MAX && record.ota_state != ESP_OTA_IMG_INVALID &&
            record.ota_state != ESP_OTA_IMG_ABORTED &&
            record.crc == esp_rom_crc32_le(UINT32_MAX, (uint8_t *)&record.ota_seq, sizeof(record.ota_seq));
        if (valid && (!found || record.ota_seq > selected->ota_seq)) {
            *selected = record;
            found = true;
        }
    }
    return found;
}

int chip_selected_slot(void)
{
    esp_ota_select_entry_t record;
    return read_selected(&record) ? (int)((record.ota_seq - 1) % 2) : -1;
}

uint32_t chip_selected_state(void)
{
    esp_ota_select_entry_t record;
    return read_selected(&record) ? record.ota_state : ESP_OTA_IMG_UNDEFINED;
}

static bool lies_in(uint32_t at, size_t size, uint32_t start, uint32_t length)
{
    return at >= start && size <= length && at - start <= length - size;
}

/* Every change of flash: where it may be, and when. */
static void judge_change(twin_op_t op, uint32_t at, size_t size)
{
    const bool in_slot = lies_in(at, size, CHIP_OTA_1, CHIP_SLOT_SIZE);
    const bool in_otadata = lies_in(at, size, CHIP_OTADATA, 2 * CHIP_SECTOR);
    RULE(in_slot || in_otadata, "request %d changes 0x%x+0x%zx", (int)op, (unsigned)at, size);
    RULE(s_rules.unsigned_changes || s_record.signature_good, "request %d before a signature was found good",
         (int)op);
    if (op == TWIN_FLASH_WRITE_ENCRYPTED) {
        RULE(in_otadata || s_rules.slot_by_cipher, "0x%x is enciphered a second time", (unsigned)at);
    }
    if (op == TWIN_FLASH_WRITE_RAW && in_otadata) {
        RULE(s_rules.raw_otadata, "otadata is written past the cipher");
    }
    if (in_slot) {
        s_record.slot_changes++;
        s_record.slot_verified = false;
    } else {
        s_record.otadata_changes++;
    }
    for (uint32_t sector = at / CHIP_SECTOR; sector <= (at + size - 1) / CHIP_SECTOR; sector++) {
        s_changed[sector] = true;
    }
}

/* A record that would boot ota_1 as a new version: only for an image that has been verified. */
static void judge_record(uint32_t at, const uint8_t *plain, size_t size)
{
    esp_ota_select_entry_t record;
    if (s_rules.raw_otadata || !lies_in(at, size, CHIP_OTADATA, 2 * CHIP_SECTOR) || size != sizeof(record)) {
        return;
    }
    memcpy(&record, plain, sizeof(record));
    if ((record.ota_seq - 1) % 2 == 1 && record.ota_state == ESP_OTA_IMG_NEW) {
        RULE(s_record.slot_verified, "otadata names a slot that was not verified");
    }
}

static void program(uint32_t at, const uint8_t *bytes, size_t size, bool encipher)
{
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = bytes[i];
        s_flash[at + i] &= encipher ? byte ^ own_pads()[at + i] : byte;
    }
}

/* Whether this request is one that fails, and its code. */
static bool fails(twin_op_t op, int32_t *code)
{
    if (s_facts.failing_op != (uint8_t)op) {
        return false;
    }
    if (s_fails_in > 0) {
        s_fails_in--;
        return false;
    }
    if (s_facts.fails_once) {
        s_facts.failing_op = 0;
    }
    s_record.failed = true;
    *code = FAILURES[s_facts.failing_code % (sizeof(FAILURES) / sizeof(FAILURES[0]))];
    return true;
}

static int32_t change_flash(twin_op_t op, uint32_t at, uint32_t length, const uint8_t *data, size_t size)
{
    const size_t changed = op == TWIN_FLASH_ERASE ? length : size;
    RULE(lies_in(at, changed, 0, CHIP_FLASH_SIZE) && changed > 0, "0x%x+0x%zx is outside of flash",
         (unsigned)at, changed);
    judge_change(op, at, changed);
    int32_t code = 0;
    const bool failing = fails(op, &code);
    if (failing && !s_facts.fails_halfway) {
        return code;
    }
    if (op == TWIN_FLASH_ERASE) {
        RULE(at % CHIP_SECTOR == 0 && length % CHIP_SECTOR == 0, "erase of 0x%x+0x%x", (unsigned)at,
             (unsigned)length);
        memset(s_flash + at, 0xFF, failing ? length / 2 : length);
    } else {
        judge_record(at, data, size);
        program(at, data, failing ? size / 2 : size, op == TWIN_FLASH_WRITE_ENCRYPTED);
    }
    return code;
}

static int32_t verify_image(uint32_t offset, uint32_t size)
{
    static uint8_t s_image[CHIP_SLOT_SIZE];
    size_t length = 0;
    RULE(size == CHIP_SLOT_SIZE && (offset == CHIP_OTA_0 || offset == CHIP_OTA_1), "no slot is at 0x%x",
         (unsigned)offset);
    memcpy(s_image, s_flash + offset, size);
    chip_cipher(0, offset, s_image, size);
    if (s_facts.image_answer != 0 || !chip_is_image(s_image, size, &length)) {
        return 0x2002; /* ESP_ERR_IMAGE_INVALID */
    }
    s_record.slot_verified = s_record.slot_verified || offset == CHIP_OTA_1;
    return 0;
}

static int32_t verify_signature(const uint8_t *data, size_t size)
{
    RULE(size == 65 + 32 + 64, "a signature check of %zu bytes", size);
    int32_t status = s_facts.signature_answer == 1   ? 0
                     : s_facts.signature_answer == 2 ? PSA_ERROR_INVALID_SIGNATURE
                                                     : PSA_ERROR_INSUFFICIENT_MEMORY;
    if (s_facts.signature_answer == 0) {
        uint8_t right[64];
        chip_sign(data, data + 65, right);
        status = memcmp(right, data + 97, sizeof(right)) == 0 ? 0 : PSA_ERROR_INVALID_SIGNATURE;
    }
    s_record.signature_good = s_record.signature_good || status == 0;
    return status;
}

static int32_t hash(twin_op_t op, uint32_t handle, const uint8_t *data, size_t size, uint8_t digest[32],
                    uint32_t *value)
{
    if (op == TWIN_HASH_START) {
        for (*value = 0; *value < MAX_HASHES && s_hashes[*value].used; (*value)++) {
        }
        RULE(*value < MAX_HASHES, "hashes are begun and never ended");
        s_hashes[*value].used = true;
        sha256_start(&s_hashes[*value].hash);
        s_record.open_hashes++;
        return 0;
    }
    RULE(handle < MAX_HASHES && s_hashes[handle].used, "hash %u was never begun", (unsigned)handle);
    if (op == TWIN_HASH_UPDATE) {
        sha256_update(&s_hashes[handle].hash, data, size);
        return 0;
    }
    sha256_finish(&s_hashes[handle].hash, digest);
    s_hashes[handle].used = false;
    s_record.open_hashes--;
    return 0;
}

/* What a request gives back. */
typedef struct {
    int32_t status;
    uint32_t value;
    const uint8_t *data;
    size_t size;
} reply_t;

static reply_t answer(twin_op_t op, uint32_t arg0, uint32_t arg1, const uint8_t *data, size_t size)
{
    static uint8_t s_piece[CHIP_FLASH_SIZE];
    reply_t reply = {0};
    if (op == TWIN_FLASH_ERASE || op == TWIN_FLASH_WRITE_RAW || op == TWIN_FLASH_WRITE_ENCRYPTED) {
        reply.status = change_flash(op, arg0, arg1, data, size);
        return reply;
    }
    if (fails(op, &reply.status)) {
        return reply;
    }
    switch (op) {
    case TWIN_FLASH_READ_RAW:
    case TWIN_FLASH_READ:
        RULE(lies_in(arg0, arg1, 0, CHIP_FLASH_SIZE), "reads 0x%x+0x%x", (unsigned)arg0, (unsigned)arg1);
        memcpy(s_piece, s_flash + arg0, arg1);
        if (op == TWIN_FLASH_READ) {
            chip_cipher(0, arg0, s_piece, arg1);
        }
        reply.data = s_piece;
        reply.size = arg1;
        break;
    case TWIN_INFO:
        reply.data = (const uint8_t *)&s_info;
        reply.size = sizeof(s_info);
        break;
    case TWIN_IMAGE_VERIFY:
        reply.status = verify_image(arg0, arg1);
        break;
    case TWIN_VERIFY_HASH:
        reply.status = verify_signature(data, size);
        break;
    case TWIN_HASH_START:
    case TWIN_HASH_UPDATE:
    case TWIN_HASH_FINISH:
    case TWIN_HASH_ABORT:
        reply.status = hash(op, arg0, data, size, s_piece, &reply.value);
        reply.data = s_piece;
        reply.size = op == TWIN_HASH_FINISH ? 32 : 0;
        break;
    case TWIN_EFUSE_READ:
        memset(s_piece, 0, 32);
        reply.data = s_piece;
        reply.size = 32;
        break;
    case TWIN_EFUSE:
        reply.value = 1;
        break;
    default:
        RULE(false, "request %d is none", (int)op);
    }
    return reply;
}

int32_t twin_call(twin_op_t op, uint32_t arg0, uint32_t arg1, const void *data, size_t size, void *reply,
                  size_t reply_capacity, size_t *reply_size, uint32_t *value)
{
    const reply_t answered = answer(op, arg0, arg1, data, size);
    const size_t kept = answered.size < reply_capacity ? answered.size : reply_capacity;
    if (kept > 0) {
        memcpy(reply, answered.data, kept);
    }
    if (reply_size != NULL) {
        *reply_size = kept;
    }
    if (value != NULL) {
        *value = answered.value;
    }
    return answered.status;
}

const twin_info_t *twin_info(void)
{
    return &s_info;
}

void twin_refresh_info(void)
{
}

void twin_restart(twin_restart_t reason)
{
    RULE(chip_on_restart != NULL, "the firmware restarts (%d)", (int)reason);
    chip_on_restart();
    abort(); /* a restart does not come back */
}
