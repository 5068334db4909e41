#include "url.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Copies `length` characters; false when they do not fit or hold what no URL holds. */
static bool copy(char *to, size_t capacity, const char *from, size_t length)
{
    if (length >= capacity) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)from[i] <= 0x20 || (unsigned char)from[i] >= 0x7f) {
            return false;
        }
        to[i] = from[i];
    }
    to[length] = '\0';
    return true;
}

static bool parse_port(const char *text, size_t length, int *port)
{
    int value = 0;
    for (size_t i = 0; i < length; i++) {
        if (!isdigit((unsigned char)text[i]) || value > 65535) {
            return false;
        }
        value = value * 10 + (text[i] - '0');
    }
    *port = value;
    return length > 0 && value >= 1 && value <= 65535;
}

/* Host and port out of [user@]host[:port] or [user@][address]:port. */
static bool parse_authority(const char *text, size_t length, url_t *url)
{
    const char *end = text + length;
    for (const char *at = text; at < end; at++) {
        if (*at == '@') {
            text = at + 1;
        }
    }
    const char *host_end = text;
    const char *after;
    if (text < end && *text == '[') {
        text++;
        while (host_end < end && *host_end != ']') {
            host_end++;
        }
        if (host_end == end) {
            return false;
        }
        after = host_end + 1;
    } else {
        while (host_end < end && *host_end != ':') {
            host_end++;
        }
        after = host_end;
    }
    if (host_end == text || !copy(url->host, sizeof(url->host), text, (size_t)(host_end - text))) {
        return false;
    }
    return after == end || (*after == ':' && parse_port(after + 1, (size_t)(end - after - 1), &url->port));
}

bool url_parse(const char *text, url_t *url)
{
    memset(url, 0, sizeof(*url));
    const char *rest = text;
    if (text[0] != '/') {
        const char *colon = strstr(text, "://");
        if (colon == NULL || colon == text ||
            !copy(url->scheme, sizeof(url->scheme), text, (size_t)(colon - text))) {
            return false;
        }
        const char *authority = colon + 3;
        const size_t length = strcspn(authority, "/?#");
        if (!parse_authority(authority, length, url)) {
            return false;
        }
        rest = authority + length;
    }
    const size_t length = strcspn(rest, "#");
    const size_t slash = *rest == '/' ? 0 : 1;
    url->path[0] = '/';
    return copy(url->path + slash, sizeof(url->path) - slash, rest, length);
}
