/** Events of the UART protocol, device to host: `@evt {"n":12,"ev":"ack",…,"crc":"1a2b3c4d"}`, one line each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Longest event without its frame, in bytes. A field that does not fit is left out and `"cut":true` added.
 */
#define EVENT_TEXT_SIZE 1024

/** An event being put together: the JSON members after "n". */
typedef struct {
    char text[EVENT_TEXT_SIZE];
    size_t length;
    bool cut;
} event_t;

/** Makes `event` empty; `kind` (its "ev") may be NULL for a mere collection of fields. */
void event_start(event_t *event, const char *kind);

/** Adds a text; escapes what JSON demands, bytes beyond ASCII as \u00XX. */
void event_add_text(event_t *event, const char *key, const char *value);

/** Adds a whole number. */
void event_add_number(event_t *event, const char *key, int64_t value);

/** Adds true or false. */
void event_add_flag(event_t *event, const char *key, bool value);

/** Adds bytes as lower-case hexadecimal text. */
void event_add_hex(event_t *event, const char *key, const uint8_t *bytes, size_t size);

/** Adds all fields of another event that was started with NULL. */
void event_add_all(event_t *event, const event_t *fields);

/** Numbers, sums and prints the event: one write, one line. */
void event_send(const event_t *event);
