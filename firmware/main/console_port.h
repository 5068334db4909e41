/** The wire that the console is on: a UART, or the chip's USB-Serial-JTAG. One file for each, chosen by
 * Kconfig. */
#pragma once

#include <stddef.h>

#include "esp_err.h"

/** Received bytes that are kept until console_port_read() takes them: more than a host sends between two
 * answers, which is 4 KiB of an update as base64. */
#define CONSOLE_PORT_RECEIVE_SIZE 8192

/** Claims the wire for input. */
esp_err_t console_port_start(void);

/** Waits for input, for ever. @return bytes put into `buffer`, 0 to `capacity`. */
size_t console_port_read(char *buffer, size_t capacity);

/** Sends a text; what other tasks print comes before or after it. LF goes out as CR LF. */
void console_port_write(const char *text, size_t size);

/** Waits until what was written has left the chip; a restart would lose it. At most 200 ms. */
void console_port_drain(void);
