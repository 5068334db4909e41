/* The commands `cut-at` and `flash-ops`; only with CONFIG_RAW_OTA_TEST_HOOKS. */
#include "sdkconfig.h"

#if CONFIG_RAW_OTA_TEST_HOOKS

#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "crash.h"
#include "cut_hook.h"
#include "esp_system.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"
#include "raw_ota.h"

/* Waits for whoever can do what no program can: switch the supply off. */
static void hold(void)
{
    for (;;) {
        vTaskDelay(pdMS_TO_TICKS(1000));
    }
}

static const struct {
    const char *name;
    void (*end)(void);
} KINDS[] = {
    {"restart", esp_restart},
    {"panic", abort},
    {"watchdog", crash_by_watchdog},
    {"hold", hold},
};

static bool read_kind(const command_line_t *command, cut_plan_t *plan)
{
    const char *kind = command_line_get(command, "kind");
    for (size_t i = 0; kind != NULL && i < sizeof(KINDS) / sizeof(KINDS[0]); i++) {
        if (strcmp(kind, KINDS[i].name) == 0) {
            plan->kind = KINDS[i].name;
            plan->end = KINDS[i].end;
            return true;
        }
    }
    return false;
}

static bool read_operation(const command_line_t *command, cut_plan_t *plan)
{
    const char *op = command_line_get(command, "op");
    plan->erases = op == NULL || strcmp(op, "any") == 0 || strcmp(op, "erase") == 0;
    plan->writes = op == NULL || strcmp(op, "any") == 0 || strcmp(op, "write") == 0;
    return plan->erases || plan->writes;
}

/* An erase cannot be stopped half way by the program that asked for it: inside is for writes alone. */
static bool read_where(const command_line_t *command, cut_plan_t *plan)
{
    const char *where = command_line_get(command, "where");
    if (where == NULL || strcmp(where, "before") == 0) {
        plan->where = CUT_BEFORE;
    } else if (strcmp(where, "after") == 0) {
        plan->where = CUT_AFTER;
    } else if (strcmp(where, "inside") == 0 && !plan->erases) {
        plan->where = CUT_INSIDE;
    } else {
        return false;
    }
    return command_line_number(command, "byte", 0, &plan->byte);
}

void command_cut_at(const command_line_t *command, command_outcome_t *outcome)
{
    cut_plan_t plan = {0};
    uint32_t nth = 0;
    const char *kind = command_line_get(command, "kind");
    const bool off = kind != NULL && strcmp(kind, "off") == 0;
    if (!off && (!read_kind(command, &plan) || !read_operation(command, &plan) ||
                 !read_where(command, &plan) || !command_line_number(command, "n", 1, &nth) || nth == 0)) {
        command_fail(outcome, "bad-argument", ESP_OK,
                     "kind=restart|panic|watchdog|hold|off op=any|erase|write n=1.. where=before|after, "
                     "inside for writes");
        return;
    }
    if (!raw_ota_lock()) {
        command_fail(outcome, raw_ota_err_name(RAW_OTA_BUSY), ESP_OK, "an update is under way");
        return;
    }
    cut_hook_arm(&plan, nth);
    raw_ota_unlock();
}

void command_flash_ops(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    const cut_counts_t counts = cut_hook_counts();
    event_add_number(&outcome->fields, "erases", counts.erases);
    event_add_number(&outcome->fields, "writes", counts.writes);
    event_add_number(&outcome->fields, "left", cut_hook_left());
}

#endif /* CONFIG_RAW_OTA_TEST_HOOKS */
