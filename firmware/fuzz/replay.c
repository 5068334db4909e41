/* Runs files through a target without libFuzzer: regression inputs, with any compiler. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_target.h"
#include "update_rules.h"

static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    static uint8_t s_content[1 << 20];
    const size_t size = fread(s_content, 1, sizeof(s_content), file);
    (void)fclose(file);
    /* Of exactly this size, so that a read behind its end is found. */
    uint8_t *data = malloc(size > 0 ? size : 1);
    if (data == NULL) {
        return 1;
    }
    memcpy(data, s_content, size);
    (void)fprintf(stderr, "%s\n", path);
    const int status = LLVMFuzzerTestOneInput(data, size);
    free(data);
    return status;
}

int main(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        if (run_file(arguments[i]) != 0) {
            return 1;
        }
    }
    update_report();
    return 0;
}
