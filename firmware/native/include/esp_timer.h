/** Port of ESP-IDF's esp_timer.h: the clock, and timers that fire once. */
#pragma once

#include <stdint.h>

#include "esp_err.h"

typedef struct esp_timer *esp_timer_handle_t;
typedef void (*esp_timer_cb_t)(void *arg);

/** The fields of the original that this firmware sets. */
typedef struct {
    esp_timer_cb_t callback; /**< called by a thread of the timer's own */
    void *arg;
    const char *name;
} esp_timer_create_args_t;

/** Microseconds since the application started. */
int64_t esp_timer_get_time(void);

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle);
esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us);
/** ESP_ERR_INVALID_STATE when it is not running. Does not wait for a callback that is under way. */
esp_err_t esp_timer_stop(esp_timer_handle_t timer);
/** ESP_ERR_INVALID_STATE while it is running. */
esp_err_t esp_timer_delete(esp_timer_handle_t timer);
