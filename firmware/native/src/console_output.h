/** The transmit side of the console UART. */
#pragma once

#include <stdarg.h>
#include <stddef.h>

/** Writes text to the UART, LF as CR LF, in one write. Callable from a signal handler. */
void console_write(const char *text, size_t size);

/** Formats and writes. */
void console_vprintf(const char *format, va_list arguments) __attribute__((format(printf, 1, 0)));
