/**
 * A package out of a fuzz input: header and image as they are there, and what is to be put right in them so
 * that they are taken as far as wanted. Hashes and signatures are beyond mutation; a header that needs them
 * all wrong or right at will is made here, where the same input gives the same package in any driver.
 */
#pragma once

#include "fuzz_target.h"
#include "memory_chip.h"

/** Bits of what is put right, in the order in which it is done. */
typedef enum {
    REPAIR_FORM = 1 << 0,   /**< magic, header version and size, reserved fields */
    REPAIR_DEVICE = 1 << 1, /**< chip, MAC, cipher, slot */
    REPAIR_IMAGE = 1 << 2,  /**< image header, description, checksum and SHA-256 */
    REPAIR_TEXTS = 1 << 3,  /**< version, project and secure version, as the image's description has them */
    REPAIR_SIZES = 1 << 4,  /**< of image and body */
    REPAIR_IMAGE_HASH = 1 << 5,
    REPAIR_BODY_HASH = 1 << 6,
    REPAIR_SIGNATURE = 1 << 7,
} repair_t;

/** What the body went through on its way. */
typedef enum {
    BODY_ENCIPHERED = 0,
    BODY_OTHER_KEY = 1,
    BODY_OTHER_SLOT = 2,
    BODY_PLAIN = 3,
} body_t;

#define PACKAGE_CAPACITY (256u + CHIP_SLOT_SIZE + 64u)

/**
 * The rest of `input` (header, then image in plaintext) as a package, mended as `repairs` say.
 * @param bare  there is no header.
 * @return its size; 0 when the input is too short.
 */
size_t package_from(input_t *input, unsigned repairs, body_t body, bool bare,
                    uint8_t package[PACKAGE_CAPACITY]);
