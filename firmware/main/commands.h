/** The commands of the UART protocol: table, acknowledgements, jobs, repetition of an answer. */
#pragma once

#include "command_line.h"
#include "events.h"
#include "raw_ota.h"
#include "sdkconfig.h"

/** What is left to do when a command's `done` is out. */
typedef enum {
    COMMAND_THEN_NOTHING,
    COMMAND_THEN_RESTART,
    COMMAND_THEN_CALL,
} command_then_t;

/** What a command came to. */
typedef struct {
    const char *error; /**< NULL on success, else the name of the error */
    esp_err_t code;    /**< ESP-IDF's own error; ESP_OK: none */
    char message[128]; /**< for a person; empty: none */
    event_t fields;    /**< results, started with NULL */
    command_then_t then;
    void (*last_call)(void); /**< for COMMAND_THEN_CALL; the device restarts if it comes back */
} command_outcome_t;

/** Carries out a command. */
typedef void (*command_handler_t)(const command_line_t *command, command_outcome_t *outcome);

/**
 * Makes the tasks that long commands run in. To be called once, before the first line.
 * @return ESP_OK; ESP_ERR_NO_MEM: the firmware is of no use, since no update could ever run.
 */
esp_err_t commands_start(void);

/** Takes one line (NUL terminated, changed by parsing), acknowledges and carries it out. */
void commands_dispatch(char *line);

/** Ends a command with an error. `error` must be a constant. */
void command_fail(command_outcome_t *outcome, const char *error, esp_err_t code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/** Ends a command with the outcome of an ESP-IDF call; ESP_OK leaves it successful. */
void command_end_esp(command_outcome_t *outcome, esp_err_t code, const char *what);

/* Commands of other files. */
void command_ota(const command_line_t *command, command_outcome_t *outcome);
void command_ota_uart(const command_line_t *command, command_outcome_t *outcome);
void command_ota_stock(const command_line_t *command, command_outcome_t *outcome);
void command_confirm(const command_line_t *command, command_outcome_t *outcome);
void command_repair(const command_line_t *command, command_outcome_t *outcome);
void command_rollback(const command_line_t *command, command_outcome_t *outcome);
void command_hash(const command_line_t *command, command_outcome_t *outcome);
void command_probe(const command_line_t *command, command_outcome_t *outcome);
#if CONFIG_RAW_OTA_TEST_HOOKS
void command_crash(const command_line_t *command, command_outcome_t *outcome);
void command_otadata_raw(const command_line_t *command, command_outcome_t *outcome);
void command_cut_at(const command_line_t *command, command_outcome_t *outcome);
void command_flash_ops(const command_line_t *command, command_outcome_t *outcome);
#endif
