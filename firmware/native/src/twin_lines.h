/** Log lines that the twin's models produce where ESP-IDF's own code would have logged. */
#pragma once

/** Prints lines of the form "<level letter> <tag>: <text>\n" with time stamps; changes `lines`. */
void twin_lines_print(char *lines);
