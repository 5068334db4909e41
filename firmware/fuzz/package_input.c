#include "package_input.h"

#include <string.h>

#include "esp_app_desc.h"
#include "esp_app_format.h"
#include "raw_ota_package.h"
#include "sha256.h"

#define IMAGE_HEAD (sizeof(esp_image_header_t) + sizeof(esp_image_segment_header_t))

/* Offsets in the header (components/raw_ota/README.md, "The package"); written down again, since a mistake in
 * the component's own must show here. */
enum {
    AT_CHIP = 12,
    AT_CIPHER = 14,
    AT_FLAGS = 15,
    AT_MAC = 16,
    AT_SLOT_OFFSET = 32,
    AT_SLOT_SIZE = 36,
    AT_IMAGE_SIZE = 40,
    AT_BODY_SIZE = 44,
    AT_BODY_SHA256 = 48,
    AT_IMAGE_SHA256 = 80,
    AT_VERSION = 112,
    AT_SECURE_VERSION = 144,
    AT_PROJECT = 148,
    AT_RESERVED = 180,
    AT_SIGNATURE = 192,
};

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static void repair_form(uint8_t *header)
{
    static const uint8_t FORM[12] = {'R', 'A', 'W', 'O', 'T', 'A', '1', 0, 1, 0, 0, 1};
    memcpy(header, FORM, sizeof(FORM));
    header[AT_FLAGS] = 0;
    memset(header + AT_MAC + 6, 0, 2);
    memset(header + AT_RESERVED, 0, 12);
}

static void repair_device(uint8_t *header)
{
    header[AT_CHIP] = CONFIG_IDF_FIRMWARE_CHIP_ID & 0xFF;
    header[AT_CHIP + 1] = CONFIG_IDF_FIRMWARE_CHIP_ID >> 8;
    header[AT_CIPHER] = RAW_OTA_CIPHER_XTS_AES_128;
    memcpy(header + AT_MAC, twin_info()->mac, 6);
    put_u32(header + AT_SLOT_OFFSET, CHIP_OTA_1);
    put_u32(header + AT_SLOT_SIZE, CHIP_SLOT_SIZE);
}

static void terminate(char *text, size_t size, const char *otherwise)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e || i == size - 1) {
            memset(text + i, 0, size - i);
        }
    }
    if (text[0] == '\0') {
        memcpy(text, otherwise, strlen(otherwise));
    }
}

/* An image of one segment that takes all the room but for what follows it. */
static size_t repair_image(uint8_t *image, size_t size)
{
    if (size < IMAGE_HEAD + sizeof(esp_app_desc_t) + 48) {
        return size;
    }
    esp_image_header_t header;
    memcpy(&header, image, sizeof(header));
    header.magic = ESP_IMAGE_HEADER_MAGIC;
    header.segment_count = 1;
    header.chip_id = CONFIG_IDF_FIRMWARE_CHIP_ID;
    header.hash_appended = 1;
    memcpy(image, &header, sizeof(header));
    const esp_image_segment_header_t segment = {.load_addr = 0x3c000020,
                                                .data_len = (uint32_t)(size - IMAGE_HEAD - 48) / 4 * 4};
    memcpy(image + sizeof(header), &segment, sizeof(segment));
    esp_app_desc_t description;
    memcpy(&description, image + IMAGE_HEAD, sizeof(description));
    description.magic_word = ESP_APP_DESC_MAGIC_WORD;
    terminate(description.version, sizeof(description.version), "2.0.0");
    memcpy(description.project_name, esp_app_get_description()->project_name,
           sizeof(description.project_name));
    memcpy(image + IMAGE_HEAD, &description, sizeof(description));
    const size_t length = chip_repair_image(image, size);
    return length != 0 ? length : size;
}

static void repair_texts(uint8_t *header, const uint8_t *image, size_t size)
{
    if (size < IMAGE_HEAD + sizeof(esp_app_desc_t)) {
        return;
    }
    esp_app_desc_t description;
    memcpy(&description, image + IMAGE_HEAD, sizeof(description));
    memcpy(header + AT_VERSION, description.version, sizeof(description.version));
    memcpy(header + AT_PROJECT, description.project_name, sizeof(description.project_name));
    put_u32(header + AT_SECURE_VERSION, description.secure_version);
}

size_t package_from(input_t *input, unsigned repairs, body_t body, bool bare,
                    uint8_t package[PACKAGE_CAPACITY])
{
    const size_t head = bare ? 0 : RAW_OTA_HEADER_SIZE;
    const size_t size = input->left < PACKAGE_CAPACITY ? input->left : PACKAGE_CAPACITY;
    if (size < head) {
        return 0;
    }
    memcpy(package, input->at, size);
    uint8_t none[RAW_OTA_HEADER_SIZE] = {0};
    uint8_t *header = bare ? none : package;
    uint8_t *image = package + head;
    size_t image_size = size - head;
    if ((repairs & REPAIR_FORM) != 0) {
        repair_form(header);
    }
    if ((repairs & REPAIR_DEVICE) != 0) {
        repair_device(header);
    }
    if ((repairs & REPAIR_IMAGE) != 0) {
        image_size = repair_image(image, image_size);
    }
    if ((repairs & REPAIR_TEXTS) != 0) {
        repair_texts(header, image, image_size);
    }
    size_t body_size = image_size;
    if ((repairs & REPAIR_SIZES) != 0) {
        for (; body_size % 16 != 0 && body_size < PACKAGE_CAPACITY - head; body_size++) {
            image[body_size] = 0xFF;
        }
        put_u32(header + AT_IMAGE_SIZE, (uint32_t)image_size);
        put_u32(header + AT_BODY_SIZE, (uint32_t)body_size);
    }
    if ((repairs & REPAIR_IMAGE_HASH) != 0) {
        sha256_of(image, image_size, header + AT_IMAGE_SHA256);
    }
    if (body != BODY_PLAIN) {
        chip_cipher(body == BODY_OTHER_KEY, body == BODY_OTHER_SLOT ? CHIP_OTA_0 : CHIP_OTA_1, image,
                    body_size);
    }
    if ((repairs & REPAIR_BODY_HASH) != 0) {
        sha256_of(image, body_size, header + AT_BODY_SHA256);
    }
    if ((repairs & REPAIR_SIGNATURE) != 0) {
        uint8_t hash[32];
        sha256_of(header, AT_SIGNATURE, hash);
        chip_sign(raw_ota_public_keys[header[AT_SIGNATURE] % 2], hash, header + AT_SIGNATURE);
    }
    return head + body_size;
}
