#include "memory_tcp.h"

#include <errno.h>
#include <string.h>

#include "rule.h"
#include "tcp.h"

#define SOCKET 1000000 /* none that close() would close */

static input_t s_script;
static size_t s_piece; /* bytes of the answer that are left to be read */
static bool s_is_over; /* the connection has ended */

void tcp_serve(const uint8_t *data, size_t size)
{
    s_script = (input_t){data, size};
    s_piece = 0;
    s_is_over = true;
}

/* Goes to the end of a connection that the client has given up. */
static void skip(void)
{
    while (!s_is_over && s_script.left > 0) {
        s_script.at += s_piece;
        s_script.left -= s_piece;
        s_piece = 0;
        const unsigned step = take_u8(&s_script) % 8;
        if (step > 3) {
            s_piece = take_u16(&s_script);
            s_piece = s_piece < s_script.left ? s_piece : s_script.left;
        } else if (step != 2) {
            s_is_over = true;
        }
    }
    s_piece = 0;
}

int tcp_connect(const char *host, int port, int timeout_ms, esp_err_t *error)
{
    RULE(host[0] != '\0' && port > 0 && port < 65536 && timeout_ms > 0, "connects to %s:%d", host, port);
    skip();
    if (s_script.left == 0 || *s_script.at % 8 == 3) {
        (void)take_u8(&s_script);
        *error = 0x8004; /* ESP_ERR_ESP_TLS_FAILED_CONNECT_TO_HOST */
        return -1;
    }
    s_is_over = false;
    return SOCKET;
}

int tcp_read(int socket, char *buffer, size_t size, int timeout_ms)
{
    (void)timeout_ms;
    RULE(socket == SOCKET && size > 0, "reads %zu bytes from %d", size, socket);
    while (s_piece == 0 && !s_is_over) {
        const unsigned step = s_script.left > 0 ? take_u8(&s_script) % 8 : 0;
        if (step == 2) {
            return TCP_TIMEOUT;
        }
        if (step <= 3) {
            s_is_over = true;
            errno = step == 0 ? 0 : ECONNRESET;
            return step == 0 ? TCP_CLOSED : TCP_FAILED;
        }
        s_piece = take_u16(&s_script);
        s_piece = s_piece < s_script.left ? s_piece : s_script.left;
    }
    if (s_piece == 0) {
        return TCP_CLOSED;
    }
    const size_t got = s_piece < size ? s_piece : size;
    memcpy(buffer, s_script.at, got);
    s_script.at += got;
    s_script.left -= got;
    s_piece -= got;
    return (int)got;
}

int tcp_write(int socket, const char *bytes, size_t size, int timeout_ms)
{
    (void)timeout_ms;
    RULE(socket == SOCKET && size > 0, "writes %zu bytes to %d", size, socket);
    RULE(memchr(bytes, '\0', size) == NULL, "a request with a NUL");
    return 0;
}
