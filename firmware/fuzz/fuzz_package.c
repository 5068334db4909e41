/* The 256-byte header: parsing, signature, and the checks against this device.
 *
 * Input: transfer size (32 bits), the chip's answer to signature checks (8), what is put right (8), header.
 */
#include <string.h>

#include "package_input.h"
#include "raw_ota_package.h"
#include "rule.h"
#include "update_rules.h"

static bool is_text(const char *text)
{
    const size_t length = strlen(text);
    for (size_t i = 0; i < length; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return length > 0 && length < 32;
}

/* What was taken for this device is for this device. */
static void judge(const raw_ota_package_t *package, const esp_partition_t *slot, int64_t transfer_size)
{
    RULE(package->chip_id == CONFIG_IDF_FIRMWARE_CHIP_ID, "chip %u", package->chip_id);
    RULE(memcmp(package->mac, twin_info()->mac, 6) == 0, "another device's");
    RULE(package->slot_offset == slot->address && package->slot_size == slot->size, "another slot's");
    RULE(package->body_size <= slot->size && package->body_size % 16 == 0, "a body of %u bytes",
         (unsigned)package->body_size);
    RULE(package->image_size <= package->body_size && package->body_size - package->image_size < 16,
         "an image of %u bytes in a body of %u", (unsigned)package->image_size, (unsigned)package->body_size);
    RULE(transfer_size < 0 || transfer_size == (int64_t)package->body_size + RAW_OTA_HEADER_SIZE,
         "a transfer of %lld", (long long)transfer_size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const chip_rules_t RULES = {0};
    static uint8_t s_package[PACKAGE_CAPACITY];
    input_t input = {data, size};
    const uint32_t announced = take_u32(&input);
    const int64_t transfer_size = announced == UINT32_MAX ? -1 : (int64_t)announced;
    const chip_facts_t facts = {.signature_answer = take_u8(&input)};
    const unsigned repairs = take_u8(&input);
    chip_reset(&facts, &RULES);
    if (package_from(&input, repairs, BODY_PLAIN, false, s_package) == 0) {
        return 0;
    }
    raw_ota_package_t package;
    raw_ota_result_t result;
    memset(&result, 0, sizeof(result));
    raw_ota_err_t err = raw_ota_package_parse(s_package, &package, &result);
    RULE(err == result.error, "%d returned, %d in the result", (int)err, (int)result.error);
    if (err == RAW_OTA_OK) {
        RULE(is_text(package.version) && is_text(package.project_name), "a text is none");
        err = raw_ota_package_check_signature(s_package, &result);
        RULE((err == RAW_OTA_OK) == chip_record()->signature_good, "error %d of a signature", (int)err);
        memset(&result, 0, sizeof(result));
        const esp_partition_t *slot =
            esp_partition_find_first(ESP_PARTITION_TYPE_APP, ESP_PARTITION_SUBTYPE_OTA(1), NULL);
        err = raw_ota_package_check(&package, slot, transfer_size, &result);
        if (err == RAW_OTA_OK) {
            judge(&package, slot, transfer_size);
        }
    }
    RULE(memchr(result.message, 0, sizeof(result.message)) != NULL, "the message has no end");
    RULE(chip_record()->slot_changes + chip_record()->otadata_changes == 0, "a check has changed flash");
    nothing_is_held();
    return 0;
}
