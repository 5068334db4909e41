/** Counts what the application itself changes in its slots and in otadata, and ends it at the n-th change.
 * Only with CONFIG_RAW_OTA_TEST_HOOKS: then every call of esp_partition_write(), _write_raw() and
 * _erase_range() in the program passes through here, those of esp_ota_ops too. What bootloader and ROM do is
 * not seen. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** On which side of its operation a cut is. */
typedef enum {
    CUT_BEFORE,
    CUT_INSIDE, /**< a write is made in two, with the cut between them */
    CUT_AFTER,
} cut_where_t;

/** One cut. The texts must be constants. */
typedef struct {
    bool erases; /**< sectors erased count */
    bool writes; /**< calls that write count, whatever their length */
    cut_where_t where;
    uint32_t byte;    /**< with CUT_INSIDE: how much is written before; 0 is half of it */
    const char *kind; /**< for the log */
    void (*end)(void);
} cut_plan_t;

/** Changes since the program began, whether a cut was armed or not. */
typedef struct {
    uint32_t erases; /**< sectors */
    uint32_t writes; /**< calls */
} cut_counts_t;

/**
 * Arms one cut, at the `nth` operation from now on that counts; 0 disarms. It is kept in RAM and strikes
 * once. While one is armed for erases, ranges are erased sector by sector.
 *
 * The caller holds raw_ota_lock(): a plan must not change under an update.
 */
void cut_hook_arm(const cut_plan_t *plan, uint32_t nth);

/** How many operations there still are up to and including the armed one; 0: none is armed. */
uint32_t cut_hook_left(void);

/** What was counted so far. */
cut_counts_t cut_hook_counts(void);
