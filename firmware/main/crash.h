/** Ways in which a program ends that no program should end in. For test hooks only. */
#pragma once

/** Starves the task watchdog: the calling task is watched from now on, and never feeds it. Does not return.
 */
void crash_by_watchdog(void);

/** Stores to address 0. */
void crash_by_null(void);
