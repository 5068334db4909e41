/** What the device is and what it runs. */
#pragma once

#include "events.h"

/** Adds the fields that the events `boot` and `done` of `status` share. */
void device_state_add(event_t *event);
