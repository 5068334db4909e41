#include "console.h"

#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "driver/uart.h"
#include "esp_log.h"
#include "events.h"
#include "freertos/FreeRTOS.h"
#include "sdkconfig.h"

static const char *TAG = "console";

/* Holds the longest burst that the host sends between two acknowledgements. */
#define RECEIVE_BUFFER_SIZE 2048

static char s_output[EVENT_TEXT_SIZE + 128];

void console_start(void)
{
    /* An event that left stdout in two writes could be split by another task's line. */
    (void)setvbuf(stdout, s_output, _IOLBF, sizeof(s_output));
    int flags = 0;
#if CONFIG_UART_ISR_IN_IRAM
    /* Reception goes on while flash operations keep the cache off. */
    flags = ESP_INTR_FLAG_IRAM;
#endif
    ESP_ERROR_CHECK(uart_driver_install(CONFIG_ESP_CONSOLE_UART_NUM, RECEIVE_BUFFER_SIZE, 0, 0, NULL, flags));
}

void console_run(void)
{
    static char s_line[CONFIG_COMPANION_LINE_SIZE];
    size_t length = 0;
    bool too_long = false;
    for (;;) {
        char c;
        if (uart_read_bytes(CONFIG_ESP_CONSOLE_UART_NUM, &c, 1, portMAX_DELAY) != 1) {
            continue;
        }
        if (c != '\n' && c != '\r') {
            if (length + 1 < sizeof(s_line) && c != '\0') {
                s_line[length++] = c;
            } else {
                too_long = true;
            }
            continue;
        }
        if (too_long) {
            ESP_LOGW(TAG, "dropped a line that is too long or holds a NUL");
        } else if (length > 0) {
            s_line[length] = '\0';
            commands_dispatch(s_line);
        }
        /* Nothing of a command outlives it: lines may carry a password. */
        memset(s_line, 0, sizeof(s_line));
        length = 0;
        too_long = false;
    }
}
