#include "cooperative_tasks.h"

#include <setjmp.h>
#include <stddef.h>
#include <string.h>

#include "esp_task_wdt.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "rule.h"

#define MAX_TASKS 4
#define MAX_MUTEXES 16

bool (*tasks_on_wait)(void);

static StaticTask_t *s_tasks[MAX_TASKS];
static size_t s_task_count;
static bool s_running[MAX_TASKS]; /* begun, and perhaps waiting further down the stack */
static jmp_buf s_waits[MAX_TASKS];
static int s_current = -1;
static SemaphoreHandle_t s_held[MAX_MUTEXES];
static size_t s_held_count;

TaskHandle_t xTaskCreateStatic(TaskFunction_t code, const char *name, uint32_t stack_depth, void *parameters,
                               UBaseType_t priority, StackType_t *stack, StaticTask_t *task)
{
    (void)name;
    (void)stack_depth;
    (void)priority;
    (void)stack;
    RULE(s_task_count < MAX_TASKS, "too many tasks");
    *task = (StaticTask_t){.code = code, .parameters = parameters};
    s_tasks[s_task_count++] = task;
    return task;
}

/* A task runs from its start to where it waits for a queue for ever, which is where it began: it keeps
 * nothing on its stack over that. */
static void run_task(volatile int number)
{
    volatile const int caller = s_current;
    s_running[number] = true;
    s_current = number;
    if (setjmp(s_waits[number]) == 0) {
        s_tasks[number]->code(s_tasks[number]->parameters);
        RULE(false, "a task came back");
    }
    s_running[number] = false;
    s_current = caller;
}

void tasks_run(void)
{
    for (size_t i = 0; i < s_task_count; i++) {
        if (!s_running[i]) {
            run_task((int)i);
        }
    }
}

bool task_abandon(void)
{
    if (s_current >= 0) {
        longjmp(s_waits[s_current], 1);
    }
    return false;
}

bool tasks_are_idle(void)
{
    return s_held_count == 0 && s_current == -1;
}

void vTaskDelay(TickType_t ticks)
{
    (void)ticks;
    RULE(s_held_count == 0, "a task sleeps with a mutex held");
}

SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *memory)
{
    return memory;
}

BaseType_t xSemaphoreTake(SemaphoreHandle_t semaphore, TickType_t ticks)
{
    (void)ticks;
    for (size_t i = 0; i < s_held_count; i++) {
        RULE(s_held[i] != semaphore, "a mutex is taken twice");
    }
    RULE(s_held_count < MAX_MUTEXES, "too many mutexes");
    s_held[s_held_count++] = semaphore;
    return pdTRUE;
}

BaseType_t xSemaphoreGive(SemaphoreHandle_t semaphore)
{
    RULE(s_held_count > 0 && s_held[s_held_count - 1] == semaphore, "a mutex is given that is not held");
    s_held_count--;
    return pdTRUE;
}

QueueHandle_t xQueueCreateStatic(UBaseType_t length, UBaseType_t item_size, uint8_t *items,
                                 StaticQueue_t *queue)
{
    *queue = (StaticQueue_t){.items = items, .item_size = item_size, .capacity = length};
    return queue;
}

BaseType_t xQueueSend(QueueHandle_t queue, const void *item, TickType_t ticks)
{
    RULE(queue->count < queue->capacity || ticks != portMAX_DELAY, "a task waits for room in a queue");
    if (queue->count == queue->capacity) {
        return pdFALSE;
    }
    const size_t at = (queue->first + queue->count) % queue->capacity;
    memcpy(queue->items + at * queue->item_size, item, queue->item_size);
    queue->count++;
    return pdTRUE;
}

BaseType_t xQueueReceive(QueueHandle_t queue, void *item, TickType_t ticks)
{
    RULE(ticks == 0 || s_held_count == 0, "a task waits with a mutex held");
    if (queue->count == 0 && ticks == portMAX_DELAY) {
        RULE(task_abandon(), "waits for ever, and is no task");
    }
    const int current = s_current;
    s_current = -1;
    while (queue->count == 0 && ticks != 0 && tasks_on_wait != NULL && tasks_on_wait()) {
    }
    s_current = current;
    if (queue->count == 0) {
        return pdFALSE;
    }
    memcpy(item, queue->items + queue->first * queue->item_size, queue->item_size);
    queue->first = (queue->first + 1) % queue->capacity;
    queue->count--;
    return pdTRUE;
}

esp_err_t esp_task_wdt_add(TaskHandle_t task_handle)
{
    (void)task_handle;
    return ESP_OK;
}

esp_err_t esp_task_wdt_reset(void)
{
    return ESP_OK;
}
