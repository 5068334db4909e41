/** A TCP connection as ESP-IDF's tcp_transport offers it: time-outs in milliseconds, three ways to end. */
#pragma once

#include <stddef.h>

#include "esp_err.h"

#define TCP_TIMEOUT 0   /**< nothing came in time */
#define TCP_CLOSED (-1) /**< the other side closed the connection cleanly */
#define TCP_FAILED (-2) /**< the connection broke; errno says how */

/** Connects. @return socket, or -1 with the esp-tls error in `error`. */
int tcp_connect(const char *host, int port, int timeout_ms, esp_err_t *error);

/** Reads up to `size` bytes. @return number of bytes, or one of the three above. */
int tcp_read(int socket, char *buffer, size_t size, int timeout_ms);

/** Writes all bytes. @return 0, or TCP_FAILED. */
int tcp_write(int socket, const char *bytes, size_t size, int timeout_ms);
