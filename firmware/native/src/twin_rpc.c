#include "twin_rpc.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROTOCOL_VERSION 1

static int s_socket = -1;
static pthread_mutex_t s_mutex = PTHREAD_MUTEX_INITIALIZER;
/* A request is on the wire: nothing else may be written there. */
static atomic_bool s_in_call;
static twin_info_t s_info;

static void put_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
    at[2] = (uint8_t)(value >> 16);
    at[3] = (uint8_t)(value >> 24);
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | ((uint32_t)at[1] << 8) | ((uint32_t)at[2] << 16) | ((uint32_t)at[3] << 24);
}

/* Without the twin there is no device: the process ends as silently as a chip without power. */
static void send_all(const void *data, size_t size)
{
    const uint8_t *at = data;
    while (size > 0) {
        const ssize_t sent = write(s_socket, at, size);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            _exit(0);
        }
        at += sent;
        size -= (size_t)sent;
    }
}

static void receive_all(void *data, size_t size)
{
    uint8_t *at = data;
    while (size > 0) {
        const ssize_t got = read(s_socket, at, size);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            _exit(0);
        }
        at += got;
        size -= (size_t)got;
    }
}

static void send_request(twin_op_t op, uint32_t arg0, uint32_t arg1, const void *data, size_t size)
{
    uint8_t head[16];
    put_u32(head, op);
    put_u32(head + 4, arg0);
    put_u32(head + 8, arg1);
    put_u32(head + 12, (uint32_t)size);
    send_all(head, sizeof(head));
    send_all(data, size);
}

int32_t twin_call(twin_op_t op, uint32_t arg0, uint32_t arg1, const void *data, size_t size, void *reply,
                  size_t reply_capacity, size_t *reply_size, uint32_t *value)
{
    pthread_mutex_lock(&s_mutex);
    atomic_store(&s_in_call, true);
    send_request(op, arg0, arg1, data, size);
    uint8_t head[12];
    receive_all(head, sizeof(head));
    size_t left = get_u32(head + 8);
    const size_t kept = left < reply_capacity ? left : reply_capacity;
    if (kept > 0) {
        receive_all(reply, kept);
    }
    for (left -= kept; left > 0;) {
        uint8_t dropped[256];
        const size_t piece = left < sizeof(dropped) ? left : sizeof(dropped);
        receive_all(dropped, piece);
        left -= piece;
    }
    atomic_store(&s_in_call, false);
    pthread_mutex_unlock(&s_mutex);
    if (reply_size != NULL) {
        *reply_size = kept;
    }
    if (value != NULL) {
        *value = get_u32(head + 4);
    }
    return (int32_t)get_u32(head);
}

void twin_refresh_info(void)
{
    twin_info_t info;
    size_t size = 0;
    memset(&info, 0, sizeof(info));
    const int32_t status = twin_call(TWIN_INFO, 0, 0, NULL, 0, &info, sizeof(info), &size, NULL);
    if (status != 0 || size != sizeof(info) || info.version != PROTOCOL_VERSION) {
        static const char MESSAGE[] = "this program and its twin do not speak the same protocol\n";
        (void)!write(STDERR_FILENO, MESSAGE, sizeof(MESSAGE) - 1);
        _exit(2);
    }
    s_info = info;
}

void twin_connect(void)
{
    const char *number = getenv("ESP_TWIN_FD");
    if (number == NULL) {
        static const char MESSAGE[] =
            "this is the application of a virtual board; `harness twin` starts it\n";
        (void)!write(STDERR_FILENO, MESSAGE, sizeof(MESSAGE) - 1);
        _exit(2);
    }
    s_socket = atoi(number);
    twin_refresh_info();
}

const twin_info_t *twin_info(void)
{
    return &s_info;
}

void twin_restart(twin_restart_t reason)
{
    pthread_mutex_lock(&s_mutex);
    send_request(TWIN_RESTART, reason, 0, NULL, 0);
    for (;;) {
        pause();
    }
}

void twin_panic(void)
{
    /* Another thread may be in a call: give it a moment to finish, but not longer. */
    const struct timespec moment = {.tv_sec = 0, .tv_nsec = 1000000};
    for (int i = 0; i < 100 && atomic_load(&s_in_call); i++) {
        (void)nanosleep(&moment, NULL);
    }
    if (atomic_load(&s_in_call)) {
        /* The twin notices that the process ended, and resets. */
        _exit(134);
    }
    send_request(TWIN_RESTART, TWIN_RESTART_PANIC, 0, NULL, 0);
    for (;;) {
        pause();
    }
}
