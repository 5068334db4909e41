/** Port of ESP-IDF's hal/spi_flash_encrypted_ll.h: the twin's chips are of revisions that have the function.
 */
#pragma once

#include <stdbool.h>

static inline bool spi_flash_encrypt_ll_is_pseudo_rounds_function_supported(void)
{
    return true;
}
