/* What comes in at the UART: lines, commands, updates in base64. All of the companion's console runs, its
 * tasks taking turns (cooperative_tasks.h).
 *
 * Input: 8 bytes that decide what board it is, then bytes of the UART; 0xFE ends what one read gives. */
#include <setjmp.h>
#include <string.h>

#include "command_line.h"
#include "commands.h"
#include "console.h"
#include "console_port.h"
#include "cooperative_tasks.h"
#include "esp_rom_crc.h"
#include "fuzz_target.h"
#include "memory_tcp.h"
#include "rule.h"
#include "update_rules.h"

#define MAX_DEPTH 4

static input_t s_uart;
static bool s_restarted;
static unsigned s_acks;
static uint32_t s_next_event;
/* Where the console loops that run, one inside the other, come out when there is nothing to read for them. */
static jmp_buf s_outs[MAX_DEPTH];
static volatile int s_depth;
static volatile bool s_brought[MAX_DEPTH + 1]; /* such a loop has had something to read */

/* The events: one flat JSON object each, with a number that counts and a CRC. */

static const char *skip_text(const char *at)
{
    RULE(*at == '"', "no text in an event: %s", at);
    for (at++; *at != '"'; at++) {
        RULE(*at >= 0x20 && *at <= 0x7e, "byte %02x in an event", (unsigned char)*at);
        if (*at == '\\') {
            at++;
            RULE(strchr("\"\\u", *at) != NULL && *at != '\0', "an escape that JSON has not: %s", at);
        }
    }
    return at + 1;
}

static const char *skip_value(const char *at)
{
    if (*at == '"') {
        return skip_text(at);
    }
    const size_t length = strcspn(at, ",}");
    const bool number = strspn(at, "-0123456789") == length && length > 0;
    const bool word = strncmp(at, "true", length) == 0 || strncmp(at, "false", length) == 0;
    RULE(number || word, "no value in an event: %s", at);
    return at + length;
}

static void judge_event(const char *text, size_t size)
{
    static char s_line[2048];
    RULE(size < sizeof(s_line) && memchr(text, '\0', size) == NULL, "an event of %zu bytes", size);
    memcpy(s_line, text, size);
    s_line[size] = '\0';
    unsigned number = 0;
    RULE(sscanf(s_line, "@evt {\"n\":%u,", &number) == 1, "no event: %s", s_line);
    RULE(s_next_event == 0 || number == s_next_event, "event %u, not %u", number, s_next_event);
    s_next_event = number + 1;
    const char *at = s_line + strlen("@evt {");
    const char *last = at;
    for (;; at++) {
        last = at;
        at = skip_text(at);
        RULE(*at == ':', "no colon: %s", at);
        at = skip_value(at + 1);
        if (*at != ',') {
            break;
        }
    }
    RULE(strcmp(at, "}\n") == 0, "an event does not end: %s", at);
    unsigned crc = 0;
    RULE(sscanf(last, "\"crc\":\"%8x\"", &crc) == 1, "no CRC: %s", last);
    const char *start = s_line + strlen("@evt ");
    RULE(crc == esp_rom_crc32_le(0, (const uint8_t *)start, (uint32_t)(last - 1 - start)), "a wrong CRC: %s",
         s_line);
    s_acks += strstr(s_line, "\"ev\":\"ack\"") != NULL;
}

void console_port_write(const char *text, size_t size)
{
    judge_event(text, size);
}

esp_err_t console_port_start(void)
{
    return ESP_OK;
}

void console_port_drain(void)
{
}

/* Leaves the innermost console loop. */
static void leave(void)
{
    longjmp(s_outs[s_depth - 1], 1);
}

/* The console loop asks for bytes: then whoever has something to do has done it. Of a loop inside a waiting
 * task this is the end, once it has brought a line. */
size_t console_port_read(char *buffer, size_t capacity)
{
    tasks_run();
    if (s_restarted || s_uart.left == 0 || (s_depth > 1 && s_brought[s_depth])) {
        leave();
    }
    size_t count = 0;
    while (count < capacity && s_uart.left > 0) {
        const uint8_t byte = take_u8(&s_uart);
        if (byte == 0xFE) {
            break;
        }
        buffer[count++] = (char)byte;
        if (byte == '\n') {
            break;
        }
    }
    s_brought[s_depth] = true;
    return count;
}

static void listen(void)
{
    RULE(s_depth < MAX_DEPTH, "console loops without end");
    s_depth++;
    s_brought[s_depth] = false;
    if (setjmp(s_outs[s_depth - 1]) == 0) {
        console_run();
    }
    s_depth--;
}

/* A task waits for its queue: the console goes on meanwhile, as far as there is input. */
static bool bring(void)
{
    if (s_restarted || s_uart.left == 0 || s_depth == MAX_DEPTH) {
        return false;
    }
    listen();
    return true;
}

/* Nothing comes after a restart: what waits runs into its time-outs, and the next input finds no trace. */
static void restart(void)
{
    s_restarted = true;
    (void)task_abandon();
    leave();
}

/* `crash` ends the program on purpose. */
void __wrap_command_crash(const command_line_t *command, command_outcome_t *outcome);
void __wrap_command_crash(const command_line_t *command, command_outcome_t *outcome)
{
    (void)command;
    (void)outcome;
}

/* Whatever a line holds, if it is a command then it is acknowledged, once (a repeated one: as often as it
 * comes). */
void __real_commands_dispatch(char *line);
void __wrap_commands_dispatch(char *line);
void __wrap_commands_dispatch(char *line)
{
    static char s_copy[CONFIG_COMPANION_LINE_SIZE];
    command_line_t parsed;
    (void)snprintf(s_copy, sizeof(s_copy), "%s", line);
    const command_line_status_t status = command_line_parse(s_copy, &parsed);
    const bool is_data = status != COMMAND_LINE_EMPTY && strcmp(parsed.name, "data") == 0;
    const bool is_command = status != COMMAND_LINE_EMPTY && status != COMMAND_LINE_NOT_A_COMMAND && !is_data;
    const unsigned before = s_acks;
    __real_commands_dispatch(line);
    RULE(s_acks == before + is_command, "%u acknowledgements of: %s", s_acks - before, line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const chip_rules_t RULES = {.unsigned_changes = true, .slot_by_cipher = true, .raw_otadata = true};
    static bool s_started;
    input_t input = {data, size};
    const chip_facts_t facts = {
        .otadata_kinds = take_u8(&input),
        .otadata_sequences = take_u8(&input),
        .otadata_states = take_u8(&input),
        .old_slot = take_u8(&input),
        .signature_answer = take_u8(&input),
        .failing_op = take_u8(&input),
        .failing_after = take_u8(&input),
        .failing_code = take_u8(&input),
    };
    chip_reset(&facts, &RULES);
    tcp_serve(NULL, 0);
    chip_on_restart = restart;
    tasks_on_wait = bring;
    if (!s_started) {
        console_start();
        RULE(commands_start() == ESP_OK, "the tasks do not start");
        s_started = true;
    }
    /* A command before all others: of what the input before has left, only its repetition could be seen. */
    char first[] = "net id=4294967295";
    char second[] = "net id=4294967294";
    s_restarted = false;
    s_uart = (input_t){NULL, 0};
    commands_dispatch(first);
    commands_dispatch(second);
    s_uart = input;
    listen();
    /* What the input has begun of a line, or a restart has left of one, is dropped: a line with a NUL is. */
    static const uint8_t END[] = {'\0', '\n'};
    s_restarted = false;
    s_uart = (input_t){END, sizeof(END)};
    listen();
    RULE(tasks_are_idle(), "a task is in the middle of something");
    nothing_is_held();
    return 0;
}
