/* raw_ota_update() from the first byte to the switch, on a board in any state, with flash that fails.
 *
 * Input: 24 bytes that decide how (below), header, image in plaintext. */
#include <string.h>

#include "package_input.h"
#include "rule.h"
#include "update_rules.h"

enum {
    FLAG_BARE = 1 << 0,
    FLAG_SKIP_ERASE = 1 << 1,
    FLAG_SIZE_UNKNOWN = 1 << 2,
    FLAG_SIZE_WRONG = 1 << 3,
    FLAG_FAILS_ONCE = 1 << 4,
    FLAG_FAILS_HALFWAY = 1 << 5,
    FLAG_SIZE_ASKED = 1 << 6,
};

/* A transfer: pieces of sizes that the input decides, and an end. */
typedef struct {
    const uint8_t *bytes;
    size_t size;
    size_t at;
    uint32_t piece_seed; /* 0: as much as fits */
    raw_ota_err_t error; /* how it ends; RAW_OTA_OK: by its end */
} transfer_t;

static int read_transfer(void *context, uint8_t *buffer, size_t capacity)
{
    transfer_t *transfer = context;
    RULE(capacity > 0, "asks for nothing");
    if (transfer->at == transfer->size) {
        return -(int)transfer->error;
    }
    size_t piece = capacity;
    if (transfer->piece_seed != 0) {
        transfer->piece_seed = transfer->piece_seed * 1103515245u + 12345u;
        piece = 1 + (transfer->piece_seed >> 16) % 1500;
    }
    piece = piece < capacity ? piece : capacity;
    piece = piece < transfer->size - transfer->at ? piece : transfer->size - transfer->at;
    memcpy(buffer, transfer->bytes + transfer->at, piece);
    transfer->at += piece;
    return (int)piece;
}

static raw_ota_err_t transfer_error(uint8_t number)
{
    static const raw_ota_err_t ERRORS[] = {RAW_OTA_OK, RAW_OTA_SOURCE, RAW_OTA_HTTP_READ,
                                           RAW_OTA_HTTP_TIMEOUT, RAW_OTA_TRUNCATED};
    return ERRORS[number % (sizeof(ERRORS) / sizeof(ERRORS[0]))];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t s_package[PACKAGE_CAPACITY];
    input_t input = {data, size};
    const unsigned flags = take_u8(&input);
    const unsigned repairs = take_u8(&input);
    const body_t body = (body_t)(take_u8(&input) % 4);
    const bool bare = (flags & FLAG_BARE) != 0;
    const chip_facts_t facts = {
        .otadata_kinds = take_u8(&input),
        .otadata_sequences = take_u8(&input),
        .otadata_states = take_u8(&input),
        .old_slot = take_u8(&input),
        .signature_answer = take_u8(&input),
        .image_answer = take_u8(&input),
        .failing_op = take_u8(&input),
        .failing_after = take_u8(&input),
        .failing_code = take_u8(&input),
        .fails_once = (flags & FLAG_FAILS_ONCE) != 0,
        .fails_halfway = (flags & FLAG_FAILS_HALFWAY) != 0,
    };
    const chip_rules_t rules = {.unsigned_changes = bare};
    transfer_t transfer = {.bytes = s_package, .piece_seed = take_u16(&input)};
    transfer.error = transfer_error(take_u8(&input));
    (void)take_u8(&input);
    const uint32_t cut_at = take_u32(&input);
    const uint32_t number = take_u32(&input);
    chip_reset(&facts, &rules);
    const size_t package_size = package_from(&input, repairs, body, bare, s_package);
    transfer.size = cut_at < package_size ? cut_at : package_size;
    const raw_ota_source_t source = {
        .context = &transfer,
        .read = read_transfer,
        .size = (flags & FLAG_SIZE_UNKNOWN) != 0 ? -1
                : (flags & FLAG_SIZE_WRONG) != 0 ? (int64_t)number
                                                 : (int64_t)package_size,
    };
    raw_ota_options_t options = RAW_OTA_OPTIONS_DEFAULT();
    options.bare = bare;
    options.bare_size = (flags & FLAG_SIZE_ASKED) != 0 ? number : 0;
    options.skip_erase = (flags & FLAG_SKIP_ERASE) != 0;
    options.on_progress = update_progress;
    raw_ota_result_t result;
    memset(&result, 0xA5, sizeof(result));
    update_begins();
    const raw_ota_err_t err = raw_ota_update(&source, &options, &result);
    update_ends(err, &result, bare);
    return 0;
}
