/** Port of semphr.h: mutexes. */
#pragma once

#include <pthread.h>

#include "freertos/FreeRTOS.h"

typedef struct {
    pthread_mutex_t mutex;
} StaticSemaphore_t;
typedef StaticSemaphore_t *SemaphoreHandle_t;

SemaphoreHandle_t xSemaphoreCreateMutexStatic(StaticSemaphore_t *memory);
/** Waits for ever; other times than portMAX_DELAY are not ported. */
BaseType_t xSemaphoreTake(SemaphoreHandle_t semaphore, TickType_t ticks);
BaseType_t xSemaphoreGive(SemaphoreHandle_t semaphore);
