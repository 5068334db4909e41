#include "twin_lines.h"

#include <string.h>

#include "esp_log.h"

void twin_lines_print(char *lines)
{
    char *rest = lines;
    for (char *line = strtok_r(lines, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strstr(line, ": ");
        if (colon == NULL || line[0] == '\0' || line[1] != ' ') {
            continue;
        }
        *colon = '\0';
        const esp_log_level_t level = line[0] == 'E'   ? ESP_LOG_ERROR
                                      : line[0] == 'W' ? ESP_LOG_WARN
                                                       : ESP_LOG_INFO;
        ESP_LOG_LEVEL(level, line + 2, "%s", colon + 2);
    }
}
