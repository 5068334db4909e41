/* console_port.h on the host: stdin and stdout of this process. */
#include "console_port.h"

#include <stdlib.h>
#include <unistd.h>

#include "console_output.h"

esp_err_t console_port_start(void)
{
    return ESP_OK;
}

size_t console_port_read(char *buffer, size_t capacity)
{
    const ssize_t got = read(STDIN_FILENO, buffer, capacity);
    if (got == 0) {
        _exit(0); /* the twin has gone */
    }
    return got > 0 ? (size_t)got : 0;
}

void console_port_write(const char *text, size_t size)
{
    console_write(text, size);
}

void console_port_drain(void)
{
}
