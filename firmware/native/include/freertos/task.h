/** Port of task.h. */
#pragma once

#include "freertos/FreeRTOS.h"

typedef struct native_task {
    void (*code)(void *);
    void *parameters;
} StaticTask_t;
typedef StaticTask_t *TaskHandle_t;
typedef uint8_t StackType_t;
typedef void (*TaskFunction_t)(void *);

/** Starts a thread that must not return; stack and priority are those of the host. NULL: there is no thread
 * to be had. */
TaskHandle_t xTaskCreateStatic(TaskFunction_t code, const char *name, uint32_t stack_depth, void *parameters,
                               UBaseType_t priority, StackType_t *stack, StaticTask_t *task);
void vTaskDelay(TickType_t ticks);
