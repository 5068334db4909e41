#include "events.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "console_port.h"
#include "esp_rom_crc.h"
#include "freertos/FreeRTOS.h"
#include "freertos/semphr.h"

/* `@evt {"n":4294967295,` before and `,"crc":"00000000"}` and LF after the text. */
#define FRAME_SIZE 64
#define CUT_FIELD ",\"cut\":true"

/* Appends `size` bytes, always leaving room for the cut mark; nothing when they do not fit. */
static bool append(event_t *event, const char *bytes, size_t size)
{
    if (event->cut || event->length + size + sizeof(CUT_FIELD) > sizeof(event->text)) {
        return false;
    }
    memcpy(event->text + event->length, bytes, size);
    event->length += size;
    event->text[event->length] = '\0';
    return true;
}

/* Takes back what was appended since `length` and marks the event as cut. */
static void cut_at(event_t *event, size_t length)
{
    if (event->cut) {
        return;
    }
    const char *field = length > 0 ? CUT_FIELD : &CUT_FIELD[1];
    event->length = length + strlen(field);
    memcpy(event->text + length, field, strlen(field) + 1);
    event->cut = true;
}

/* Appends `,"key":` (without the comma at the beginning). */
static bool append_key(event_t *event, const char *key)
{
    return (event->length == 0 || append(event, ",", 1)) && append(event, "\"", 1) &&
           append(event, key, strlen(key)) && append(event, "\":", 2);
}

static bool append_escaped(event_t *event, unsigned char byte)
{
    char escape[8];
    if (byte == '"' || byte == '\\') {
        (void)snprintf(escape, sizeof(escape), "\\%c", byte);
    } else if (byte < 0x20 || byte > 0x7e) {
        (void)snprintf(escape, sizeof(escape), "\\u%04x", byte);
    } else {
        (void)snprintf(escape, sizeof(escape), "%c", byte);
    }
    return append(event, escape, strlen(escape));
}

void event_start(event_t *event, const char *kind)
{
    event->text[0] = '\0';
    event->length = 0;
    event->cut = false;
    if (kind != NULL) {
        event_add_text(event, "ev", kind);
    }
}

void event_add_text(event_t *event, const char *key, const char *value)
{
    const size_t before = event->length;
    bool fits = append_key(event, key) && append(event, "\"", 1);
    for (const char *at = value; fits && *at != '\0'; at++) {
        fits = append_escaped(event, (unsigned char)*at);
    }
    if (!fits || !append(event, "\"", 1)) {
        cut_at(event, before);
    }
}

void event_add_number(event_t *event, const char *key, int64_t value)
{
    const size_t before = event->length;
    char digits[24];
    (void)snprintf(digits, sizeof(digits), "%" PRId64, value);
    if (!append_key(event, key) || !append(event, digits, strlen(digits))) {
        cut_at(event, before);
    }
}

void event_add_flag(event_t *event, const char *key, bool value)
{
    const size_t before = event->length;
    const char *word = value ? "true" : "false";
    if (!append_key(event, key) || !append(event, word, strlen(word))) {
        cut_at(event, before);
    }
}

void event_add_hex(event_t *event, const char *key, const uint8_t *bytes, size_t size)
{
    const size_t before = event->length;
    bool fits = append_key(event, key) && append(event, "\"", 1);
    for (size_t i = 0; fits && i < size; i++) {
        char digits[3];
        (void)snprintf(digits, sizeof(digits), "%02x", bytes[i]);
        fits = append(event, digits, 2);
    }
    if (!fits || !append(event, "\"", 1)) {
        cut_at(event, before);
    }
}

void event_add_all(event_t *event, const event_t *fields)
{
    const size_t before = event->length;
    if (fields->length == 0) {
        return;
    }
    if ((before > 0 && !append(event, ",", 1)) || !append(event, fields->text, fields->length)) {
        cut_at(event, before);
    }
}

void event_send(const event_t *event)
{
    static StaticSemaphore_t s_mutex_memory;
    static SemaphoreHandle_t s_mutex;
    static uint32_t s_number;
    static char s_line[EVENT_TEXT_SIZE + FRAME_SIZE];

    /* The first event is sent by app_main, before there is a command. */
    if (s_mutex == NULL) {
        s_mutex = xSemaphoreCreateMutexStatic(&s_mutex_memory);
    }
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    int length = snprintf(s_line, sizeof(s_line), "@evt {\"n\":%" PRIu32 ",%s", s_number, event->text);
    const size_t start = strlen("@evt ");
    const uint32_t crc =
        esp_rom_crc32_le(0, (const uint8_t *)s_line + start, (uint32_t)((size_t)length - start));
    s_number++;
    length +=
        snprintf(s_line + length, sizeof(s_line) - (size_t)length, ",\"crc\":\"%08" PRIx32 "\"}\n", crc);
    console_port_write(s_line, (size_t)length);
    (void)xSemaphoreGive(s_mutex);
}
