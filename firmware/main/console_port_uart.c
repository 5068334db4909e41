#include <stdio.h>
#include <unistd.h>

#include "console_port.h"
#include "driver/uart.h"
#include "esp_check.h"
#include "freertos/FreeRTOS.h"
#include "sdkconfig.h"

static const char *TAG = "console";

/* Half of the FIFO: the other half fills while the interrupt waits for a critical section. */
#define RECEIVE_THRESHOLD 64

esp_err_t console_port_start(void)
{
    int flags = 0;
#if CONFIG_UART_ISR_IN_IRAM
    /* Reception goes on while flash operations keep the cache off. */
    flags = ESP_INTR_FLAG_IRAM;
#endif
    ESP_RETURN_ON_ERROR(
        uart_driver_install(CONFIG_ESP_CONSOLE_UART_NUM, CONSOLE_PORT_RECEIVE_SIZE, 0, 0, NULL, flags), TAG,
        "uart_driver_install");
    return uart_set_rx_full_threshold(CONFIG_ESP_CONSOLE_UART_NUM, RECEIVE_THRESHOLD);
}

size_t console_port_read(char *buffer, size_t capacity)
{
    /* The driver waits for as many bytes as it is asked for. */
    (void)capacity;
    return uart_read_bytes(CONFIG_ESP_CONSOLE_UART_NUM, buffer, 1, portMAX_DELAY) == 1 ? 1 : 0;
}

void console_port_write(const char *text, size_t size)
{
    /* Not through stdio, whose buffer would be written out in as many pieces as the C library likes. The file
     * system under it locks each write. */
    (void)fflush(stdout);
    (void)write(fileno(stdout), text, size);
}

void console_port_drain(void)
{
    (void)fflush(stdout);
    (void)uart_wait_tx_done(CONFIG_ESP_CONSOLE_UART_NUM, pdMS_TO_TICKS(200));
}
