/** Port of queue.h: first in, first out, from task to task. */
#pragma once

#include <pthread.h>
#include <stddef.h>

#include "freertos/FreeRTOS.h"

typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint8_t *items;
    size_t item_size;
    size_t capacity;
    size_t count;
    size_t first;
} StaticQueue_t;
typedef StaticQueue_t *QueueHandle_t;

QueueHandle_t xQueueCreateStatic(UBaseType_t length, UBaseType_t item_size, uint8_t *items,
                                 StaticQueue_t *queue);
/** pdFALSE: full for so long. */
BaseType_t xQueueSend(QueueHandle_t queue, const void *item, TickType_t ticks);
/** pdFALSE: empty for so long. */
BaseType_t xQueueReceive(QueueHandle_t queue, void *item, TickType_t ticks);
