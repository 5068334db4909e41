/* FIPS 180-4. */
#include "sha256.h"

#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t value, unsigned bits)
{
    return (value >> bits) | (value << (32 - bits));
}

static void take_block(sha256_t *hash, const uint8_t *block)
{
    uint32_t w[64];
    for (size_t i = 0; i < 16; i++) {
        w[i] = ((uint32_t)block[4 * i] << 24) | ((uint32_t)block[4 * i + 1] << 16) |
               ((uint32_t)block[4 * i + 2] << 8) | block[4 * i + 3];
    }
    for (size_t i = 16; i < 64; i++) {
        const uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        const uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, hash->state, sizeof(v));
    for (size_t i = 0; i < 64; i++) {
        /* The eight names move by one place each round: instead of the values, their places move. */
        uint32_t *const a = &v[(64 - i) % 8], *const b = &v[(65 - i) % 8], *const c = &v[(66 - i) % 8];
        uint32_t *const d = &v[(67 - i) % 8], *const e = &v[(68 - i) % 8], *const f = &v[(69 - i) % 8];
        uint32_t *const g = &v[(70 - i) % 8], *const h = &v[(71 - i) % 8];
        const uint32_t s1 = rotate(*e, 6) ^ rotate(*e, 11) ^ rotate(*e, 25);
        const uint32_t t1 = *h + s1 + ((*e & *f) ^ (~*e & *g)) + K[i] + w[i];
        const uint32_t s0 = rotate(*a, 2) ^ rotate(*a, 13) ^ rotate(*a, 22);
        const uint32_t t2 = s0 + ((*a & *b) ^ (*a & *c) ^ (*b & *c));
        *d += t1;
        *h = t1 + t2;
    }
    for (size_t i = 0; i < 8; i++) {
        hash->state[i] += v[i];
    }
}

void sha256_start(sha256_t *hash)
{
    static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, START, sizeof(hash->state));
    hash->length = 0;
}

void sha256_update(sha256_t *hash, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        const size_t at = hash->length % sizeof(hash->block);
        const size_t piece = size < sizeof(hash->block) - at ? size : sizeof(hash->block) - at;
        memcpy(hash->block + at, bytes, piece);
        hash->length += piece;
        bytes += piece;
        size -= piece;
        if (at + piece == sizeof(hash->block)) {
            take_block(hash, hash->block);
        }
    }
}

void sha256_finish(sha256_t *hash, uint8_t digest[32])
{
    const uint64_t bits = hash->length * 8;
    static const uint8_t PADDING[64] = {0x80};
    const size_t at = hash->length % 64;
    sha256_update(hash, PADDING, at < 56 ? 56 - at : 120 - at);
    uint8_t length[8];
    for (size_t i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    sha256_update(hash, length, sizeof(length));
    for (size_t i = 0; i < 32; i++) {
        digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void sha256_of(const uint8_t *bytes, size_t size, uint8_t digest[32])
{
    sha256_t hash;
    sha256_start(&hash);
    sha256_update(&hash, bytes, size);
    sha256_finish(&hash, digest);
}
