#include <stdarg.h>
#include <stdio.h>

#include "esp_err.h"
#include "esp_log.h"
#include "esp_ota_ops.h"
#include "raw_ota_internal.h"

static const char *TAG = "raw_ota";

static const char *const ERROR_NAMES[RAW_OTA_ERR_COUNT] = {
    [RAW_OTA_OK] = "ok",
    [RAW_OTA_BAD_MAGIC] = "bad-magic",
    [RAW_OTA_BAD_HEADER_VERSION] = "bad-header-version",
    [RAW_OTA_BAD_HEADER_SIZE] = "bad-header-size",
    [RAW_OTA_BAD_SIGNATURE] = "bad-signature",
    [RAW_OTA_NO_SIGNATURE_KEY] = "no-signature-key",
    [RAW_OTA_WRONG_CHIP] = "wrong-chip",
    [RAW_OTA_WRONG_DEVICE] = "wrong-device",
    [RAW_OTA_WRONG_SLOT] = "wrong-slot",
    [RAW_OTA_WRONG_CIPHER] = "wrong-cipher",
    [RAW_OTA_WRONG_SIZE] = "wrong-size",
    [RAW_OTA_WRONG_VERSION] = "wrong-version",
    [RAW_OTA_SECURE_VERSION_TOO_OLD] = "secure-version-too-old",
    [RAW_OTA_BARE_NOT_ALLOWED] = "bare-not-allowed",
    [RAW_OTA_BUSY] = "busy",
    [RAW_OTA_PENDING_VERIFY] = "pending-verify",
    [RAW_OTA_RUNNING_SLOT] = "running-slot",
    [RAW_OTA_NO_SLOT] = "no-slot",
    [RAW_OTA_NOT_ERASED] = "not-erased",
    [RAW_OTA_PLAINTEXT_IMAGE] = "plaintext-image",
    [RAW_OTA_NOT_DECIPHERED] = "not-deciphered",
    [RAW_OTA_WRONG_DESCRIPTION] = "wrong-description",
    [RAW_OTA_TRUNCATED] = "truncated",
    [RAW_OTA_BODY_HASH] = "body-hash",
    [RAW_OTA_READBACK_MISMATCH] = "readback-mismatch",
    [RAW_OTA_IMAGE_HASH] = "image-hash",
    [RAW_OTA_IMAGE_INVALID] = "image-invalid",
    [RAW_OTA_HTTP_CONNECT] = "http-connect",
    [RAW_OTA_HTTP_STATUS] = "http-status",
    [RAW_OTA_HTTP_TIMEOUT] = "http-timeout",
    [RAW_OTA_HTTP_READ] = "http-read",
    [RAW_OTA_HTTP_ENCODING] = "http-encoding",
    [RAW_OTA_CHANGED] = "changed",
    [RAW_OTA_SOURCE] = "source",
    [RAW_OTA_TOO_LARGE] = "too-large",
    [RAW_OTA_FLASH] = "flash",
    [RAW_OTA_NO_MEMORY] = "no-memory",
};

static const char *const PHASE_NAMES[] = {
    [RAW_OTA_PHASE_HEADER] = "header",
    [RAW_OTA_PHASE_BEGIN] = "begin",
    [RAW_OTA_PHASE_ERASE] = "erase",
    [RAW_OTA_PHASE_ERASED] = "erased",
    [RAW_OTA_PHASE_FIRST_SECTOR] = "first-sector",
    [RAW_OTA_PHASE_WRITE] = "write",
    [RAW_OTA_PHASE_VERIFY] = "verify",
    [RAW_OTA_PHASE_SWITCH] = "switch",
};

const char *raw_ota_err_name(raw_ota_err_t error)
{
    if ((unsigned)error >= RAW_OTA_ERR_COUNT || ERROR_NAMES[error] == NULL) {
        return "unknown";
    }
    return ERROR_NAMES[error];
}

const char *raw_ota_phase_name(raw_ota_phase_t phase)
{
    return (unsigned)phase <= RAW_OTA_PHASE_SWITCH ? PHASE_NAMES[phase] : "unknown";
}

raw_ota_err_t raw_ota_err_from_esp(esp_err_t code)
{
    switch (code) {
    case ESP_OK:
        return RAW_OTA_OK;
    case ESP_ERR_NO_MEM:
        return RAW_OTA_NO_MEMORY;
#ifdef ESP_ERR_OTA_ALREADY_IN_PROGRESS /* from v6.1: somebody writes this slot without raw_ota_lock() */
    case ESP_ERR_OTA_ALREADY_IN_PROGRESS:
        return RAW_OTA_BUSY;
#endif
    case ESP_ERR_OTA_PARTITION_CONFLICT:
        return RAW_OTA_RUNNING_SLOT;
    case ESP_ERR_OTA_VALIDATE_FAILED:
        return RAW_OTA_IMAGE_INVALID;
    case ESP_ERR_OTA_SMALL_SEC_VER:
        return RAW_OTA_SECURE_VERSION_TOO_OLD;
    case ESP_ERR_OTA_ROLLBACK_INVALID_STATE:
        return RAW_OTA_PENDING_VERIFY;
    default:
        return RAW_OTA_FLASH;
    }
}

raw_ota_err_t raw_ota_fail(raw_ota_result_t *result, raw_ota_err_t error, esp_err_t code, const char *format,
                           ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(result->message, sizeof(result->message), format, arguments);
    va_end(arguments);
    result->error = error;
    result->code = code;
    if (code == ESP_OK) {
        ESP_LOGE(TAG, "%s: %s", raw_ota_err_name(error), result->message);
    } else {
        ESP_LOGE(TAG, "%s: %s (0x%x)", raw_ota_err_name(error), result->message, (unsigned)code);
    }
    return error;
}

raw_ota_err_t raw_ota_fail_esp(raw_ota_result_t *result, esp_err_t code, const char *what)
{
    return raw_ota_fail(result, raw_ota_err_from_esp(code), code, "%s = %s", what, esp_err_to_name(code));
}
