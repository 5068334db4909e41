/**
 * FreeRTOS for the fuzz targets: one thread, tasks that take turns where they wait. The same input gives the
 * same run, and a task that waits with a mutex held is found.
 */
#pragma once

#include <stdbool.h>

/** Called when a task waits for a queue: brings input that may fill it. False: there is none any more. */
extern bool (*tasks_on_wait)(void);

/** Lets every task that has something to do go on until all wait. */
void tasks_run(void);

/** Inside of a task: it never goes on, and starts anew when it is run again. False outside of one. */
bool task_abandon(void);

/** No mutex is held, no task is in the middle of something. */
bool tasks_are_idle(void);
