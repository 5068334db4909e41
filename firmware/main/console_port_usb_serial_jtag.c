#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "console_port.h"
#include "driver/usb_serial_jtag.h"
#include "driver/usb_serial_jtag_vfs.h"
#include "esp_check.h"
#include "freertos/FreeRTOS.h"
#include "idf_compat.h"

static const char *TAG = "console";

/* A host that stops reading for a moment finds everything when it goes on. When this is full, or nobody
 * reads, output is dropped after 50 ms: a device without a host must not stand still. */
#define SEND_SIZE 4096

esp_err_t console_port_start(void)
{
    usb_serial_jtag_driver_config_t config = {
        .tx_buffer_size = SEND_SIZE,
        .rx_buffer_size = CONSOLE_PORT_RECEIVE_SIZE,
    };
    /* What was printed so far lies in the FIFO; the driver sends after it. */
    (void)fflush(stdout);
    ESP_RETURN_ON_ERROR(usb_serial_jtag_driver_install(&config), TAG, "usb_serial_jtag_driver_install");
    usb_serial_jtag_vfs_use_driver();
    return ESP_OK;
}

size_t console_port_read(char *buffer, size_t capacity)
{
    /* Nothing is lost while flash operations keep the cache off, though the interrupt waits: the host does
     * too. */
    const int got = usb_serial_jtag_read_bytes(buffer, capacity, portMAX_DELAY);
    return got > 0 ? (size_t)got : 0;
}

void console_port_write(const char *text, size_t size)
{
    /* As for a UART: one locked write. */
    (void)fflush(stdout);
    (void)write(fileno(stdout), text, size);
}

void console_port_drain(void)
{
    (void)fflush(stdout);
    idf_compat_usb_serial_jtag_drain(pdMS_TO_TICKS(200));
}
