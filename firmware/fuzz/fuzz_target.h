/** What every target defines, for libFuzzer and for the driver that replays inputs without it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/** Runs one input. @return 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/** Bytes of an input, taken one after the other. */
typedef struct {
    const uint8_t *at;
    size_t left;
} input_t;

/** The next byte; 0 when there is none. */
static inline uint8_t take_u8(input_t *input)
{
    if (input->left == 0) {
        return 0;
    }
    input->left--;
    return *input->at++;
}

/** The next 16 bits, little endian. */
static inline uint32_t take_u16(input_t *input)
{
    const uint32_t low = take_u8(input);
    return low | ((uint32_t)take_u8(input) << 8);
}

/** The next 32 bits, little endian. */
static inline uint32_t take_u32(input_t *input)
{
    const uint32_t low = take_u16(input);
    return low | (take_u16(input) << 16);
}
