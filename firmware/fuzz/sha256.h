/** SHA-256, for the memory chip: on a board the chip's accelerator computes it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t state[8];
    uint64_t length; /**< bytes so far */
    uint8_t block[64];
} sha256_t;

void sha256_start(sha256_t *hash);
void sha256_update(sha256_t *hash, const uint8_t *bytes, size_t size);
void sha256_finish(sha256_t *hash, uint8_t digest[32]);

/** All three at once. */
void sha256_of(const uint8_t *bytes, size_t size, uint8_t digest[32]);
