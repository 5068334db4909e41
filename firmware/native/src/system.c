/* Small pieces of ESP-IDF: error names, CRC, eFuses, MAC, reset. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "esp_flash_encrypt.h"
#include "esp_http_client.h"
#include "esp_log.h"
#include "esp_mac.h"
#include "esp_ota_ops.h"
#include "esp_rom_crc.h"
#include "esp_secure_boot.h"
#include "esp_system.h"
#include "sdkconfig.h"
#include "twin_rpc.h"

const char *esp_err_to_name(esp_err_t code)
{
    static const struct {
        esp_err_t code;
        const char *name;
    } NAMES[] = {
        {ESP_OK, "ESP_OK"},
        {ESP_FAIL, "ESP_FAIL"},
        {ESP_ERR_NO_MEM, "ESP_ERR_NO_MEM"},
        {ESP_ERR_INVALID_ARG, "ESP_ERR_INVALID_ARG"},
        {ESP_ERR_INVALID_STATE, "ESP_ERR_INVALID_STATE"},
        {ESP_ERR_INVALID_SIZE, "ESP_ERR_INVALID_SIZE"},
        {ESP_ERR_NOT_FOUND, "ESP_ERR_NOT_FOUND"},
        {ESP_ERR_NOT_SUPPORTED, "ESP_ERR_NOT_SUPPORTED"},
        {ESP_ERR_TIMEOUT, "ESP_ERR_TIMEOUT"},
        {ESP_ERR_NOT_ALLOWED, "ESP_ERR_NOT_ALLOWED"},
        {ESP_ERR_OTA_PARTITION_CONFLICT, "ESP_ERR_OTA_PARTITION_CONFLICT"},
        {ESP_ERR_OTA_SELECT_INFO_INVALID, "ESP_ERR_OTA_SELECT_INFO_INVALID"},
        {ESP_ERR_OTA_VALIDATE_FAILED, "ESP_ERR_OTA_VALIDATE_FAILED"},
        {ESP_ERR_OTA_SMALL_SEC_VER, "ESP_ERR_OTA_SMALL_SEC_VER"},
        {ESP_ERR_OTA_ROLLBACK_FAILED, "ESP_ERR_OTA_ROLLBACK_FAILED"},
        {ESP_ERR_OTA_ROLLBACK_INVALID_STATE, "ESP_ERR_OTA_ROLLBACK_INVALID_STATE"},
        {0x6001, "ESP_ERR_FLASH_OP_FAIL"},
        {0x6002, "ESP_ERR_FLASH_OP_TIMEOUT"},
        {ESP_ERR_HTTP_MAX_REDIRECT, "ESP_ERR_HTTP_MAX_REDIRECT"},
        {ESP_ERR_HTTP_CONNECT, "ESP_ERR_HTTP_CONNECT"},
        {ESP_ERR_HTTP_WRITE_DATA, "ESP_ERR_HTTP_WRITE_DATA"},
        {ESP_ERR_HTTP_FETCH_HEADER, "ESP_ERR_HTTP_FETCH_HEADER"},
        {ESP_ERR_HTTP_INVALID_TRANSPORT, "ESP_ERR_HTTP_INVALID_TRANSPORT"},
        {ESP_ERR_HTTP_EAGAIN, "ESP_ERR_HTTP_EAGAIN"},
        {ESP_ERR_HTTP_CONNECTION_CLOSED, "ESP_ERR_HTTP_CONNECTION_CLOSED"},
    };
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (NAMES[i].code == code) {
            return NAMES[i].name;
        }
    }
    return "UNKNOWN ERROR";
}

void native_error_check_failed(esp_err_t code, const char *file, int line, const char *function,
                               const char *expression)
{
    printf("ESP_ERROR_CHECK failed: esp_err_t 0x%x (%s) at 0x%08" PRIx32 "\n", (unsigned)code,
           esp_err_to_name(code), (uint32_t)(uintptr_t)__builtin_return_address(0));
    printf("file: \"%s\" line %d\nfunc: %s\nexpression: %s\n\n", file, line, function, expression);
    abort();
}

uint32_t esp_rom_crc32_le(uint32_t crc, uint8_t const *buf, uint32_t len)
{
    crc = ~crc;
    for (uint32_t i = 0; i < len; i++) {
        crc ^= buf[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

esp_err_t esp_efuse_mac_get_default(uint8_t *mac)
{
    if (mac == NULL) {
        return ESP_ERR_INVALID_ARG;
    }
    memcpy(mac, twin_info()->mac, sizeof(twin_info()->mac));
    return ESP_OK;
}

bool esp_secure_boot_enabled(void)
{
#if CONFIG_IDF_TARGET_ESP32 && !CONFIG_SECURE_BOOT_V2_ENABLED
    return false; /* here ESP-IDF looks at the fuse only in a build with secure boot */
#else
    return twin_info()->sb_enabled != 0;
#endif
}

bool esp_flash_encryption_enabled(void)
{
    return twin_info()->fe_enabled != 0;
}

esp_flash_enc_mode_t esp_get_flash_encryption_mode(void)
{
    switch (twin_info()->fe_mode) {
    case 1:
        return ESP_FLASH_ENC_MODE_DEVELOPMENT;
    case 2:
        return ESP_FLASH_ENC_MODE_RELEASE;
    default:
        return ESP_FLASH_ENC_MODE_DISABLED;
    }
}

void esp_flash_encryption_init_checks(void)
{
    static const char *TAG = "flash_encrypt";
#if CONFIG_SECURE_FLASH_CHECK_ENC_EN_IN_APP
    if (!esp_flash_encryption_enabled()) {
        ESP_LOGE(TAG, "Flash encryption eFuse bit was not enabled in bootloader but "
                      "CONFIG_SECURE_FLASH_ENC_ENABLED is on");
        abort();
    }
#endif
    switch (esp_get_flash_encryption_mode()) {
    case ESP_FLASH_ENC_MODE_DEVELOPMENT:
#if CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE
        ESP_LOGE(TAG, "Flash encryption settings error: app is configured for RELEASE but efuses are set for "
                      "DEVELOPMENT");
        ESP_LOGE(TAG, "Mismatch found in security options in bootloader menuconfig and efuse settings. "
                      "Device is not secure.");
#else
        ESP_LOGW(TAG, "Flash encryption mode is DEVELOPMENT (not secure)");
#endif
        break;
    case ESP_FLASH_ENC_MODE_RELEASE:
        ESP_LOGI(TAG, "Flash encryption mode is RELEASE");
        break;
    default:
        break;
    }
}

esp_reset_reason_t esp_reset_reason(void)
{
    /* Codes of the ROM, as both chips number them; a software reset is told apart by what the application
     * asked for. */
    switch (twin_info()->reset_reason) {
    case 0x1:
        return ESP_RST_POWERON;
    case 0x3:
    case 0xC:
        return twin_info()->restart_hint == TWIN_RESTART_PANIC           ? ESP_RST_PANIC
               : twin_info()->restart_hint == TWIN_RESTART_TASK_WATCHDOG ? ESP_RST_TASK_WDT
                                                                         : ESP_RST_SW;
    case 0x5:
        return ESP_RST_DEEPSLEEP;
    case 0x7:
        return ESP_RST_TASK_WDT;
    case 0x8:
        return ESP_RST_INT_WDT;
    case 0x9:
    case 0xB:
    case 0xD:
    case 0x10:
        return ESP_RST_WDT;
    case 0xF:
        return ESP_RST_BROWNOUT;
    default:
        return ESP_RST_UNKNOWN;
    }
}

void esp_restart(void)
{
    twin_restart(TWIN_RESTART_SOFTWARE);
}
