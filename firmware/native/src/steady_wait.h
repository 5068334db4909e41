/** Waiting on a condition until a moment of esp_timer_get_time(): the host's wall clock may be set meanwhile.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "esp_timer.h"

/** Makes a condition that steady_wait() can wait on; false when there is none to be had. */
static inline bool steady_init(pthread_cond_t *condition)
{
#ifdef __APPLE__
    return pthread_cond_init(condition, NULL) == 0;
#else
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        return false;
    }
    const bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                      pthread_cond_init(condition, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return made;
#endif
}

/** As pthread_cond_timedwait(), until `due_us`. */
static inline int steady_wait(pthread_cond_t *condition, pthread_mutex_t *mutex, int64_t due_us)
{
    const int64_t left_us = due_us - esp_timer_get_time();
    struct timespec until = {0};
#ifndef __APPLE__
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
#endif
    if (left_us > 0) {
        const int64_t ns = until.tv_nsec + left_us % 1000000 * 1000;
        until.tv_sec += (time_t)(left_us / 1000000 + ns / 1000000000);
        until.tv_nsec = (long)(ns % 1000000000);
    }
#ifdef __APPLE__
    return pthread_cond_timedwait_relative_np(condition, mutex, &until); /* its waits know no other clock */
#else
    return pthread_cond_timedwait(condition, mutex, &until);
#endif
}
