/** Parser for HTTP/1.x answers, fed in pieces of any size. Knows nothing of sockets. What it accepts is what
 * ESP-IDF's http_parser (2.7.0, strict) accepts: a second answer behind the first one on the same connection,
 * a Content-Length of up to 64 bits, no second Content-Length, headers of up to 80 KiB. It is stricter than
 * that only in continued header lines, which it refuses. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Longest head, status line included; also of trailers. */
#define HTTP_HEAD_SIZE (80 * 1024)

/** What the parser tells its user. Any may be NULL. */
typedef struct {
    void (*on_begin)(void *context);
    void (*on_header)(void *context, char *key, char *value);
    void (*on_headers_complete)(void *context);
    void (*on_body)(void *context, const char *bytes, size_t size);
    void (*on_complete)(void *context);
} http_response_calls_t;

typedef enum {
    HTTP_START,       /**< before the first character of an answer */
    HTTP_STATUS_LINE, /**< in it */
    HTTP_HEADERS,
    HTTP_BODY_LENGTH,
    HTTP_BODY_TO_END,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_DEAD,   /**< after an answer that was the connection's last: nothing but line ends may follow */
    HTTP_BROKEN, /**< not HTTP: everything after is ignored */
} http_response_state_t;

/** One answer, or several one after the other. */
typedef struct {
    http_response_calls_t calls;
    void *context;
    http_response_state_t state;
    int major;
    int minor;
    int status_code;
    bool has_length; /**< there was a Content-Length */
    uint64_t length; /**< its value; UINT64_MAX when there was none, or an empty one */
    bool is_chunked;
    bool closes;     /**< Connection: close */
    bool keeps_open; /**< Connection: keep-alive */
    uint64_t left;   /**< of the body or of the chunk */
    size_t head_size;
    size_t line_length;
    char line[HTTP_HEAD_SIZE + 1];
} http_response_t;

/** Makes `response` ready for the answers of a connection. */
void http_response_start(http_response_t *response, const http_response_calls_t *calls, void *context);

/** Takes bytes from the connection. */
void http_response_feed(http_response_t *response, const char *bytes, size_t size);

/** Takes the end of the connection: completes an answer whose length is given by it. */
void http_response_end(http_response_t *response);
