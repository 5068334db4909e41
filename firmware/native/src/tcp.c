#include "tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "esp_log.h"

/* Codes of esp_tls_errors.h that a person meets in the log. */
#define ESP_ERR_ESP_TLS_CANNOT_RESOLVE_HOSTNAME 0x8001
#define ESP_ERR_ESP_TLS_FAILED_CONNECT_TO_HOST 0x8004
#define ESP_ERR_ESP_TLS_CONNECTION_TIMEOUT 0x8006

/* Waits for `events`; 1 ready, 0 time-out, -1 error. */
static int wait_for(int socket, short events, int timeout_ms)
{
    struct pollfd descriptor = {.fd = socket, .events = events};
    int ready;
    do {
        ready = poll(&descriptor, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready;
}

static int connect_to(const struct addrinfo *address, int timeout_ms, esp_err_t *error)
{
    const int socket_fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    if (socket_fd < 0) {
        *error = ESP_ERR_ESP_TLS_FAILED_CONNECT_TO_HOST;
        return -1;
    }
    (void)fcntl(socket_fd, F_SETFD, FD_CLOEXEC);
    (void)fcntl(socket_fd, F_SETFL, fcntl(socket_fd, F_GETFL) | O_NONBLOCK);
    int problem = 0;
    if (connect(socket_fd, address->ai_addr, address->ai_addrlen) != 0) {
        problem = errno;
        if (problem == EINPROGRESS) {
            socklen_t size = sizeof(problem);
            if (wait_for(socket_fd, POLLOUT, timeout_ms) <= 0) {
                problem = ETIMEDOUT;
            } else if (getsockopt(socket_fd, SOL_SOCKET, SO_ERROR, &problem, &size) != 0) {
                problem = errno;
            }
        }
    }
    if (problem != 0) {
        *error = problem == ETIMEDOUT ? ESP_ERR_ESP_TLS_CONNECTION_TIMEOUT
                                      : ESP_ERR_ESP_TLS_FAILED_CONNECT_TO_HOST;
        ESP_LOGE("esp-tls", "[sock=%d] connect() error: %s", socket_fd, strerror(problem));
        (void)close(socket_fd);
        return -1;
    }
    const int on = 1;
    (void)setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return socket_fd;
}

int tcp_connect(const char *host, int port, int timeout_ms, esp_err_t *error)
{
    struct addrinfo hints;
    memset(&hints, 0, sizeof(hints));
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    char service[8];
    (void)snprintf(service, sizeof(service), "%d", port);
    struct addrinfo *addresses = NULL;
    const int resolved = getaddrinfo(host, service, &hints, &addresses);
    if (resolved != 0 || addresses == NULL) {
        ESP_LOGE("esp-tls", "couldn't get hostname for :%s: getaddrinfo() returns %d", host, resolved);
        *error = ESP_ERR_ESP_TLS_CANNOT_RESOLVE_HOSTNAME;
        return -1;
    }
    /* A host has more than one address for "localhost", where a chip's resolver gives one: try each. */
    int socket_fd = -1;
    for (const struct addrinfo *at = addresses; at != NULL && socket_fd < 0; at = at->ai_next) {
        socket_fd = connect_to(at, timeout_ms, error);
    }
    freeaddrinfo(addresses);
    return socket_fd;
}

int tcp_read(int socket, char *buffer, size_t size, int timeout_ms)
{
    const int ready = wait_for(socket, POLLIN, timeout_ms);
    if (ready <= 0) {
        return ready == 0 ? TCP_TIMEOUT : TCP_FAILED;
    }
    const ssize_t got = recv(socket, buffer, size, 0);
    if (got < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
            return TCP_TIMEOUT;
        }
        const int problem = errno;
        ESP_LOGE("transport_base", "tcp_read error, errno=%s", strerror(problem));
        errno = problem;
        return TCP_FAILED;
    }
    return got == 0 ? TCP_CLOSED : (int)got;
}

int tcp_write(int socket, const char *bytes, size_t size, int timeout_ms)
{
    while (size > 0) {
        if (wait_for(socket, POLLOUT, timeout_ms) <= 0) {
            return TCP_FAILED;
        }
        const ssize_t sent = send(socket, bytes, size, 0);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            continue;
        }
        if (sent <= 0) {
            return TCP_FAILED;
        }
        bytes += sent;
        size -= (size_t)sent;
    }
    return 0;
}
