#include "http_response.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_response_start(http_response_t *response, const http_response_calls_t *calls, void *context)
{
    response->calls = *calls;
    response->context = context;
    response->state = HTTP_STATUS_LINE;
    response->status_code = 0;
    response->content_length = -1;
    response->chunked = false;
    response->left = 0;
    response->line_length = 0;
}

static bool parse_decimal(const char *text, int64_t *number)
{
    if (!isdigit((unsigned char)*text)) {
        return false;
    }
    int64_t value = 0;
    for (; isdigit((unsigned char)*text); text++) {
        if (value > (INT64_MAX - 9) / 10) {
            return false;
        }
        value = value * 10 + (*text - '0');
    }
    *number = value;
    return *text == '\0';
}

static void take_status_line(http_response_t *response)
{
    const char *line = response->line;
    const bool ok = strncmp(line, "HTTP/1.", 7) == 0 && isdigit((unsigned char)line[7]) && line[8] == ' ' &&
                    isdigit((unsigned char)line[9]) && isdigit((unsigned char)line[10]) &&
                    isdigit((unsigned char)line[11]) && (line[12] == ' ' || line[12] == '\0');
    if (!ok) {
        response->state = HTTP_BROKEN;
        return;
    }
    response->status_code = atoi(line + 9);
    response->state = HTTP_HEADERS;
}

static void end_headers(http_response_t *response)
{
    const bool empty = response->status_code / 100 == 1 || response->status_code == 204 ||
                       response->status_code == 304 || (!response->chunked && response->content_length == 0);
    response->state = empty                          ? HTTP_COMPLETE
                      : response->chunked            ? HTTP_CHUNK_SIZE
                      : response->content_length > 0 ? HTTP_BODY_LENGTH
                                                     : HTTP_BODY_TO_END;
    response->left = response->content_length > 0 ? (uint64_t)response->content_length : 0;
    if (response->calls.on_headers_complete != NULL) {
        response->calls.on_headers_complete(response->context);
    }
}

static void take_header(http_response_t *response)
{
    char *colon = strchr(response->line, ':');
    if (colon == NULL || colon == response->line) {
        response->state = HTTP_BROKEN;
        return;
    }
    *colon = '\0';
    char *value = colon + 1;
    while (*value == ' ' || *value == '\t') {
        value++;
    }
    for (size_t length = strlen(value); length > 0 && isspace((unsigned char)value[length - 1]); length--) {
        value[length - 1] = '\0';
    }
    if (strcasecmp(response->line, "Content-Length") == 0) {
        int64_t length = 0;
        const bool again = response->content_length >= 0;
        if (!parse_decimal(value, &length) || (again && length != response->content_length)) {
            response->state = HTTP_BROKEN;
            return;
        }
        response->content_length = length;
    } else if (strcasecmp(response->line, "Transfer-Encoding") == 0 && strcasecmp(value, "chunked") == 0) {
        response->chunked = true;
    }
    if (response->calls.on_header != NULL) {
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
    if ((*end != '\0' && *end != ';' && *end != ' ') || size > INT64_MAX) {
        response->state = HTTP_BROKEN;
        return;
    }
    response->left = size;
    response->state = size > 0 ? HTTP_CHUNK_DATA : HTTP_TRAILER;
}

/* Handles one line without its end. */
static void take_line(http_response_t *response)
{
    const bool empty = response->line[0] == '\0';
    switch (response->state) {
    case HTTP_STATUS_LINE:
        if (!empty) {
            take_status_line(response);
        }
        break;
    case HTTP_HEADERS:
        if (empty) {
            end_headers(response);
        } else {
            take_header(response);
        }
        break;
    case HTTP_CHUNK_SIZE:
        take_chunk_size(response);
        break;
    case HTTP_CHUNK_END:
        response->state = empty ? HTTP_CHUNK_SIZE : HTTP_BROKEN;
        break;
    case HTTP_TRAILER:
        if (empty) {
            response->state = HTTP_COMPLETE;
        }
        break;
    default:
        break;
    }
}

static void take_line_byte(http_response_t *response, char byte)
{
    if (byte != '\n') {
        if (response->line_length + 1 >= sizeof(response->line) || byte == '\0') {
            response->state = HTTP_BROKEN;
            return;
        }
        response->line[response->line_length++] = byte;
        return;
    }
    if (response->line_length > 0 && response->line[response->line_length - 1] == '\r') {
        response->line_length--;
    }
    response->line[response->line_length] = '\0';
    response->line_length = 0;
    take_line(response);
}

/* Hands out body bytes; returns how many were taken. */
static size_t take_body(http_response_t *response, const char *bytes, size_t size)
{
    const bool counted = response->state != HTTP_BODY_TO_END;
    const size_t taken = counted && response->left < size ? (size_t)response->left : size;
    if (response->calls.on_body != NULL) {
        response->calls.on_body(response->context, bytes, taken);
    }
    if (counted) {
        response->left -= taken;
        if (response->left == 0) {
            response->state = response->state == HTTP_CHUNK_DATA ? HTTP_CHUNK_END : HTTP_COMPLETE;
        }
    }
    return taken;
}

void http_response_feed(http_response_t *response, const char *bytes, size_t size)
{
    while (size > 0) {
        switch (response->state) {
        case HTTP_BODY_LENGTH:
        case HTTP_BODY_TO_END:
        case HTTP_CHUNK_DATA: {
            const size_t taken = take_body(response, bytes, size);
            bytes += taken;
            size -= taken;
            break;
        }
        case HTTP_COMPLETE:
        case HTTP_BROKEN:
            return;
        default:
            take_line_byte(response, *bytes);
            bytes++;
            size--;
            break;
        }
    }
}

void http_response_end(http_response_t *response)
{
    if (response->state == HTTP_BODY_TO_END) {
        response->state = HTTP_COMPLETE;
    }
}
