#include "uart_source.h"

#include <inttypes.h>
#include <string.h>

#include "esp_log.h"
#include "events.h"
#include "freertos/FreeRTOS.h"
#include "freertos/queue.h"
#include "freertos/semphr.h"
#include "raw_ota.h"
#include "sdkconfig.h"

static const char *TAG = "uart_source";

/* Bytes that are asked for at once: what raw_ota writes to flash at once. */
#define WINDOW_SIZE 4096u

/* `data id=4294967295 at=4294967295 b64=` before the bytes of a line, ` crc=00000000` after them. */
#define FRAME_SIZE 50u

/* Bytes that fit a line as base64. */
#define PIECE_SIZE ((CONFIG_COMPANION_LINE_SIZE - 1 - FRAME_SIZE) / 4 * 3 / 16 * 16)

_Static_assert(PIECE_SIZE >= 16, "COMPANION_LINE_SIZE leaves no room for data");

/* Once lines have begun to come, a pause of this length is the end of them. */
#define PAUSE_MS (CONFIG_COMPANION_UART_TIMEOUT_MS / 4)

/* Pieces of a window, each a line's worth; the last one may be shorter. */
#define PIECE_COUNT ((WINDOW_SIZE + PIECE_SIZE - 1) / PIECE_SIZE)

/* The window that is being filled. What has come stays; only gaps are asked for again. */
static struct {
    bool open;
    uint32_t id;
    uint8_t *buffer;
    uint32_t start; /* offset in the transfer of buffer[0] */
    uint32_t size;
    bool has[PIECE_COUNT];
    uint32_t asked_end; /* end, as an offset in the window, of what was asked for last */
    uint32_t received;  /* bytes */
    bool settled;       /* the last line of what was asked for has come */
    bool given_up;
} s_window;

static StaticSemaphore_t s_mutex_memory;
static SemaphoreHandle_t s_mutex; /* guards s_window */
static uint8_t s_signal_memory[1];
static StaticQueue_t s_signal_state;
static QueueHandle_t s_signals; /* a line has come */

esp_err_t uart_source_start(void)
{
    s_mutex = xSemaphoreCreateMutexStatic(&s_mutex_memory);
    s_signals = xQueueCreateStatic(1, sizeof(s_signal_memory[0]), s_signal_memory, &s_signal_state);
    return s_mutex != NULL && s_signals != NULL ? ESP_OK : ESP_ERR_NO_MEM;
}

static int base64_digit(char c)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c != '\0' ? strchr(DIGITS, c) : NULL;
    return found != NULL ? (int)(found - DIGITS) : -1;
}

/* Decodes padded base64. @return number of bytes; 0 when it is none, or more than `capacity`. */
static size_t base64_decode(const char *text, uint8_t *bytes, size_t capacity)
{
    const size_t length = strlen(text);
    size_t padding = 0;
    while (padding < 2 && padding < length && text[length - 1 - padding] == '=') {
        padding++;
    }
    if (length == 0 || length % 4 != 0 || length / 4 * 3 - padding > capacity) {
        return 0;
    }
    uint32_t bits = 0;
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        const int digit = i < length - padding ? base64_digit(text[i]) : 0;
        if (digit < 0) {
            return 0;
        }
        bits = (bits << 6) | (uint32_t)digit;
        for (size_t byte = 0; i % 4 == 3 && byte < 3 && count < length / 4 * 3 - padding; byte++) {
            bytes[count++] = (uint8_t)(bits >> (16 - 8 * byte));
        }
    }
    return count;
}

static uint32_t piece_size(uint32_t piece)
{
    const uint32_t left = s_window.size - piece * PIECE_SIZE;
    return left < PIECE_SIZE ? left : PIECE_SIZE;
}

/* Takes an intact line of this transfer; the lock is held. */
static void fill(const command_line_t *line)
{
    if (command_line_flag(line, "end")) {
        s_window.given_up = true;
        return;
    }
    uint32_t at = 0;
    const char *text = command_line_get(line, "b64");
    if (text == NULL || !command_line_number(line, "at", UINT32_MAX, &at) || at < s_window.start ||
        at - s_window.start >= s_window.size || (at - s_window.start) % PIECE_SIZE != 0) {
        return; /* answers an earlier question */
    }
    at -= s_window.start;
    const uint32_t piece = at / PIECE_SIZE;
    if (!s_window.has[piece] &&
        base64_decode(text, s_window.buffer + at, piece_size(piece)) == piece_size(piece)) {
        s_window.has[piece] = true;
        s_window.received += piece_size(piece);
    }
    s_window.settled = at + piece_size(piece) >= s_window.asked_end || s_window.received == s_window.size;
}

void uart_source_take(const command_line_t *line, bool intact)
{
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    /* Nothing in a damaged line can be trusted, but it shows that the host is there. */
    const bool ours = s_window.open && (!intact || line->id == s_window.id);
    if (ours && intact) {
        fill(line);
    }
    (void)xSemaphoreGive(s_mutex);
    if (ours) {
        const uint8_t signal = 0;
        (void)xQueueSend(s_signals, &signal, 0); /* full: the other side has not looked yet, and will */
    } else {
        ESP_LOGW(TAG, "ignored data that nobody waits for");
    }
}

/* Asks for the first gap. @return false when there is none: the last line may have come late. */
static bool ask(uart_source_t *source)
{
    uint8_t stale;
    (void)xQueueReceive(s_signals, &stale, 0);
    event_t event;
    event_start(&event, "want");
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    uint32_t at = 0;
    while (at < s_window.size && s_window.has[at / PIECE_SIZE]) {
        at += piece_size(at / PIECE_SIZE);
    }
    uint32_t end = at;
    while (end < s_window.size && !s_window.has[end / PIECE_SIZE]) {
        end += piece_size(end / PIECE_SIZE);
    }
    s_window.asked_end = end;
    s_window.settled = false;
    (void)xSemaphoreGive(s_mutex);
    if (at == end) {
        return false;
    }
    source->missing = source->position + at;
    event_add_number(&event, "id", source->id);
    event_add_number(&event, "at", source->missing);
    event_add_number(&event, "len", end - at);
    event_add_number(&event, "piece", PIECE_SIZE);
    event_send(&event);
    return true;
}

/* Waits for lines until the last one has come, or none comes any more. */
static void listen(void)
{
    TickType_t patience = pdMS_TO_TICKS(CONFIG_COMPANION_UART_TIMEOUT_MS);
    uint8_t signal;
    bool over = false;
    while (!over && xQueueReceive(s_signals, &signal, patience) == pdTRUE) {
        (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
        over = s_window.settled || s_window.given_up;
        (void)xSemaphoreGive(s_mutex);
        patience = pdMS_TO_TICKS(PAUSE_MS);
    }
}

static uint32_t received(void)
{
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    const uint32_t bytes = s_window.received;
    (void)xSemaphoreGive(s_mutex);
    return bytes;
}

static bool given_up(void)
{
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    const bool answer = s_window.given_up;
    (void)xSemaphoreGive(s_mutex);
    return answer;
}

/* Fills the open window of `length` bytes. @return false when the host gave up or does not answer. */
static bool receive(uart_source_t *source, uint32_t length)
{
    uint32_t before = 0;
    int in_vain = 0;
    while (in_vain < CONFIG_COMPANION_UART_ATTEMPTS) {
        if (!ask(source)) {
            return true;
        }
        listen();
        const uint32_t now = received();
        if (now == length || given_up()) {
            return now == length;
        }
        source->repeats++;
        ESP_LOGW(TAG, "not everything from byte %" PRIu32 " on has come, asking again", source->missing);
        in_vain = now > before ? 0 : in_vain + 1;
        before = now;
    }
    source->timed_out = true;
    return false;
}

int uart_source_read(void *context, uint8_t *buffer, size_t capacity)
{
    uart_source_t *source = context;
    uint32_t length = source->size - source->position;
    length = length < WINDOW_SIZE ? length : WINDOW_SIZE;
    length = length < capacity ? length : (uint32_t)capacity;
    if (length == 0) {
        return 0;
    }
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    memset(&s_window, 0, sizeof(s_window));
    s_window.open = true;
    s_window.id = source->id;
    s_window.buffer = buffer;
    s_window.start = source->position;
    s_window.size = length;
    (void)xSemaphoreGive(s_mutex);
    const bool full = receive(source, length);
    /* From here on no line can write to the buffer. */
    (void)xSemaphoreTake(s_mutex, portMAX_DELAY);
    s_window.open = false;
    (void)xSemaphoreGive(s_mutex);
    if (!full) {
        return source->timed_out ? -(int)RAW_OTA_SOURCE : 0;
    }
    source->position += length;
    return (int)length;
}
