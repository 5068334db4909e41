/** What differs between the versions of ESP-IDF that this firmware builds with, v5.3 to v6.x, and nothing
 * else. */
#pragma once

#include <stdbool.h>

#include "esp_err.h"
#include "esp_idf_version.h"
#include "esp_ota_ops.h"
#include "esp_system.h"
#include "sdkconfig.h"
#include "soc/soc_caps.h"

/**
 * The half of a rollback that can fail: marks the running version invalid. Before v5.5 marking restarts at
 * once, so there it is only found out whether it could be done.
 */
static inline esp_err_t idf_compat_prepare_rollback(void)
{
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 5, 0)
    return esp_ota_mark_app_invalid_rollback();
#else
    return esp_ota_check_rollback_is_possible() ? ESP_OK : ESP_ERR_OTA_ROLLBACK_FAILED;
#endif
}

/** The other half: restarts. */
static inline void idf_compat_finish_rollback(void)
{
#if ESP_IDF_VERSION < ESP_IDF_VERSION_VAL(5, 5, 0)
    (void)esp_ota_mark_app_invalid_rollback_and_reboot();
#endif
    esp_restart();
}

/* How often the flash cipher of some chips computes for show; before v5.4 ESP-IDF did not know of it. */
#if SOC_FLASH_ENCRYPTION_XTS_AES_SUPPORT_PSEUDO_ROUND && !CONFIG_ESP32P4_SELECTS_REV_LESS_V3 &&              \
    __has_include("hal/spi_flash_encrypted_ll.h")
#include "hal/spi_flash_encrypted_ll.h"
#define IDF_COMPAT_PSEUDO_ROUNDS 1

/** Whether this chip has the fuse; early revisions do not. */
static inline bool idf_compat_has_pseudo_rounds(void)
{
    return spi_flash_encrypt_ll_is_pseudo_rounds_function_supported();
}
#endif

#if CONFIG_ETH_USE_OPENETH
#include "esp_eth_phy.h"

/** The PHY of QEMU's OpenCores MAC. v6.0 moved the drivers of single PHYs out of ESP-IDF. */
static inline esp_eth_phy_t *idf_compat_new_openeth_phy(const eth_phy_config_t *config)
{
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(6, 0, 0)
    return esp_eth_phy_new_generic(config);
#else
    return esp_eth_phy_new_dp83848(config);
#endif
}
#endif

#if CONFIG_ESP_CONSOLE_USB_SERIAL_JTAG
#include "driver/usb_serial_jtag.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

/** Waits until the host has taken everything. Early versions cannot tell, so there the whole time is waited
 * for. */
static inline void idf_compat_usb_serial_jtag_drain(TickType_t ticks)
{
#if ESP_IDF_VERSION >= ESP_IDF_VERSION_VAL(5, 5, 0)
    (void)usb_serial_jtag_wait_tx_done(ticks);
#else
    vTaskDelay(ticks);
#endif
}
#endif
