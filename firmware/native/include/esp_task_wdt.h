/** Port of ESP-IDF's esp_task_wdt.h. */
#pragma once

#include "esp_err.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

/** Watches the calling task (NULL): it must call esp_task_wdt_reset() within CONFIG_ESP_TASK_WDT_TIMEOUT_S.
 */
esp_err_t esp_task_wdt_add(TaskHandle_t task_handle);
esp_err_t esp_task_wdt_reset(void);
