/* Answers of an HTTP server: the native client's parser by itself, then raw_ota_update_from_url() (or the
 * stock handler) over it.
 *
 * Input: 8 bytes that decide how (below), then what the server's connections say (memory_tcp.h). */
#include <string.h>

#include "http_response.h"
#include "memory_tcp.h"
#include "rule.h"
#include "sha256.h"
#include "stock_ota.h"
#include "update_rules.h"

enum {
    FLAG_STOCK = 1 << 0,
    FLAG_PROBE = 1 << 1,
    FLAG_BARE = 1 << 2,
};

/* Everything that a parser has told, as one hash. */
typedef struct {
    sha256_t told;
    uint64_t body; /* bytes */
} listener_t;

static void tell(listener_t *listener, const char *bytes, size_t size)
{
    sha256_update(&listener->told, (const uint8_t *)bytes, size);
}

static void on_header(void *context, char *key, char *value)
{
    tell(context, key, strlen(key) + 1);
    tell(context, value, strlen(value) + 1);
}

static void on_headers_complete(void *context)
{
    tell(context, "\n", 1);
}

static void on_body(void *context, const char *bytes, size_t size)
{
    listener_t *listener = context;
    RULE(size > 0, "an empty piece of a body");
    listener->body += size;
    tell(listener, bytes, size);
}

static void parse(const uint8_t *data, size_t size, size_t piece, uint8_t digest[32],
                  http_response_t *response)
{
    static const http_response_calls_t CALLS = {
        .on_header = on_header, .on_headers_complete = on_headers_complete, .on_body = on_body};
    listener_t listener = {.body = 0};
    sha256_start(&listener.told);
    http_response_start(response, &CALLS, &listener);
    for (size_t at = 0; at < size; at += piece) {
        http_response_feed(response, (const char *)data + at, piece < size - at ? piece : size - at);
    }
    http_response_end(response);
    RULE(response->line_length < HTTP_LINE_SIZE, "a line of %zu bytes", response->line_length);
    RULE(response->chunked || response->content_length < 0 ||
             listener.body <= (uint64_t)response->content_length,
         "a body of %llu bytes of %lld", (unsigned long long)listener.body,
         (long long)response->content_length);
    tell(&listener, (const char *)&response->state, sizeof(response->state));
    tell(&listener, (const char *)&response->status_code, sizeof(response->status_code));
    sha256_finish(&listener.told, digest);
}

/* In pieces of any size an answer is the same answer. */
static void judge_parser(const uint8_t *data, size_t size)
{
    static http_response_t s_response;
    uint8_t whole[32];
    uint8_t pieces[32];
    if (size == 0) {
        return;
    }
    parse(data, size, size, whole, &s_response);
    for (size_t piece = 1; piece <= 64; piece *= 8) {
        parse(data, size, piece, pieces, &s_response);
        RULE(memcmp(whole, pieces, sizeof(whole)) == 0, "in pieces of %zu it is another answer", piece);
    }
}

/* The first thing that the server says. */
static void parse_first(input_t input)
{
    if (take_u8(&input) % 8 > 3) {
        const size_t size = take_u16(&input);
        judge_parser(input.at, size < input.left ? size : input.left);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input_t input = {data, size};
    const unsigned flags = take_u8(&input);
    const chip_facts_t facts = {
        .otadata_kinds = take_u8(&input),
        .otadata_sequences = take_u8(&input),
        .otadata_states = take_u8(&input),
        .signature_answer = take_u8(&input),
    };
    raw_ota_options_t options = RAW_OTA_OPTIONS_DEFAULT();
    options.resumes = take_u8(&input) % 5 - 1;
    options.bare_size = take_u16(&input);
    options.bare = (flags & FLAG_BARE) != 0;
    options.on_progress = update_progress;
    parse_first(input);
    const bool raw = (flags & (FLAG_STOCK | FLAG_PROBE)) == 0;
    const chip_rules_t rules = {.unsigned_changes = !raw || options.bare, .slot_by_cipher = !raw};
    chip_reset(&facts, &rules);
    tcp_serve(input.at, input.left);
    update_begins();
    if (raw) {
        raw_ota_result_t result;
        memset(&result, 0xA5, sizeof(result));
        const raw_ota_err_t err =
            raw_ota_update_from_url("http://server:8070/path?token=1", &options, &result);
        update_ends(err, &result, options.bare);
        return 0;
    }
    stock_ota_result_t result;
    if ((flags & FLAG_PROBE) != 0) {
        (void)stock_ota_probe("http://server/", &result);
        RULE(chip_record()->slot_changes + chip_record()->otadata_changes == 0, "a look has changed flash");
    } else {
        (void)stock_ota_update("http://server/", &result);
    }
    nothing_is_held();
    return 0;
}
