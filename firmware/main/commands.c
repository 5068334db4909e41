#include "commands.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "console_port.h"
#include "device_state.h"
#include "esp_efuse.h"
#include "esp_flash_encrypt.h"
#include "esp_log.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/semphr.h"
#include "freertos/task.h"
#include "network.h"
#include "sdkconfig.h"
#include "soc/soc_caps.h"
#include "uart_source.h"

static const char *TAG = "commands";

/* One long-running command and one that meets it: the second finds the update lock taken and says so. */
#define JOB_COUNT 2

/* That of app_main, whose loop goes on answering while a job computes. */
#define JOB_PRIORITY (tskIDLE_PRIORITY + 1)

typedef struct {
    const char *name;
    command_handler_t handler;
    bool is_job; /* runs in a task with a large stack; the command loop goes on meanwhile */
} entry_t;

/* A line that is being carried out. */
typedef struct {
    char line[CONFIG_COMPANION_LINE_SIZE];
    command_line_t command;
    const entry_t *entry;
    command_outcome_t outcome;
    bool in_use;
} job_t;

/* The last command that had an id, and what was answered: a repeated id gets the same answer again. */
static struct {
    bool known;
    bool done_known;
    uint32_t id;
    event_t ack;
    event_t done;
} s_last;

static StaticSemaphore_t s_mutex_memory;
static SemaphoreHandle_t s_mutex; /* guards s_last and job_t::in_use */
static job_t s_inline;            /* commands that run in the command loop */
static job_t s_jobs[JOB_COUNT];

/* Jobs that wait for a task, and the tasks. Both live as long as the program: memory that is there at start
 * is there for every update, and no task is ever deleted. */
static job_t *s_queue_memory[JOB_COUNT];
static StaticQueue_t s_queue_state;
static QueueHandle_t s_queue;
static StackType_t s_stacks[JOB_COUNT][CONFIG_COMPANION_JOB_STACK_SIZE];
static StaticTask_t s_tasks[JOB_COUNT];

static void lock(void)
{
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
}

static void unlock(void)
{
    (void)xSemaphoreGive(s_mutex);
}

void command_fail(command_outcome_t *outcome, const char *error, esp_err_t code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(outcome->message, sizeof(outcome->message), format, arguments);
    va_end(arguments);
    outcome->error = error;
    outcome->code = code;
}

void command_end_esp(command_outcome_t *outcome, esp_err_t code, const char *what)
{
    if (code != ESP_OK) {
        command_fail(outcome, raw_ota_err_name(raw_ota_err_from_esp(code)), code, "%s = %s", what,
                     esp_err_to_name(code));
    }
}

static void command_status(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    device_state_add(&outcome->fields);
    event_add_number(&outcome->fields, "uptime_ms", esp_timer_get_time() / 1000);
    network_add_state(&outcome->fields);
}

static void command_otadata(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    raw_ota_otadata_t otadata;
    const esp_err_t err = raw_ota_read_otadata(&otadata);
    if (err != ESP_OK) {
        command_end_esp(outcome, err, "reading otadata");
        return;
    }
    event_add_hex(&outcome->fields, "record0", (const uint8_t *)&otadata.records[0],
                  sizeof(otadata.records[0]));
    event_add_hex(&outcome->fields, "record1", (const uint8_t *)&otadata.records[1],
                  sizeof(otadata.records[1]));
    event_add_number(&outcome->fields, "active", otadata.active);
    event_add_text(&outcome->fields, "otadata_slot", otadata.slot != NULL ? otadata.slot->label : "none");
}

static void command_net(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    network_add_state(&outcome->fields);
}

static void command_wifi(const command_line_t *command, command_outcome_t *outcome)
{
    const char *ssid = command_line_get(command, "ssid");
    const char *password = command_line_get(command, "password");
    if (ssid == NULL) {
        command_fail(outcome, "bad-argument", ESP_OK, "wifi needs ssid=");
        return;
    }
    const esp_err_t err = network_join(ssid, password != NULL ? password : "");
    if (err != ESP_OK) {
        command_fail(outcome, "no-network", err, "joining the network = %s", esp_err_to_name(err));
    }
    network_add_state(&outcome->fields);
}

static void command_reboot(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    outcome->then = COMMAND_THEN_RESTART;
}

#if CONFIG_COMPANION_ALLOW_LOCK
static void command_lock(const command_line_t *command, command_outcome_t *outcome)
{
    const char *mode = command_line_get(command, "mode");
    if (mode != NULL && strcmp(mode, "download-off") == 0) {
        command_end_esp(outcome, esp_efuse_disable_rom_download_mode(),
                        "esp_efuse_disable_rom_download_mode");
#if SOC_SUPPORTS_SECURE_DL_MODE
    } else if (mode != NULL && strcmp(mode, "secure-download") == 0) {
        command_end_esp(outcome, esp_efuse_enable_rom_secure_download_mode(),
                        "esp_efuse_enable_rom_secure_download_mode");
#endif
    } else if (mode != NULL && strcmp(mode, "release") == 0) {
        /* Aborts, as ESP-IDF has it, when flash encryption is off. */
        esp_flash_encryption_set_release_mode();
    } else {
        command_fail(outcome, "bad-argument", ESP_OK, "this chip has no such lock");
    }
}
#endif

static const entry_t COMMANDS[] = {
    {"status", command_status, false},
    {"ota", command_ota, true},
    {"ota-uart", command_ota_uart, true},
    {"ota-stock", command_ota_stock, true},
    {"confirm", command_confirm, false},
    {"reboot", command_reboot, false},
    /* Verifies the running image, with secure boot its signature too: needs the large stack. */
    {"repair", command_repair, true},
    {"rollback", command_rollback, true},
    {"otadata", command_otadata, false},
    {"hash", command_hash, true},
    {"probe", command_probe, true},
    {"net", command_net, false},
    {"wifi", command_wifi, true},
#if CONFIG_COMPANION_ALLOW_LOCK
    {"lock", command_lock, false},
#endif
#if CONFIG_RAW_OTA_TEST_HOOKS
    {"crash", command_crash, false},
    {"otadata-raw", command_otadata_raw, false},
    {"cut-at", command_cut_at, false},
    {"flash-ops", command_flash_ops, false},
#endif
};

static const entry_t *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        if (strcmp(COMMANDS[i].name, name) == 0) {
            return &COMMANDS[i];
        }
    }
    return NULL;
}

static void send_ack(const command_line_t *command, const char *error, const char *message)
{
    event_t ack;
    event_start(&ack, "ack");
    event_add_number(&ack, "id", command->id);
    event_add_text(&ack, "cmd", command->name);
    event_add_flag(&ack, "ok", error == NULL);
    if (error != NULL) {
        event_add_text(&ack, "err", error);
        event_add_text(&ack, "msg", message);
    } else if (command->has_id) {
        lock();
        s_last.known = true;
        s_last.done_known = false;
        s_last.id = command->id;
        s_last.ack = ack;
        unlock();
    }
    event_send(&ack);
}

/* `finished`, unless NULL, is free for another command before the host can know that this one has ended. */
static void send_done(const command_line_t *command, const command_outcome_t *outcome, int64_t started_us,
                      job_t *finished)
{
    /* Too large for the stack of the command loop beside everything else; guarded by the lock. */
    static event_t s_done;
    lock();
    event_start(&s_done, "done");
    event_add_number(&s_done, "id", command->id);
    event_add_text(&s_done, "cmd", command->name);
    event_add_flag(&s_done, "ok", outcome->error == NULL);
    if (outcome->error != NULL) {
        event_add_text(&s_done, "err", outcome->error);
    }
    if (outcome->code != ESP_OK) {
        event_add_number(&s_done, "code", outcome->code);
    }
    if (outcome->message[0] != '\0') {
        event_add_text(&s_done, "msg", outcome->message);
    }
    event_add_number(&s_done, "ms", (esp_timer_get_time() - started_us) / 1000);
    event_add_all(&s_done, &outcome->fields);
    if (command->has_id && s_last.known && s_last.id == command->id) {
        s_last.done = s_done;
        s_last.done_known = true;
    }
    if (finished != NULL) {
        memset(finished->line, 0, sizeof(finished->line));
        finished->in_use = false;
    }
    event_send(&s_done);
    unlock();
}

static void carry_out(job_t *job, bool is_slot)
{
    const int64_t started_us = esp_timer_get_time();
    memset(&job->outcome, 0, sizeof(job->outcome));
    event_start(&job->outcome.fields, NULL);
    job->entry->handler(&job->command, &job->outcome);
    /* Once the answer is out, the slot may hold another command. */
    const command_then_t then = job->outcome.error == NULL ? job->outcome.then : COMMAND_THEN_NOTHING;
    void (*const last_call)(void) = job->outcome.last_call;
    send_done(&job->command, &job->outcome, started_us, is_slot ? job : NULL);
    if (then == COMMAND_THEN_NOTHING) {
        return;
    }
    console_port_drain();
    if (then == COMMAND_THEN_CALL) {
        last_call();
    }
    ESP_LOGI(TAG, "restarting");
    console_port_drain();
    esp_restart();
}

static void job_task(void *unused)
{
    (void)unused;
    for (;;) {
        job_t *job = NULL;
        if (xQueueReceive(s_queue, &job, portMAX_DELAY) == pdTRUE) {
            carry_out(job, true);
        }
    }
}

esp_err_t commands_start(void)
{
    s_mutex = xSemaphoreCreateMutexStatic(&s_mutex_memory);
    s_queue =
        xQueueCreateStatic(JOB_COUNT, sizeof(s_queue_memory[0]), (uint8_t *)s_queue_memory, &s_queue_state);
    if (s_mutex == NULL || s_queue == NULL || uart_source_start() != ESP_OK) {
        return ESP_ERR_NO_MEM;
    }
    for (size_t i = 0; i < JOB_COUNT; i++) {
        if (xTaskCreateStatic(job_task, "job", sizeof(s_stacks[i]), NULL, JOB_PRIORITY, s_stacks[i],
                              &s_tasks[i]) == NULL) {
            return ESP_ERR_NO_MEM;
        }
    }
    return ESP_OK;
}

static job_t *claim_job(void)
{
    job_t *claimed = NULL;
    lock();
    for (size_t i = 0; i < JOB_COUNT && claimed == NULL; i++) {
        if (!s_jobs[i].in_use) {
            claimed = &s_jobs[i];
            claimed->in_use = true;
        }
    }
    unlock();
    return claimed;
}

/* Moves a parsed command, whose texts lie in `from`, into `to`. */
static void move_command(const job_t *from, job_t *to)
{
    memcpy(to->line, from->line, sizeof(to->line));
    to->command = from->command;
    to->entry = from->entry;
    to->command.name = to->line + (from->command.name - from->line);
    for (size_t i = 0; i < from->command.count; i++) {
        to->command.arguments[i].key = to->line + (from->command.arguments[i].key - from->line);
        to->command.arguments[i].value = to->line + (from->command.arguments[i].value - from->line);
    }
}

static void start_job(const job_t *parsed)
{
    job_t *job = claim_job();
    if (job == NULL) {
        send_ack(&parsed->command, "busy", "two commands are under way");
        return;
    }
    move_command(parsed, job);
    send_ack(&job->command, NULL, NULL);
    /* Never full: it has room for every job there is. */
    (void)xQueueSend(s_queue, &job, portMAX_DELAY);
}

/* Answers a repeated id as before. False when the id is new. */
static bool repeat_answer(const command_line_t *command)
{
    lock();
    const bool repeated = command->has_id && s_last.known && s_last.id == command->id;
    if (repeated) {
        event_send(&s_last.ack);
        if (s_last.done_known) {
            event_send(&s_last.done);
        }
    }
    unlock();
    return repeated;
}

/* Takes the line in `job`, which is the command loop's own. */
static void dispatch(job_t *job)
{
    const size_t length = strlen(job->line);
    const command_line_status_t status = command_line_parse(job->line, &job->command);
    if (status != COMMAND_LINE_EMPTY && strcmp(job->command.name, "data") == 0) {
        /* Not a command but part of one: its answer is the next question, or the command's end. */
        uart_source_take(&job->command, status == COMMAND_LINE_OK);
        return;
    }
    switch (status) {
    case COMMAND_LINE_EMPTY:
        return;
    case COMMAND_LINE_NOT_A_COMMAND:
        ESP_LOGW(TAG, "ignored a line of %u bytes that is no command", (unsigned)length);
        return;
    case COMMAND_LINE_BAD_CRC:
        send_ack(&job->command, "bad-crc", "the line was damaged on its way");
        return;
    case COMMAND_LINE_BAD_ARGUMENT:
        send_ack(&job->command, "bad-argument", "arguments are key=value, percent-encoded, each key once");
        return;
    case COMMAND_LINE_OK:
        break;
    }
    if (repeat_answer(&job->command)) {
        return;
    }
    job->entry = find_command(job->command.name);
    if (job->entry == NULL) {
        send_ack(&job->command, "unknown-command", "this build has no such command");
    } else if (job->entry->is_job) {
        start_job(job);
    } else {
        send_ack(&job->command, NULL, NULL);
        carry_out(job, false);
    }
}

void commands_dispatch(char *line)
{
    (void)snprintf(s_inline.line, sizeof(s_inline.line), "%s", line);
    dispatch(&s_inline);
    /* Also of a damaged or repeated line nothing is left: it may carry a password. */
    memset(s_inline.line, 0, sizeof(s_inline.line));
}
