/** Port of FreeRTOS.h: tasks are threads, ticks are 1/CONFIG_FREERTOS_HZ s. */
#pragma once

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
