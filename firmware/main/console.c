#include "console.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "console_port.h"
#include "esp_log.h"
#include "sdkconfig.h"

static const char *TAG = "console";

/* Longest line of the log that leaves in one piece. */
static char s_output[1024];

void console_start(void)
{
    (void)setvbuf(stdout, s_output, _IOLBF, sizeof(s_output));
    ESP_ERROR_CHECK(console_port_start());
}

/* A line that is being received. */
typedef struct {
    char text[CONFIG_COMPANION_LINE_SIZE];
    size_t length;
    bool too_long;
} line_t;

static void take(line_t *line, char c)
{
    if (c != '\n' && c != '\r') {
        if (line->length + 1 < sizeof(line->text) && c != '\0') {
            line->text[line->length++] = c;
        } else {
            line->too_long = true;
        }
        return;
    }
    if (line->too_long) {
        ESP_LOGW(TAG, "dropped a line that is too long or holds a NUL");
    } else if (line->length > 0) {
        line->text[line->length] = '\0';
        commands_dispatch(line->text);
    }
    /* Nothing of a command outlives it: lines may carry a password. */
    memset(line, 0, sizeof(*line));
}

void console_run(void)
{
    static line_t s_line;
    for (;;) {
        char received[64];
        const size_t count = console_port_read(received, sizeof(received));
        for (size_t i = 0; i < count; i++) {
            take(&s_line, received[i]);
        }
        memset(received, 0, count);
    }
}
