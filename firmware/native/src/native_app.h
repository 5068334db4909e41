/** Between the files that start the application. */
#pragma once

#include <stdint.h>

#include "esp_err.h"

/**
 * Where the description keeps the hash of the program. It cannot be compiled in; like esptool does for a
 * target image, the packer puts it into the image, and the start-up reads it from there.
 */
uint8_t *native_elf_sha256(void);

/** Prints what ESP-IDF prints between the bootloader and app_main(). */
void startup_print(void);

/**
 * What ESP-IDF's start-up does with eFuses (esp_efuse_startup.c): checks them, and burns the download mode
 * that the build wants.
 * @return not ESP_OK: ESP-IDF aborts.
 */
esp_err_t native_efuse_startup(void);

/** What esp_security_init() does with eFuses; the return value as above. */
esp_err_t native_security_startup(void);

/** Makes crashes look and end like a panic on the chip. */
void panic_install(void);

/** The application. */
void app_main(void);
