/** One line of the UART protocol, host to device: `<command> id=<decimal> key=value … [crc=<8 hex>]`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMMAND_MAX_ARGUMENTS 12

/** What became of a line. */
typedef enum {
    COMMAND_LINE_OK,
    COMMAND_LINE_EMPTY,
    COMMAND_LINE_NOT_A_COMMAND, /**< bytes that no command begins with: noise */
    COMMAND_LINE_BAD_CRC,       /**< name and id are filled in as far as they can be trusted */
    COMMAND_LINE_BAD_ARGUMENT,  /**< no key=value, too many of them, a wrong escape, a wrong id */
} command_line_status_t;

/** A parsed line. The texts point into the line that was parsed. */
typedef struct {
    const char *name;
    uint32_t id; /**< 0 when the line has none */
    bool has_id;
    size_t count;
    struct {
        const char *key;
        const char *value;
    } arguments[COMMAND_MAX_ARGUMENTS];
} command_line_t;

/** Parses `line` in place (NUL terminated, without line end). */
command_line_status_t command_line_parse(char *line, command_line_t *command);

/** Value of an argument; NULL when it is absent. */
const char *command_line_get(const command_line_t *command, const char *key);

/** Whether an argument is "1". */
bool command_line_flag(const command_line_t *command, const char *key);

/** An argument as a number (decimal or 0x…). @return false when it is there and not a number; absent gives
 * `absent`. */
bool command_line_number(const command_line_t *command, const char *key, uint32_t absent, uint32_t *number);
