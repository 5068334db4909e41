/* From the bootloader's jump to app_main(): the lines of ESP-IDF v5.5.5's start-up, and main(). */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "esp_app_desc.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "esp_timer.h"
#include "native_app.h"
#include "sdkconfig.h"
#include "twin_rpc.h"

/* Memory left for the heap, as an application of this size leaves it: of no meaning here, but log parsers and
 * people expect the lines. */
typedef struct {
    uint32_t address;
    uint32_t size;
    const char *kind;
} heap_region_t;

/* Heaps of ESP32 and ESP32-C3 are from their logs; of the others, the chip's RAM behind 76 KiB of an
 * application. */
#if CONFIG_IDF_TARGET_ESP32
#define CORES "Multicore app"
#define UART_PINS "3 and 1"
#define MIN_REVISION 300U
#define MAX_REVISION 399U
static const heap_region_t HEAP[] = {
    {0x3FFAE6E0, 0x1920, "DRAM"},    {0x3FFB5220, 0x2ADE0, "DRAM"}, {0x3FFE0440, 0x3AE0, "D/IRAM"},
    {0x3FFE4350, 0x1BCB0, "D/IRAM"}, {0x4008F374, 0x10C8C, "IRAM"},
};
#elif CONFIG_IDF_TARGET_ESP32S2
#define CORES "Unicore app"
#define UART_PINS "44 and 43"
#define MIN_REVISION 0U
#define MAX_REVISION 199U
static const heap_region_t HEAP[] = {{0x3FFC3000, 0x39000, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32S3
#define CORES "Multicore app"
#define UART_PINS "44 and 43"
#define MIN_REVISION 0U
#define MAX_REVISION 99U
static const heap_region_t HEAP[] = {{0x3FC9B000, 0x4E710, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32C2
#define CORES "Unicore app"
#define UART_PINS "19 and 20"
#define MIN_REVISION 100U
#define MAX_REVISION 299U
#define CPU_FREQUENCY 120000000
static const heap_region_t HEAP[] = {{0x3FCB3000, 0x29000, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32C3
#define CORES "Unicore app"
#define UART_PINS "20 and 21"
#define MIN_REVISION 3U
#define MAX_REVISION 199U
static const heap_region_t HEAP[] = {
    {0x3FC939F0, 0x2C610, "RAM"},
    {0x3FCC0000, 0x1C710, "Retention RAM"},
    {0x3FCDC710, 0x2950, "Retention RAM"},
    {0x50000020, 0x1FC8, "RTCRAM"},
};
#elif CONFIG_IDF_TARGET_ESP32C5
#define CORES "Unicore app"
#define UART_PINS "12 and 11"
#define MIN_REVISION 100U
#define MAX_REVISION 199U
#if !CONFIG_SECURE_FLASH_ENC_ENABLED
#define CPU_FREQUENCY 240000000
#endif
static const heap_region_t HEAP[] = {{0x40813000, 0x3D000, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32C6
#define CORES "Unicore app"
#define UART_PINS "17 and 16"
#define MIN_REVISION 0U
#define MAX_REVISION 99U
static const heap_region_t HEAP[] = {{0x40813000, 0x69000, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32H2
#define CORES "Unicore app"
#define UART_PINS "23 and 24"
#define MIN_REVISION 102U
#define MAX_REVISION 199U
#define CPU_FREQUENCY 96000000
static const heap_region_t HEAP[] = {{0x40813000, 0x3A000, "RAM"}};
#elif CONFIG_IDF_TARGET_ESP32P4
#define CORES "Multicore app"
#define UART_PINS "38 and 37"
#define MIN_REVISION 300U
#define MAX_REVISION 399U
#define CPU_FREQUENCY 400000000
static const heap_region_t HEAP[] = {{0x4FF53000, 0x59000, "RAM"}};
#else
#error "no row of start-up lines for this chip"
#endif

#ifndef CPU_FREQUENCY
#define CPU_FREQUENCY 160000000
#endif

static void print_application(void)
{
    const esp_app_desc_t *app = esp_app_get_description();
    char sha256[CONFIG_APP_RETRIEVE_LEN_ELF_SHA + 2];
    for (size_t i = 0; i * 2 < sizeof(sha256) - 2; i++) {
        (void)snprintf(sha256 + 2 * i, sizeof(sha256) - 2 * i, "%02x", app->app_elf_sha256[i]);
    }
    sha256[CONFIG_APP_RETRIEVE_LEN_ELF_SHA] = '\0';
    ESP_LOGI("app_init", "Application information:");
    ESP_LOGI("app_init", "Project name:     %s", app->project_name);
    ESP_LOGI("app_init", "App version:      %s", app->version);
#if CONFIG_BOOTLOADER_APP_ANTI_ROLLBACK
    ESP_LOGI("app_init", "Secure version:   %" PRIu32, app->secure_version);
#endif
    ESP_LOGI("app_init", "Compile time:     %s %s", app->date, app->time);
    ESP_LOGI("app_init", "ELF file SHA256:  %s...", sha256);
    ESP_LOGI("app_init", "ESP-IDF:          %s", app->idf_ver);
}

static void print_chip(void)
{
    const unsigned revision = twin_info()->chip_rev_full;
    ESP_LOGI("efuse_init", "Min chip rev:     v%u.%u", MIN_REVISION / 100, MIN_REVISION % 100);
    ESP_LOGI("efuse_init", "Max chip rev:     v%u.%u ", MAX_REVISION / 100, MAX_REVISION % 100);
    ESP_LOGI("efuse_init", "Chip rev:         v%u.%u", revision / 100, revision % 100);
    ESP_LOGI("heap_init", "Initializing. RAM available for dynamic allocation:");
    for (size_t i = 0; i < sizeof(HEAP) / sizeof(HEAP[0]); i++) {
        ESP_LOGI("heap_init", "At %08" PRIX32 " len %08" PRIX32 " (%" PRIu32 " KiB): %s", HEAP[i].address,
                 HEAP[i].size, HEAP[i].size / 1024, HEAP[i].kind);
    }
    ESP_LOGI("spi_flash", "detected chip: gd");
    ESP_LOGI("spi_flash", "flash io: dio");
}

/* One of ESP-IDF's ESP_SYSTEM_INIT_FN functions. */
static void initialise(esp_err_t (*function)(void))
{
    const esp_err_t err = function();
    if (err != ESP_OK) {
        ESP_LOGE("cpu_start", "init function %p has failed (0x%x), aborting", (void *)function,
                 (unsigned)err);
        abort();
    }
}

void startup_print(void)
{
    ESP_LOGI("cpu_start", "%s", CORES);
    ESP_LOGI("cpu_start", "GPIO %s are used as console UART I/O pins", UART_PINS);
    ESP_LOGI("cpu_start", "Pro cpu start user code");
    ESP_LOGI("cpu_start", "cpu freq: %d Hz", CPU_FREQUENCY);
    print_application();
    print_chip();
    initialise(native_efuse_startup);
    initialise(native_security_startup);
#if !CONFIG_IDF_TARGET_ESP32
    ESP_LOGI("sleep_gpio", "Configure to isolate all GPIO pins in sleep state");
    ESP_LOGI("sleep_gpio", "Enable automatic switching of GPIO sleep configuration");
#endif
    ESP_LOGI("main_task", "Started on CPU0");
    ESP_LOGI("main_task", "Calling app_main()");
}

/* The hash of the program is in the image's description; the program itself cannot hold it. */
static void read_elf_sha256(void)
{
    esp_app_desc_t stored;
    const esp_partition_t *running = esp_ota_get_running_partition();
    if (esp_ota_get_partition_description(running, &stored) == ESP_OK) {
        memcpy(native_elf_sha256(), stored.app_elf_sha256, sizeof(stored.app_elf_sha256));
    }
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)esp_timer_get_time();
    twin_connect();
    panic_install();
    read_elf_sha256();
    startup_print();
    app_main();
    ESP_LOGI("main_task", "Returned from app_main()");
    for (;;) {
        pause();
    }
}
