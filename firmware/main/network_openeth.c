/* Network of Espressif's QEMU. */
#include "esp_check.h"
#include "esp_eth.h"
#include "esp_eth_mac_openeth.h"
#include "esp_netif.h"
#include "idf_compat.h"
#include "network_driver.h"

static const char *TAG = "openeth";

const char *const network_driver_name = "openeth";

static esp_eth_phy_t *new_phy(void)
{
    eth_phy_config_t config = ETH_PHY_DEFAULT_CONFIG();
    /* The emulated link is up at once: negotiation only costs time. */
    config.autonego_timeout_ms = 100;
    return idf_compat_new_openeth_phy(&config);
}

esp_err_t network_driver_start(bool *waits)
{
    const esp_netif_config_t netif_config = ESP_NETIF_DEFAULT_ETH();
    esp_netif_t *netif = esp_netif_new(&netif_config);
    const eth_mac_config_t mac_config = ETH_MAC_DEFAULT_CONFIG();
    esp_eth_mac_t *mac = esp_eth_mac_new_openeth(&mac_config);
    esp_eth_phy_t *phy = new_phy();
    ESP_RETURN_ON_FALSE(netif != NULL && mac != NULL && phy != NULL, ESP_ERR_NO_MEM, TAG, "no memory");
    const esp_eth_config_t config = ETH_DEFAULT_CONFIG(mac, phy);
    esp_eth_handle_t handle = NULL;
    ESP_RETURN_ON_ERROR(esp_eth_driver_install(&config, &handle), TAG, "esp_eth_driver_install");
    ESP_RETURN_ON_ERROR(esp_netif_attach(netif, esp_eth_new_netif_glue(handle)), TAG, "esp_netif_attach");
    ESP_RETURN_ON_ERROR(esp_eth_start(handle), TAG, "esp_eth_start");
    *waits = true;
    return ESP_OK;
}

esp_err_t network_driver_join(const char *ssid, const char *password)
{
    (void)ssid;
    (void)password;
    return ESP_ERR_NOT_SUPPORTED;
}
