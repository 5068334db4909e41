/* Two keys as embed_public_keys.py would put them here. Their signatures are the memory chip's toy ones. */
#include "raw_ota_package.h"

const uint8_t raw_ota_public_keys[][RAW_OTA_PUBLIC_KEY_SIZE] = {{4, 1}, {4, 2}};
const size_t raw_ota_public_key_count = 2;
