/** The command loop of the console. */
#pragma once

/** Claims the console for input; a line of the log leaves in one piece from here on. */
void console_start(void);

/** Reads and dispatches command lines for ever. */
void console_run(void);
