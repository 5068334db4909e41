/** Port of task.h. */
#pragma once

#include "freertos/FreeRTOS.h"

typedef struct native_task *TaskHandle_t;
typedef void (*TaskFunction_t)(void *);

/** Starts a thread; stack size and priority are those of the host. `created` must be NULL. */
BaseType_t xTaskCreate(TaskFunction_t code, const char *name, uint32_t stack_depth, void *parameters,
                       UBaseType_t priority, TaskHandle_t *created);
/** Ends the calling thread (NULL). */
void vTaskDelete(TaskHandle_t task);
void vTaskDelay(TickType_t ticks);
