#include "memory_timer.h"

#include <stdbool.h>
#include <stdlib.h>

#include "esp_timer.h"
#include "rule.h"

struct esp_timer {
    bool is_running;
};

static int s_left;

int timers_left(void)
{
    return s_left;
}

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle)
{
    RULE(create_args->callback != NULL, "a timer for nothing");
    *out_handle = calloc(1, sizeof(**out_handle));
    RULE(*out_handle != NULL, "no memory");
    s_left++;
    return ESP_OK;
}

esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us)
{
    RULE(!timer->is_running && timeout_us > 0, "a timer is started twice, or for no time");
    timer->is_running = true;
    return ESP_OK;
}

esp_err_t esp_timer_stop(esp_timer_handle_t timer)
{
    const bool was_running = timer->is_running;
    timer->is_running = false;
    return was_running ? ESP_OK : ESP_ERR_INVALID_STATE;
}

esp_err_t esp_timer_delete(esp_timer_handle_t timer)
{
    RULE(!timer->is_running, "a running timer is deleted");
    free(timer);
    s_left--;
    return ESP_OK;
}
