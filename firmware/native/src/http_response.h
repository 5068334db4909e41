/** Parser for HTTP/1.1 answers, fed in pieces of any size. Knows nothing of sockets. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_LINE_SIZE 4096

/** What the parser tells its user. Any may be NULL. */
typedef struct {
    void (*on_header)(void *context, char *key, char *value);
    void (*on_headers_complete)(void *context);
    void (*on_body)(void *context, const char *bytes, size_t size);
} http_response_calls_t;

typedef enum {
    HTTP_STATUS_LINE,
    HTTP_HEADERS,
    HTTP_BODY_LENGTH,
    HTTP_BODY_TO_END,
    HTTP_CHUNK_SIZE,
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TRAILER,
    HTTP_COMPLETE,
    HTTP_BROKEN, /**< not HTTP: everything after is ignored */
} http_response_state_t;

/** One answer. */
typedef struct {
    http_response_calls_t calls;
    void *context;
    http_response_state_t state;
    int status_code;
    int64_t content_length; /**< -1 when the answer does not say */
    bool chunked;
    uint64_t left; /**< of the body or of the chunk */
    size_t line_length;
    char line[HTTP_LINE_SIZE];
} http_response_t;

/** Makes `response` ready for a new answer. */
void http_response_start(http_response_t *response, const http_response_calls_t *calls, void *context);

/** Takes bytes from the connection. */
void http_response_feed(http_response_t *response, const char *bytes, size_t size);

/** Takes the end of the connection: completes an answer whose length is given by it. */
void http_response_end(http_response_t *response);
