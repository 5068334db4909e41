#include "command_line.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "esp_rom_crc.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Replaces %XX in place; false for an incomplete escape or %00. */
static bool percent_decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        const int high = hex_digit(from[1]);
        const int low = high < 0 ? -1 : hex_digit(from[2]);
        if (low < 0 || (high == 0 && low == 0)) {
            return false;
        }
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return true;
}

static bool parse_number(const char *text, uint32_t *number)
{
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    const bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, hex ? 16 : 10);
    if (errno != 0 || *end != '\0' || value > UINT32_MAX) {
        return false;
    }
    *number = (uint32_t)value;
    return true;
}

/* Cuts ` crc=xxxxxxxx` off the end of the line and checks it. True when there is none or it is right. */
static bool take_crc(char *line)
{
    static const char KEY[] = " crc=";
    const size_t length = strlen(line);
    const size_t tail = strlen(KEY) + 8;
    if (length <= tail || strncmp(line + length - tail, KEY, strlen(KEY)) != 0) {
        /* A crc of another length is a damaged one. */
        return strstr(line, KEY) == NULL;
    }
    uint32_t sent = 0;
    for (size_t i = length - 8; i < length; i++) {
        const int digit = hex_digit(line[i]);
        if (digit < 0) {
            return false;
        }
        sent = sent * 16 + (uint32_t)digit;
    }
    line[length - tail] = '\0';
    return esp_rom_crc32_le(0, (const uint8_t *)line, (uint32_t)(length - tail)) == sent;
}

static bool is_name(const char *text)
{
    if (*text < 'a' || *text > 'z') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (!((*text >= 'a' && *text <= 'z') || (*text >= '0' && *text <= '9') || *text == '-')) {
            return false;
        }
    }
    return true;
}

/* Takes one `key=value`. */
static bool take_argument(char *token, command_line_t *command)
{
    char *equals = strchr(token, '=');
    if (equals == NULL || equals == token || command->count == COMMAND_MAX_ARGUMENTS) {
        return false;
    }
    *equals = '\0';
    char *value = equals + 1;
    if (!percent_decode(value)) {
        return false;
    }
    if (strcmp(token, "id") == 0) {
        command->has_id = parse_number(value, &command->id);
        return command->has_id;
    }
    if (command_line_get(command, token) != NULL) {
        return false;
    }
    command->arguments[command->count].key = token;
    command->arguments[command->count].value = value;
    command->count++;
    return true;
}

command_line_status_t command_line_parse(char *line, command_line_t *command)
{
    memset(command, 0, sizeof(*command));
    const bool crc_ok = take_crc(line);
    char *rest = line;
    command->name = strtok_r(line, " ", &rest);
    if (command->name == NULL) {
        return COMMAND_LINE_EMPTY;
    }
    if (!is_name(command->name)) {
        return COMMAND_LINE_NOT_A_COMMAND;
    }
    bool arguments_ok = true;
    for (char *token = strtok_r(NULL, " ", &rest); token != NULL; token = strtok_r(NULL, " ", &rest)) {
        arguments_ok = take_argument(token, command) && arguments_ok;
    }
    if (!crc_ok) {
        return COMMAND_LINE_BAD_CRC;
    }
    return arguments_ok ? COMMAND_LINE_OK : COMMAND_LINE_BAD_ARGUMENT;
}

const char *command_line_get(const command_line_t *command, const char *key)
{
    for (size_t i = 0; i < command->count; i++) {
        if (strcmp(command->arguments[i].key, key) == 0) {
            return command->arguments[i].value;
        }
    }
    return NULL;
}

bool command_line_flag(const command_line_t *command, const char *key)
{
    const char *value = command_line_get(command, key);
    return value != NULL && strcmp(value, "1") == 0;
}

bool command_line_number(const command_line_t *command, const char *key, uint32_t absent, uint32_t *number)
{
    *number = absent;
    const char *value = command_line_get(command, key);
    return value == NULL || parse_number(value, number);
}
