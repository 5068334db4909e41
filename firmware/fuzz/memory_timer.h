/** esp_timer's timers for the fuzz targets: none ever fires, since a run is over at once. */
#pragma once

/** Timers that were made and not yet deleted. */
int timers_left(void);
