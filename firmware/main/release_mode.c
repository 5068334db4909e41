#include "release_mode.h"

#include "esp_efuse.h"
#include "esp_efuse_table.h"
#include "esp_flash_encrypt.h"
#include "idf_compat.h"
#include "sdkconfig.h"
#include "soc/soc_caps.h"

/* What the ROM's download mode must not do any more, as esp_get_flash_encryption_mode() asks for it. */
static const esp_efuse_desc_t **const DOORS[] = {
#if CONFIG_IDF_TARGET_ESP32
    ESP_EFUSE_DISABLE_DL_CACHE,      ESP_EFUSE_DISABLE_DL_ENCRYPT, ESP_EFUSE_DISABLE_DL_DECRYPT,
#else
    ESP_EFUSE_DIS_DOWNLOAD_MANUAL_ENCRYPT,
#endif
#if SOC_EFUSE_DIS_DOWNLOAD_MSPI
    ESP_EFUSE_SPI_DOWNLOAD_MSPI_DIS,
#endif
#if SOC_EFUSE_DIS_DOWNLOAD_ICACHE
    ESP_EFUSE_DIS_DOWNLOAD_ICACHE,
#endif
#if SOC_EFUSE_DIS_DOWNLOAD_DCACHE
    ESP_EFUSE_DIS_DOWNLOAD_DCACHE,
#endif
};

static esp_err_t close_doors(void)
{
    for (size_t i = 0; i < sizeof(DOORS) / sizeof(DOORS[0]); i++) {
        const esp_err_t err = esp_efuse_write_field_bit(DOORS[i]);
        if (err != ESP_OK) {
            return err;
        }
    }
    return ESP_OK;
}

/* The lowest level, unless there is one already. */
static esp_err_t choose_pseudo_rounds(void)
{
#if IDF_COMPAT_PSEUDO_ROUNDS
    if (idf_compat_has_pseudo_rounds()) {
        const esp_efuse_desc_t *level = ESP_EFUSE_XTS_DPA_PSEUDO_LEVEL[0];
        const esp_efuse_desc_t lowest_bit = {level->efuse_block, level->bit_start, 1};
        const esp_efuse_desc_t *field[] = {&lowest_bit, NULL};
        size_t ones = 0;
        const esp_err_t err = esp_efuse_read_field_cnt(ESP_EFUSE_XTS_DPA_PSEUDO_LEVEL, &ones);
        return err != ESP_OK || ones != 0 ? err : esp_efuse_write_field_bit(field);
    }
#endif
    return ESP_OK;
}

/* Its bit freezes most of the doors, too. */
static esp_err_t freeze_cache(void)
{
#if CONFIG_IDF_TARGET_ESP32
    return esp_efuse_write_field_bit(ESP_EFUSE_WR_DIS_DIS_CACHE);
#elif SOC_EFUSE_DIS_ICACHE
    return esp_efuse_write_field_bit(ESP_EFUSE_WR_DIS_DIS_ICACHE);
#else
    return ESP_OK;
#endif
}

static esp_err_t lock_download(void)
{
#if SOC_SUPPORTS_SECURE_DL_MODE
    return esp_efuse_enable_rom_secure_download_mode();
#else
    /* The protection of ESP32's counter freezes this fuse. Its first revisions do not have it. */
    const esp_err_t err = esp_efuse_disable_rom_download_mode();
    return err == ESP_ERR_NOT_SUPPORTED ? ESP_OK : err;
#endif
}

static esp_err_t protect_counter(void)
{
    esp_flash_write_protect_crypt_cnt();
    return ESP_OK;
}

/* The lock last, where nothing freezes it: who finds it burned finds everything burned. */
static esp_err_t (*const STEPS[])(void) = {
    close_doors,     choose_pseudo_rounds, freeze_cache,
#if SOC_SUPPORTS_SECURE_DL_MODE
    protect_counter, lock_download,
#else
    lock_download, protect_counter,
#endif
};

esp_err_t release_mode_set(void)
{
    /* Not esp_flash_encryption_enabled(): deprecated from v6.0, its successor absent before. */
    const bool encrypted = esp_get_flash_encryption_mode() != ESP_FLASH_ENC_MODE_DISABLED;
    for (size_t i = 0; encrypted && i < sizeof(STEPS) / sizeof(STEPS[0]); i++) {
        const esp_err_t err = STEPS[i]();
        if (err != ESP_OK) {
            return err;
        }
    }
    /* Nothing is left for it to burn. It aborts when encryption is off. */
    esp_flash_encryption_set_release_mode();
    return ESP_OK;
}
