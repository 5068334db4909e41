/** The UART command loop. */
#pragma once

/** Claims the UART for input and gives stdout a buffer that holds a whole event. */
void console_start(void);

/** Reads and dispatches command lines for ever. */
void console_run(void);
