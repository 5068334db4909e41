/** Port of ESP-IDF's esp_err.h: the error codes that this firmware meets. */
#pragma once

#include <stdint.h>
#include <stdlib.h>

typedef int esp_err_t;

#define ESP_OK 0
#define ESP_FAIL (-1)
#define ESP_ERR_NO_MEM 0x101
#define ESP_ERR_INVALID_ARG 0x102
#define ESP_ERR_INVALID_STATE 0x103
#define ESP_ERR_INVALID_SIZE 0x104
#define ESP_ERR_NOT_FOUND 0x105
#define ESP_ERR_NOT_SUPPORTED 0x106
#define ESP_ERR_TIMEOUT 0x107
#define ESP_ERR_INVALID_RESPONSE 0x108
#define ESP_ERR_INVALID_CRC 0x109
#define ESP_ERR_INVALID_VERSION 0x10A
#define ESP_ERR_NOT_ALLOWED 0x10D

/** Name of a code, or "UNKNOWN ERROR". */
const char *esp_err_to_name(esp_err_t code);

/** Prints what ESP_ERROR_CHECK prints and aborts. */
void native_error_check_failed(esp_err_t code, const char *file, int line, const char *function,
                               const char *expression) __attribute__((noreturn));

#define ESP_ERROR_CHECK(x)                                                                                   \
    do {                                                                                                     \
        const esp_err_t check_code_ = (x);                                                                   \
        if (check_code_ != ESP_OK) {                                                                         \
            native_error_check_failed(check_code_, __FILE__, __LINE__, __func__, #x);                        \
        }                                                                                                    \
    } while (0)
