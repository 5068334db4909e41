/** Taking URLs apart, as far as the HTTP client needs it. */
#pragma once

#include <stdbool.h>

#define URL_HOST_SIZE 256
#define URL_PATH_SIZE 1024

typedef struct {
    char scheme[8]; /**< empty when the text is only a path */
    char host[URL_HOST_SIZE];
    int port;                 /**< 0 when the text has none */
    char path[URL_PATH_SIZE]; /**< with the query; at least "/" */
} url_t;

/** Parses `text`: scheme://host[:port][/path][?query], or /path. False for anything else. */
bool url_parse(const char *text, url_t *url);
