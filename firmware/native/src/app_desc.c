/* The application description: the only source that is compiled anew for every version. */
#include "esp_app_desc.h"
#include "esp_idf_version.h"
#include "native_app.h"
#include "sdkconfig.h"

#ifndef COMPILE_TIME
#define COMPILE_TIME ""
#endif
#ifndef COMPILE_DATE
#define COMPILE_DATE ""
#endif

static esp_app_desc_t s_description = {
    .magic_word = ESP_APP_DESC_MAGIC_WORD,
    .secure_version = APP_SECURE_VERSION,
    .version = PROJECT_VER,
    .project_name = PROJECT_NAME,
    .time = COMPILE_TIME,
    .date = COMPILE_DATE,
    .idf_ver = NATIVE_IDF_VER,
    .max_efuse_blk_rev_full = 99,
    .mmu_page_size = 16,
};

_Static_assert(sizeof(PROJECT_VER) <= sizeof(s_description.version), "PROJECT_VER is too long");
_Static_assert(sizeof(PROJECT_NAME) <= sizeof(s_description.project_name), "PROJECT_NAME is too long");

const esp_app_desc_t *esp_app_get_description(void)
{
    return &s_description;
}

uint8_t *native_elf_sha256(void)
{
    return s_description.app_elf_sha256;
}
