/** What must hold after every update, whatever came in. */
#pragma once

#include "memory_chip.h"
#include "raw_ota.h"

/** The board as it is before an update. To be called after chip_reset(). */
void update_begins(void);

/** raw_ota_options_t::on_progress that sees to the order of the phases. */
void update_progress(void *context, raw_ota_phase_t phase, uint32_t bytes, uint32_t total);

/**
 * Judges what an update left.
 * @param bare  a transfer without a header: some refusals come after the first sector.
 */
void update_ends(raw_ota_err_t returned, const raw_ota_result_t *result, bool bare);

/** Nothing is held any more: the lock, OTA handles, hashes, keys. Also for what is no update. */
void nothing_is_held(void);

/** For a person who wants to know whether a target reaches what it is there for: how many updates were judged
 * and how many of them selected the new version. */
void update_report(void);
