#include "sdkconfig.h"

#if CONFIG_RAW_OTA_TEST_HOOKS

#include "crash.h"

#include <stddef.h>
#include <stdint.h>

#include "esp_task_wdt.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

void crash_by_watchdog(void)
{
    (void)esp_task_wdt_add(NULL);
    for (;;) {
        vTaskDelay(pdMS_TO_TICKS(1000));
    }
}

/* On purpose: UndefinedBehaviorSanitizer is not to stop it before the processor does. */
__attribute__((no_sanitize("undefined"))) void crash_by_null(void)
{
    volatile uint32_t *volatile nowhere = NULL;
    *nowhere = 1;
}

#endif /* CONFIG_RAW_OTA_TEST_HOOKS */
