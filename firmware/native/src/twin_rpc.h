/**
 * The wire to the twin: everything that is silicon on a board. One request at a time over the socket whose
 * number is in the environment variable ESP_TWIN_FD. Little endian.
 *
 *   request  u32 op, u32 arg0, u32 arg1, u32 data_len, data
 *   reply    i32 status, u32 value, u32 data_len, data
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef enum {
    TWIN_FLASH_READ_RAW = 1,
    TWIN_FLASH_READ = 2,
    TWIN_FLASH_WRITE_RAW = 3,
    TWIN_FLASH_WRITE_ENCRYPTED = 4,
    TWIN_FLASH_ERASE = 5,
    TWIN_INFO = 6,
    TWIN_IMAGE_VERIFY = 7, /**< data: one byte, twin_signature_t */
    TWIN_HASH_START = 8,
    TWIN_HASH_UPDATE = 9,
    TWIN_HASH_FINISH = 10,
    TWIN_HASH_ABORT = 11,
    TWIN_VERIFY_HASH = 12,
    TWIN_RESTART = 13,
    TWIN_EFUSE = 14,
    TWIN_EFUSE_READ = 20, /**< of a block as software may read it */
} twin_op_t;

/** First argument of TWIN_RESTART. */
typedef enum {
    TWIN_RESTART_SOFTWARE = 0,
    TWIN_RESTART_PANIC = 1,
    TWIN_RESTART_TASK_WATCHDOG = 2,
} twin_restart_t;

/** The signature that an image must have. */
typedef enum {
    TWIN_SIGNATURE_NONE = 0,
    TWIN_SIGNATURE_OF_CHIP = 1, /**< the scheme that the chip's row names first */
    TWIN_SIGNATURE_RSA_3072 = 2,
    TWIN_SIGNATURE_ECDSA_P192 = 3,
    TWIN_SIGNATURE_ECDSA_P256 = 4,
    TWIN_SIGNATURE_ECDSA_P384 = 5,
} twin_signature_t;

/** First argument of TWIN_EFUSE; the reply's data are the lines that ESP-IDF logs meanwhile. */
typedef enum {
    TWIN_EFUSE_DOWNLOAD_OFF = 1,
    TWIN_EFUSE_SECURE_DOWNLOAD = 2,
    TWIN_EFUSE_RELEASE_MODE = 3,
    TWIN_EFUSE_SECURE_VERSION = 4, /**< second argument: up to which; data: u32 size of the field in bits */
    TWIN_EFUSE_VERIFY_ENCRYPTION = 5, /**< burns nothing; value: whether all is as in release mode */
    TWIN_EFUSE_VERIFY_SECURE_BOOT =
        6, /**< the same; second argument: whether aggressive revocation is wanted */
    TWIN_EFUSE_CHECK_SECURE_BOOT =
        7, /**< mends at the start; second argument: whether unused slots may stay open */
    TWIN_EFUSE_START_UP_WRITE_PROTECT = 8, /**< what an app with secure boot freezes at its start */
    TWIN_EFUSE_SET_BIT = 9,                /**< one bit; second argument: block << 16 | bit */
} twin_efuse_t;

/** Reply to TWIN_INFO. */
typedef struct __attribute__((packed)) {
    uint32_t version; /**< 1 */
    uint32_t chip_id;
    uint32_t flash_size;
    uint32_t boot_offset; /**< of the slot that was loaded */
    uint32_t table_offset;
    uint32_t reset_reason; /**< the ROM's code */
    uint32_t chip_rev_full;
    uint32_t fuse_secure_version;
    uint32_t uptime_ms; /**< since the reset */
    uint8_t mac[6];
    uint8_t fe_enabled;
    uint8_t fe_mode; /**< 0 off, 1 development, 2 release */
    uint8_t sb_enabled;
    uint8_t download; /**< 0 open, 1 secure, 2 off */
    uint8_t release_verified;
    uint8_t restart_hint; /**< twin_restart_t of the restart before; 0 when there was none */
} twin_info_t;

_Static_assert(sizeof(twin_info_t) == 48, "INFO has 48 bytes");

/** Finds the socket and asks for INFO; ends the process when there is no twin. */
void twin_connect(void);

/** What the twin said at the start. */
const twin_info_t *twin_info(void);

/** Asks for INFO anew (eFuses change at run time). */
void twin_refresh_info(void);

/**
 * One request. The reply's data goes to `reply` (at most `reply_capacity` bytes; the rest is dropped), its
 * length to `reply_size` and its value to `value`; each of these may be NULL.
 * @return the reply's status. Ends the process when the twin is gone.
 */
int32_t twin_call(twin_op_t op, uint32_t arg0, uint32_t arg1, const void *data, size_t size, void *reply,
                  size_t reply_capacity, size_t *reply_size, uint32_t *value);

/** Asks for a reset and waits to be killed. */
void twin_restart(twin_restart_t reason) __attribute__((noreturn));

/** As twin_restart(TWIN_RESTART_PANIC), callable from a signal handler. */
void twin_panic(void) __attribute__((noreturn));
