#include "http_response.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void start_message(http_response_t *response)
{
    response->state = HTTP_START;
    response->length = UINT64_MAX;
    response->has_length = false;
    response->is_chunked = false;
    response->closes = false;
    response->keeps_open = false;
    response->left = 0;
    response->head_size = 0;
    response->line_length = 0;
}

void http_response_start(http_response_t *response, const http_response_calls_t *calls, void *context)
{
    response->calls = *calls;
    response->context = context;
    response->status_code = 0;
    start_message(response);
}

/* Answers of these kinds have no body, whatever their headers say of its length. */
static bool is_bodiless(int status)
{
    return status / 100 == 1 || status == 204 || status == 304;
}

/* Whether another answer may come on the same connection. */
static bool keeps_alive(const http_response_t *response, bool ends_with_connection)
{
    const bool is_1_1 = response->major > 0 && response->minor > 0;
    return !ends_with_connection && (is_1_1 ? !response->closes : response->keeps_open);
}

static void end_message(http_response_t *response, bool ends_with_connection)
{
    const bool goes_on = keeps_alive(response, ends_with_connection);
    start_message(response);
    response->state = goes_on ? HTTP_START : HTTP_DEAD;
    if (response->calls.on_complete != NULL) {
        response->calls.on_complete(response->context);
    }
}

/* One number of the status line; NULL when it is none or too large. */
static const char *take_number(const char *text, int most, int *number)
{
    if (!isdigit((unsigned char)*text)) {
        return NULL;
    }
    *number = 0;
    for (; isdigit((unsigned char)*text); text++) {
        *number = *number * 10 + (*text - '0');
        if (*number > most) {
            return NULL;
        }
    }
    return text;
}

static bool parse_status_line(http_response_t *response)
{
    const char *at = response->line;
    if (strncmp(at, "HTTP/", 5) != 0) {
        return false;
    }
    at = take_number(at + 5, 999, &response->major);
    if (at == NULL || *at != '.') {
        return false;
    }
    at = take_number(at + 1, 999, &response->minor);
    if (at == NULL || *at != ' ') {
        return false;
    }
    at = take_number(at + strspn(at, " "), 999, &response->status_code);
    return at != NULL && (*at == ' ' || *at == '\0');
}

static void end_headers(http_response_t *response)
{
    if (response->is_chunked && response->has_length) {
        response->state = HTTP_BROKEN;
        return;
    }
    response->head_size = 0;
    if (response->calls.on_headers_complete != NULL) {
        response->calls.on_headers_complete(response->context);
    }
    if (response->is_chunked) {
        response->state = HTTP_CHUNK_SIZE;
    } else if (response->length == 0 ||
               (response->length == UINT64_MAX && is_bodiless(response->status_code))) {
        end_message(response, false);
    } else if (response->length == UINT64_MAX) {
        response->state = HTTP_BODY_TO_END;
    } else {
        response->state = HTTP_BODY_LENGTH;
        response->left = response->length;
    }
}

/* Digits, between which spaces are overlooked. */
static bool parse_length(const char *text, uint64_t *length)
{
    uint64_t value = 0;
    if (!isdigit((unsigned char)*text)) {
        return *text == '\0';
    }
    for (; *text != '\0'; text++) {
        if (*text == ' ') {
            continue;
        }
        if (!isdigit((unsigned char)*text) || value > (UINT64_MAX - 10) / 10) {
            return false;
        }
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *length = value;
    return true;
}

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!isalnum((unsigned char)text[i]) && strchr("!#$%&'*+-.^_`|~", text[i]) == NULL) {
            return false;
        }
    }
    return length > 0;
}

/* Words of a Connection header, with commas between them. */
static void take_connection(http_response_t *response, const char *value)
{
    while (*value != '\0') {
        value += strspn(value, " \t,");
        const size_t length = strcspn(value, " ,");
        response->closes = response->closes || (length == 5 && strncasecmp(value, "close", 5) == 0);
        response->keeps_open =
            response->keeps_open || (length == 10 && strncasecmp(value, "keep-alive", 10) == 0);
        value += length;
    }
}

/* What the headers say of the message's end; those of a trailer count no more, but must not repeat the
 * length.
 */
static void take_framing(http_response_t *response, const char *key, const char *value)
{
    if (strcasecmp(key, "Content-Length") == 0) {
        if (response->has_length || !parse_length(value, &response->length)) {
            response->state = HTTP_BROKEN;
        }
        response->has_length = true;
    } else if (strcasecmp(key, "Transfer-Encoding") == 0 && strcasecmp(value, "chunked") == 0) {
        response->is_chunked = true;
    } else if (strcasecmp(key, "Connection") == 0) {
        take_connection(response, value);
    }
}

static void take_header(http_response_t *response)
{
    char *colon = strchr(response->line, ':');
    if (colon == NULL || !is_name(response->line, (size_t)(colon - response->line))) {
        response->state = HTTP_BROKEN;
        return;
    }
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    for (size_t length = strlen(value); length > 0 && isspace((unsigned char)value[length - 1]); length--) {
        value[length - 1] = '\0';
    }
    take_framing(response, response->line, value);
    if (response->state != HTTP_BROKEN && response->calls.on_header != NULL) {
        response->calls.on_header(response->context, response->line, value);
    }
}

static void take_chunk_size(http_response_t *response)
{
    char *end = NULL;
    if (!isxdigit((unsigned char)response->line[0])) {
        response->state = HTTP_BROKEN;
        return;
    }
    const unsigned long long size = strtoull(response->line, &end, 16);
    const bool has_prefix = tolower((unsigned char)response->line[1]) == 'x';
    if ((*end != '\0' && *end != ';' && *end != ' ') || has_prefix || size > INT64_MAX) {
        response->state = HTTP_BROKEN;
        return;
    }
    response->left = size;
    response->head_size = 0;
    response->state = size > 0 ? HTTP_CHUNK_DATA : HTTP_TRAILER;
}

/* Handles one line without its end. */
static void take_line(http_response_t *response)
{
    const bool is_empty = response->line[0] == '\0';
    switch (response->state) {
    case HTTP_STATUS_LINE:
        response->state = parse_status_line(response) ? HTTP_HEADERS : HTTP_BROKEN;
        break;
    case HTTP_HEADERS:
        if (is_empty) {
            end_headers(response);
        } else {
            take_header(response);
        }
        break;
    case HTTP_CHUNK_SIZE:
        take_chunk_size(response);
        break;
    case HTTP_CHUNK_END:
        response->state = is_empty ? HTTP_CHUNK_SIZE : HTTP_BROKEN;
        break;
    case HTTP_TRAILER:
        if (is_empty) {
            end_message(response, false);
        } else {
            take_header(response);
        }
        break;
    default:
        break;
    }
}

static void take_line_byte(http_response_t *response, char byte)
{
    response->head_size++;
    const bool after_cr = response->line_length > 0 && response->line[response->line_length - 1] == '\r';
    if (response->head_size > HTTP_HEAD_SIZE || byte == '\0' || (after_cr && byte != '\n')) {
        response->state = HTTP_BROKEN;
        return;
    }
    if (byte != '\n') {
        response->line[response->line_length++] = byte;
        return;
    }
    if (!after_cr && (response->state == HTTP_CHUNK_SIZE || response->state == HTTP_CHUNK_END)) {
        response->state = HTTP_BROKEN; /* only headers may end in LF alone */
        return;
    }
    if (after_cr) {
        response->line_length--;
    }
    response->line[response->line_length] = '\0';
    response->line_length = 0;
    take_line(response);
}

/* The first character of an answer, or a line end before it; either begins it. */
static void take_first_byte(http_response_t *response, char byte)
{
    const bool is_line_end = byte == '\r' || byte == '\n';
    if (byte != 'H' && !is_line_end) {
        response->state = HTTP_BROKEN;
        return;
    }
    if (!is_line_end) {
        response->state = HTTP_STATUS_LINE;
        take_line_byte(response, byte);
    }
    if (response->calls.on_begin != NULL) {
        response->calls.on_begin(response->context);
    }
}

/* Hands out body bytes; returns how many were taken. */
static size_t take_body(http_response_t *response, const char *bytes, size_t size)
{
    const bool is_counted = response->state != HTTP_BODY_TO_END;
    const size_t taken = is_counted && response->left < size ? (size_t)response->left : size;
    if (response->calls.on_body != NULL) {
        response->calls.on_body(response->context, bytes, taken);
    }
    if (is_counted) {
        response->left -= taken;
        if (response->left == 0 && response->state == HTTP_CHUNK_DATA) {
            response->head_size = 0;
            response->state = HTTP_CHUNK_END;
        } else if (response->left == 0) {
            end_message(response, false);
        }
    }
    return taken;
}

void http_response_feed(http_response_t *response, const char *bytes, size_t size)
{
    while (size > 0) {
        size_t taken = 1;
        switch (response->state) {
        case HTTP_BODY_LENGTH:
        case HTTP_BODY_TO_END:
        case HTTP_CHUNK_DATA:
            taken = take_body(response, bytes, size);
            break;
        case HTTP_START:
            take_first_byte(response, *bytes);
            break;
        case HTTP_DEAD:
            if (*bytes != '\r' && *bytes != '\n') {
                response->state = HTTP_BROKEN;
            }
            break;
        case HTTP_BROKEN:
            return;
        default:
            take_line_byte(response, *bytes);
            break;
        }
        bytes += taken;
        size -= taken;
    }
}

void http_response_end(http_response_t *response)
{
    if (response->state == HTTP_BODY_TO_END) {
        end_message(response, true);
    } else if (response->state != HTTP_DEAD && response->state != HTTP_START) {
        response->state = HTTP_BROKEN;
    }
}
