/* The test hook that ends the program at one of its flash operations; only with CONFIG_RAW_OTA_TEST_HOOKS. */
#include "sdkconfig.h"

#if CONFIG_RAW_OTA_TEST_HOOKS

#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>

#include "console_port.h"
#include "cut_hook.h"
#include "esp_log.h"
#include "esp_partition.h"

static const char *TAG = "cut";

/* Encrypted writes are made of these. */
#define CIPHER_BLOCK 16

/* The linker gives these names (--wrap): calls of esp_partition_write() in other files reach __wrap_…, and
 * __real_… is ESP-IDF's. The native build does the same with macros. */
esp_err_t __real_esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                     size_t size);
esp_err_t __real_esp_partition_write_raw(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                         size_t size);
esp_err_t __real_esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size);
esp_err_t __wrap_esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                     size_t size);
esp_err_t __wrap_esp_partition_write_raw(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                         size_t size);
esp_err_t __wrap_esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size);

typedef esp_err_t (*write_t)(const esp_partition_t *, size_t, const void *, size_t);

static cut_plan_t s_plan;
static uint32_t s_nth;
static atomic_uint s_left; /* 0: none is armed */
static atomic_uint s_erases;
static atomic_uint s_writes;

void cut_hook_arm(const cut_plan_t *plan, uint32_t nth)
{
    atomic_store(&s_left, 0);
    s_plan = *plan;
    s_nth = nth;
    atomic_store(&s_left, nth);
}

uint32_t cut_hook_left(void)
{
    return atomic_load(&s_left);
}

cut_counts_t cut_hook_counts(void)
{
    return (cut_counts_t){.erases = atomic_load(&s_erases), .writes = atomic_load(&s_writes)};
}

/* Slots and otadata. Wi-Fi keeps its calibration in NVS, whenever it likes. */
static bool counts(const esp_partition_t *partition)
{
    return partition->type == ESP_PARTITION_TYPE_APP ||
           (partition->type == ESP_PARTITION_TYPE_DATA &&
            partition->subtype == ESP_PARTITION_SUBTYPE_DATA_OTA);
}

/* Whether the operation that is about to be done is the armed one. */
static bool is_struck(bool matches)
{
    return matches && atomic_load(&s_left) > 0 && atomic_fetch_sub(&s_left, 1) == 1;
}

/* Says where, and ends the program. The line goes out first: afterwards nobody can ask. */
static void cut(const char *where, const char *function, const esp_partition_t *partition, size_t offset,
                size_t size)
{
    ESP_LOGW(TAG, "%s operation %" PRIu32 ", %s of %u bytes at %s+0x%x: %s", where, s_nth, function,
             (unsigned)size, partition->label, (unsigned)offset, s_plan.kind);
    console_port_drain();
    s_plan.end();
}

/* How much of a write is done before the cut inside it. */
static size_t part_of(const esp_partition_t *partition, size_t size, bool raw)
{
    const size_t asked = s_plan.byte > 0 ? s_plan.byte : size / 2;
    const size_t part = asked < size ? asked : size;
    return partition->encrypted && !raw ? part - part % CIPHER_BLOCK : part;
}

static esp_err_t write_counted(const esp_partition_t *partition, size_t offset, const void *src, size_t size,
                               write_t real, const char *function, bool raw)
{
    if (!counts(partition)) {
        return real(partition, offset, src, size);
    }
    (void)atomic_fetch_add(&s_writes, 1);
    if (!is_struck(s_plan.writes)) {
        return real(partition, offset, src, size);
    }
    if (s_plan.where == CUT_BEFORE) {
        cut("before", function, partition, offset, size);
    }
    const bool inside = s_plan.where == CUT_INSIDE;
    const size_t part = inside ? part_of(partition, size, raw) : size;
    const esp_err_t err = part > 0 ? real(partition, offset, src, part) : ESP_OK;
    if (err != ESP_OK) {
        return err;
    }
    cut(inside ? "inside" : "after", function, partition, offset, part);
    return ESP_OK;
}

esp_err_t __wrap_esp_partition_write(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                     size_t size)
{
    return write_counted(partition, dst_offset, src, size, __real_esp_partition_write, "esp_partition_write",
                         false);
}

esp_err_t __wrap_esp_partition_write_raw(const esp_partition_t *partition, size_t dst_offset, const void *src,
                                         size_t size)
{
    return write_counted(partition, dst_offset, src, size, __real_esp_partition_write_raw,
                         "esp_partition_write_raw", true);
}

static esp_err_t erase_sector(const esp_partition_t *partition, size_t offset)
{
    static const char *NAME = "esp_partition_erase_range";
    const size_t size = partition->erase_size;
    (void)atomic_fetch_add(&s_erases, 1);
    if (!is_struck(s_plan.erases)) {
        return __real_esp_partition_erase_range(partition, offset, size);
    }
    if (s_plan.where == CUT_BEFORE) {
        cut("before", NAME, partition, offset, size);
    }
    const esp_err_t err = __real_esp_partition_erase_range(partition, offset, size);
    if (err == ESP_OK) {
        cut("after", NAME, partition, offset, size);
    }
    return err;
}

esp_err_t __wrap_esp_partition_erase_range(const esp_partition_t *partition, size_t offset, size_t size)
{
    const size_t sector = partition->erase_size;
    const bool watched = counts(partition) && s_plan.erases && atomic_load(&s_left) > 0;
    /* What is not made of sectors is for ESP-IDF to refuse. */
    if (!watched || offset % sector != 0 || size % sector != 0) {
        if (counts(partition)) {
            (void)atomic_fetch_add(&s_erases, size / sector);
        }
        return __real_esp_partition_erase_range(partition, offset, size);
    }
    for (size_t at = 0; at < size; at += sector) {
        const esp_err_t err = erase_sector(partition, offset + at);
        if (err != ESP_OK) {
            return err;
        }
    }
    return ESP_OK;
}

#endif /* CONFIG_RAW_OTA_TEST_HOOKS */
