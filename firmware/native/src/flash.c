#include "flash.h"

#include <stdbool.h>
#include <stdlib.h>

#include "esp_flash_partitions.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "twin_rpc.h"

static const char *TAG = "spi_flash";

static bool is_inside(uint32_t address, size_t size)
{
    const uint32_t flash_size = twin_info()->flash_size;
    return address <= flash_size && size <= flash_size - address;
}

/* CONFIG_SPI_FLASH_DANGEROUS_WRITE_ABORTS, ESP-IDF's default. */
static void abort_if_dangerous(uint32_t address, size_t size)
{
    const esp_partition_t *running = esp_ota_get_running_partition();
    const bool in_running = address < running->address + running->size && address + size > running->address;
    if (address <= ESP_PARTITION_TABLE_OFFSET + ESP_PARTITION_TABLE_MAX_LEN || in_running) {
        abort();
    }
}

static esp_err_t read_with(twin_op_t op, uint32_t address, void *data, size_t size)
{
    if (!is_inside(address, size)) {
        return ESP_ERR_INVALID_ARG;
    }
    if (size == 0) {
        return ESP_OK;
    }
    size_t got = 0;
    const int32_t status = twin_call(op, address, (uint32_t)size, NULL, 0, data, size, &got, NULL);
    if (status != ESP_OK) {
        return status;
    }
    return got == size ? ESP_OK : ESP_ERR_INVALID_SIZE;
}

esp_err_t flash_read_raw(uint32_t address, void *data, size_t size)
{
    return read_with(TWIN_FLASH_READ_RAW, address, data, size);
}

esp_err_t flash_read_mapped(uint32_t address, void *data, size_t size)
{
    return read_with(TWIN_FLASH_READ, address, data, size);
}

esp_err_t flash_write(uint32_t address, const void *data, size_t size)
{
    abort_if_dangerous(address, size);
    if (data == NULL || !is_inside(address, size)) {
        return ESP_ERR_INVALID_ARG;
    }
    if (size == 0) {
        return ESP_OK;
    }
    return twin_call(TWIN_FLASH_WRITE_RAW, address, 0, data, size, NULL, 0, NULL, NULL);
}

esp_err_t flash_write_encrypted(uint32_t address, const void *data, size_t size)
{
    abort_if_dangerous(address, size);
    if (data == NULL || !is_inside(address, size)) {
        return ESP_ERR_INVALID_ARG;
    }
    if (address % 16 != 0) {
        ESP_LOGE(TAG, "flash encrypted write address must be 16 bytes aligned");
        return ESP_ERR_INVALID_ARG;
    }
    if (size % 16 != 0) {
        ESP_LOGE(TAG, "flash encrypted write length must be multiple of 16");
        return ESP_ERR_INVALID_SIZE;
    }
    if (size == 0) {
        return ESP_OK;
    }
    return twin_call(TWIN_FLASH_WRITE_ENCRYPTED, address, 0, data, size, NULL, 0, NULL, NULL);
}

esp_err_t flash_erase(uint32_t address, size_t size)
{
    abort_if_dangerous(address, size);
    if (!is_inside(address, size)) {
        return ESP_ERR_INVALID_ARG;
    }
    return twin_call(TWIN_FLASH_ERASE, address, (uint32_t)size, NULL, 0, NULL, 0, NULL, NULL);
}
