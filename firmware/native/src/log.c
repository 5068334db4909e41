/* Console output and log lines. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "console_output.h"
#include "esp_log.h"
#include "esp_timer.h"
#include "twin_rpc.h"

/* Longest text that one call writes; events have up to about 1.1 KB. */
#define TEXT_SIZE 2048

static void write_all(const char *bytes, size_t size)
{
    while (size > 0) {
        const ssize_t written = write(STDOUT_FILENO, bytes, size);
        if (written < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (written <= 0) {
            return; /* nobody listens, as on a wire */
        }
        bytes += written;
        size -= (size_t)written;
    }
}

void console_write(const char *text, size_t size)
{
    char out[2 * TEXT_SIZE];
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        if (length + 2 > sizeof(out)) {
            write_all(out, length);
            length = 0;
        }
        if (text[i] == '\n') {
            out[length++] = '\r';
        }
        out[length++] = text[i];
    }
    write_all(out, length);
}

void console_vprintf(const char *format, va_list arguments)
{
    char text[TEXT_SIZE];
    const int length = vsnprintf(text, sizeof(text), format, arguments);
    if (length > 0) {
        console_write(text, (size_t)length < sizeof(text) ? (size_t)length : sizeof(text) - 1);
    }
}

int native_printf(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    console_vprintf(format, arguments);
    va_end(arguments);
    return 0;
}

int64_t esp_timer_get_time(void)
{
    static struct timespec s_start;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    /* Set by the first call, before there is a second thread. */
    if (s_start.tv_sec == 0 && s_start.tv_nsec == 0) {
        s_start = now;
    }
    return (int64_t)(now.tv_sec - s_start.tv_sec) * 1000000 + (now.tv_nsec - s_start.tv_nsec) / 1000;
}

uint32_t esp_log_timestamp(void)
{
    return twin_info()->uptime_ms + (uint32_t)(esp_timer_get_time() / 1000);
}

void native_log(esp_log_level_t level, const char *tag, const char *format, ...)
{
    static const char LETTERS[] = "?EWIDV";
    char text[TEXT_SIZE];
    const int head = snprintf(text, sizeof(text) - 1, "%c (%u) %s: ", LETTERS[level % 6],
                              (unsigned)esp_log_timestamp(), tag);
    size_t length = head > 0 && (size_t)head < sizeof(text) - 1 ? (size_t)head : 0;
    va_list arguments;
    va_start(arguments, format);
    const int body = vsnprintf(text + length, sizeof(text) - 1 - length, format, arguments);
    va_end(arguments);
    if (body > 0) {
        length += (size_t)body;
        length = length < sizeof(text) - 2 ? length : sizeof(text) - 2;
    }
    text[length++] = '\n';
    console_write(text, length);
}
