/** What must hold whatever the input is. */
#pragma once

#include <stdio.h>
#include <stdlib.h>

/** Ends the process as a sanitizer does, so that the fuzzer keeps the input. */
#define RULE(condition, ...)                                                                                 \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            (void)fprintf(stderr, "%s:%d: rule broken: %s: ", __FILE__, __LINE__, #condition);               \
            (void)fprintf(stderr, __VA_ARGS__);                                                              \
            (void)fputc('\n', stderr);                                                                       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)
