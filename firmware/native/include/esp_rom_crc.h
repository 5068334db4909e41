/** Port of ESP-IDF's esp_rom_crc.h. */
#pragma once

#include <stdint.h>

/** CRC-32 as zlib has it when `crc` is 0. */
uint32_t esp_rom_crc32_le(uint32_t crc, uint8_t const *buf, uint32_t len);
