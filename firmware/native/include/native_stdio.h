/**
 * Included before every source of the native build. On the chip stdout is the console UART: one write per
 * line, LF becomes CR LF. This gives printf() the same meaning here.
 */
#pragma once

#include <stdio.h>

int native_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define printf(...) native_printf(__VA_ARGS__)
