/**
 * An update's bytes over the console, for raw_ota_update().
 *
 * The device asks for each window of bytes by an event `want`; the host answers with lines `data`. Nothing is
 * on its way to the device while it writes flash: the next window is asked for when it has been.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "command_line.h"
#include "esp_err.h"

/** One transfer. */
typedef struct {
    uint32_t id;       /**< of the command that it belongs to */
    uint32_t size;     /**< bytes of the whole transfer */
    uint32_t position; /**< bytes handed out so far */
    uint32_t repeats;  /**< how often something had to be asked for again */
    bool timed_out;    /**< it ended because the host did not answer */
    uint32_t missing;  /**< then: the byte that did not come */
} uart_source_t;

/** To be called once, before any other function here. @return ESP_OK or ESP_ERR_NO_MEM. */
esp_err_t uart_source_start(void);

/** raw_ota_source_t::read of a uart_source_t. One transfer at a time: the lock of raw_ota sees to that. */
int uart_source_read(void *context, uint8_t *buffer, size_t capacity);

/**
 * Takes a `data` line, in the task of the command loop.
 * @param intact  the line's CRC is right.
 */
void uart_source_take(const command_line_t *line, bool intact);
