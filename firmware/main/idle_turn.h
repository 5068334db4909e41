#pragma once

#include <stdint.h>

#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

/** Gives the idle task a tick every half second, else its watchdog would end work on a whole slot. By time,
 * since flash may be slow. `*rested_us` is 0 before the first call. */
static inline void idle_turn(int64_t *rested_us)
{
    if (esp_timer_get_time() - *rested_us > 500 * 1000) {
        vTaskDelay(1);
        *rested_us = esp_timer_get_time();
    }
}
