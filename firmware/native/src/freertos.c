/* FreeRTOS and the task watchdog on POSIX threads. */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "esp_log.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "sdkconfig.h"
#include "steady_wait.h"
#include "twin_rpc.h"

static void *run_task(void *context)
{
    const StaticTask_t *task = context;
    task->code(task->parameters);
    abort(); /* as FreeRTOS does when a task returns */
}

static bool start_thread(StaticTask_t *task)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_task, task) != 0) {
        return false;
    }
    (void)pthread_detach(thread);
    return true;
}

TaskHandle_t xTaskCreateStatic(TaskFunction_t code, const char *name, uint32_t stack_depth, void *parameters,
                               UBaseType_t priority, StackType_t *stack, StaticTask_t *task)
{
    (void)name;
    (void)stack_depth;
    (void)priority;
    (void)stack;
    *task = (StaticTask_t){.code = code, .parameters = parameters};
    return start_thread(task) ? task : NULL;
}

void vTaskDelay(TickType_t ticks)
{
    const uint64_t ns = (uint64_t)ticks * 1000000000u / configTICK_RATE_HZ;
    struct timespec left = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *memory)
{
    return pthread_mutex_init(&memory->mutex, NULL) == 0 ? memory : NULL;
}

BaseType_t xSemaphoreTake(SemaphoreHandle_t semaphore, TickType_t ticks)
{
    (void)ticks;
    return pthread_mutex_lock(&semaphore->mutex) == 0 ? pdTRUE : pdFALSE;
}

BaseType_t xSemaphoreGive(SemaphoreHandle_t semaphore)
{
    return pthread_mutex_unlock(&semaphore->mutex) == 0 ? pdTRUE : pdFALSE;
}

QueueHandle_t xQueueCreateStatic(UBaseType_t length, UBaseType_t item_size, uint8_t *items,
                                 StaticQueue_t *queue)
{
    *queue = (StaticQueue_t){.items = items, .item_size = item_size, .capacity = length};
    const bool made = pthread_mutex_init(&queue->mutex, NULL) == 0 && steady_init(&queue->changed);
    return made ? queue : NULL;
}

/* Waits, holding the queue's mutex, until its count is not `unwanted`; false when that takes longer. */
static bool wait_while_count_is(QueueHandle_t queue, size_t unwanted, TickType_t ticks)
{
    const int64_t due_us = esp_timer_get_time() + (int64_t)ticks * 1000000 / configTICK_RATE_HZ;
    while (queue->count == unwanted) {
        const int status = ticks == portMAX_DELAY ? pthread_cond_wait(&queue->changed, &queue->mutex)
                                                  : steady_wait(&queue->changed, &queue->mutex, due_us);
        if (status != 0) {
            return queue->count != unwanted;
        }
    }
    return true;
}

BaseType_t xQueueSend(QueueHandle_t queue, const void *item, TickType_t ticks)
{
    pthread_mutex_lock(&queue->mutex);
    const bool fits = wait_while_count_is(queue, queue->capacity, ticks);
    if (fits) {
        const size_t at = (queue->first + queue->count) % queue->capacity;
        memcpy(queue->items + at * queue->item_size, item, queue->item_size);
        queue->count++;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->mutex);
    return fits ? pdTRUE : pdFALSE;
}

BaseType_t xQueueReceive(QueueHandle_t queue, void *item, TickType_t ticks)
{
    pthread_mutex_lock(&queue->mutex);
    const bool found = wait_while_count_is(queue, 0, ticks);
    if (found) {
        memcpy(item, queue->items + queue->first * queue->item_size, queue->item_size);
        queue->first = (queue->first + 1) % queue->capacity;
        queue->count--;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->mutex);
    return found ? pdTRUE : pdFALSE;
}

/* One watched task is enough: time of its last sign of life, 0 while there is none. */
static int64_t s_fed_at_us;
static pthread_mutex_t s_watchdog_mutex = PTHREAD_MUTEX_INITIALIZER;

static void watch(void *unused)
{
    (void)unused;
    for (;;) {
        vTaskDelay(pdMS_TO_TICKS(50));
        pthread_mutex_lock(&s_watchdog_mutex);
        const int64_t silent_us = esp_timer_get_time() - s_fed_at_us;
        pthread_mutex_unlock(&s_watchdog_mutex);
        if (silent_us > (int64_t)CONFIG_ESP_TASK_WDT_TIMEOUT_S * 1000000) {
            ESP_LOGE(
                "task_wdt",
                "Task watchdog got triggered. The following tasks/users did not reset the watchdog in time:");
            ESP_LOGE("task_wdt", " - main (CPU 0)");
            ESP_LOGE("task_wdt", "Aborting.");
            printf("\nRebooting...\n");
            twin_restart(TWIN_RESTART_TASK_WATCHDOG);
        }
    }
}

esp_err_t esp_task_wdt_add(TaskHandle_t task_handle)
{
    (void)task_handle;
    (void)esp_task_wdt_reset();
    static StaticTask_t s_watcher = {.code = watch};
    return start_thread(&s_watcher) ? ESP_OK : ESP_ERR_NO_MEM;
}

esp_err_t esp_task_wdt_reset(void)
{
    pthread_mutex_lock(&s_watchdog_mutex);
    s_fed_at_us = esp_timer_get_time();
    pthread_mutex_unlock(&s_watchdog_mutex);
    return ESP_OK;
}
