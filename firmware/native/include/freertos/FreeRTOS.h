/** Port of FreeRTOS.h: tasks are threads, ticks are 1/CONFIG_FREERTOS_HZ s. */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "sdkconfig.h"

typedef uint32_t TickType_t;
typedef int BaseType_t;
typedef unsigned UBaseType_t;

#define configTICK_RATE_HZ CONFIG_FREERTOS_HZ
#define portMAX_DELAY ((TickType_t)0xffffffffu)
#define pdFALSE 0
#define pdTRUE 1
#define pdPASS pdTRUE
#define pdFAIL pdFALSE
#define pdMS_TO_TICKS(ms) ((TickType_t)(((uint64_t)(ms)*configTICK_RATE_HZ) / 1000u))
#define tskIDLE_PRIORITY 0

/* Critical sections keep other threads out, and interrupts there are none. */
typedef pthread_mutex_t portMUX_TYPE;
#define portMUX_INITIALIZER_UNLOCKED PTHREAD_MUTEX_INITIALIZER
#define portENTER_CRITICAL(mux) ((void)pthread_mutex_lock(mux))
#define portEXIT_CRITICAL(mux) ((void)pthread_mutex_unlock(mux))
