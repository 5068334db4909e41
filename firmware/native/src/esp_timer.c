/* esp_timer's one-shot timers, each on a POSIX thread of its own. */
#include "esp_timer.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "steady_wait.h"

struct esp_timer {
    esp_timer_create_args_t args;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_running;
    bool is_deleted;
    int64_t due_us;
};

static void *run_timer(void *context)
{
    esp_timer_handle_t timer = context;
    pthread_mutex_lock(&timer->mutex);
    while (!timer->is_deleted) {
        if (!timer->is_running) {
            (void)pthread_cond_wait(&timer->changed, &timer->mutex);
            continue;
        }
        if (steady_wait(&timer->changed, &timer->mutex, timer->due_us) == 0) {
            continue;
        }
        timer->is_running = false;
        pthread_mutex_unlock(&timer->mutex);
        timer->args.callback(timer->args.arg);
        pthread_mutex_lock(&timer->mutex);
    }
    pthread_mutex_unlock(&timer->mutex);
    (void)pthread_cond_destroy(&timer->changed);
    (void)pthread_mutex_destroy(&timer->mutex);
    free(timer);
    return NULL;
}

esp_err_t esp_timer_create(const esp_timer_create_args_t *create_args, esp_timer_handle_t *out_handle)
{
    if (create_args == NULL || create_args->callback == NULL || out_handle == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    esp_timer_handle_t timer = calloc(1, sizeof(*timer));
    if (timer == NULL) {
        return ESP_ERR_NO_MEM;
    }
    timer->args = *create_args;
    pthread_t thread;
    if (pthread_mutex_init(&timer->mutex, NULL) != 0 || !steady_init(&timer->changed) ||
        pthread_create(&thread, NULL, run_timer, timer) != 0) {
        free(timer);
        return ESP_ERR_NO_MEM;
    }
    (void)pthread_detach(thread);
    *out_handle = timer;
    return ESP_OK;
}

esp_err_t esp_timer_start_once(esp_timer_handle_t timer, uint64_t timeout_us)
{
    pthread_mutex_lock(&timer->mutex);
    const bool is_free = !timer->is_running;
    if (is_free) {
        timer->due_us = esp_timer_get_time() + (int64_t)timeout_us;
        timer->is_running = true;
        pthread_cond_signal(&timer->changed);
    }
    pthread_mutex_unlock(&timer->mutex);
    return is_free ? ESP_OK : ESP_ERR_INVALID_STATE;
}

esp_err_t esp_timer_stop(esp_timer_handle_t timer)
{
    pthread_mutex_lock(&timer->mutex);
    const bool was_running = timer->is_running;
    timer->is_running = false;
    pthread_cond_signal(&timer->changed);
    pthread_mutex_unlock(&timer->mutex);
    return was_running ? ESP_OK : ESP_ERR_INVALID_STATE;
}

esp_err_t esp_timer_delete(esp_timer_handle_t timer)
{
    pthread_mutex_lock(&timer->mutex);
    const bool is_free = !timer->is_running;
    timer->is_deleted = is_free;
    pthread_cond_signal(&timer->changed);
    pthread_mutex_unlock(&timer->mutex);
    return is_free ? ESP_OK : ESP_ERR_INVALID_STATE;
}
