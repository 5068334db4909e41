/** tcp.h out of a fuzz input: what each connection of a server says, and how it ends. */
#pragma once

#include <stdbool.h>

#include "fuzz_target.h"

/**
 * Whom the firmware meets from now on; no server at all where `size` is 0. The input is a list of steps, each
 * a byte: 0 mod 8 the connection ends cleanly; 1 it breaks; 2 nothing comes for the time-out; 3 nobody
 * accepts the next one; else 16 bits of length and so many bytes of the answer.
 */
void tcp_serve(const uint8_t *data, size_t size);
