/* Crashes of the host process, told as the chip's panic handler tells them. */
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "console_output.h"
#include "esp_app_desc.h"
#include "native_app.h"
#include "sdkconfig.h"
#include "twin_rpc.h"

#if CONFIG_IDF_TARGET_ARCH_XTENSA
#define MEMORY_CAUSE "StoreProhibited"
#define OTHER_CAUSE "IllegalInstruction"
#define PLACE_FORMAT "PC      : 0x%08x\n\n\nBacktrace:\n"
#else
#define MEMORY_CAUSE "Store access fault"
#define OTHER_CAUSE "Illegal instruction"
#define PLACE_FORMAT "MEPC    : 0x%08x\n"
#endif

static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
#define SIGNAL_COUNT (sizeof(SIGNALS) / sizeof(SIGNALS[0]))

/* Handlers that were there before: a sanitizer's, in a build that has one. */
static struct sigaction s_before[SIGNAL_COUNT];

/* An access to address 0 in the firmware's own code UndefinedBehaviorSanitizer has seen before the processor
 * has; left is the one that the command `crash` makes, where it does not look. Any other crash of memory is
 * the sanitizer's, if there is one: its report tells more than a panic's. */
static void leave_to_sanitizer(int number, siginfo_t *info, void *context)
{
    const bool is_null = number == SIGSEGV && info->si_code == SEGV_MAPERR && info->si_addr == NULL;
    for (size_t i = 0; !is_null && number != SIGABRT && i < SIGNAL_COUNT; i++) {
        if (SIGNALS[i] == number && (s_before[i].sa_flags & SA_SIGINFO) != 0) {
            s_before[i].sa_sigaction(number, info, context);
        }
    }
}

/* Calls only what is safe in a signal handler, but for snprintf, which allocates nothing for these formats.
 */
static void on_signal(int number, siginfo_t *info, void *context)
{
    leave_to_sanitizer(number, info, context);
    const unsigned place = (unsigned)(uintptr_t)info->si_addr;
    char text[512];
    int length;
    if (number == SIGABRT) {
        const unsigned caller = (unsigned)(uintptr_t)__builtin_return_address(0);
        length = snprintf(text, sizeof(text), "\nabort() was called at PC 0x%08x on core 0\n", caller);
    } else {
        length = snprintf(text, sizeof(text),
                          "Guru Meditation Error: Core  0 panic'ed (%s). Exception was unhandled.\n\n",
                          number == SIGSEGV || number == SIGBUS ? MEMORY_CAUSE : OTHER_CAUSE);
    }
    length += snprintf(text + length, sizeof(text) - (size_t)length, "Core  0 register dump:\n" PLACE_FORMAT,
                       place);
    char sha256[CONFIG_APP_RETRIEVE_LEN_ELF_SHA + 2];
    const uint8_t *hash = esp_app_get_description()->app_elf_sha256;
    for (size_t i = 0; i * 2 < sizeof(sha256) - 2; i++) {
        (void)snprintf(sha256 + 2 * i, sizeof(sha256) - 2 * i, "%02x", hash[i]);
    }
    sha256[CONFIG_APP_RETRIEVE_LEN_ELF_SHA] = '\0';
    length += snprintf(text + length, sizeof(text) - (size_t)length,
                       "\n\nELF file SHA256: %s\n\nRebooting...\n", sha256);
    console_write(text, (size_t)length);
    twin_panic();
}

void panic_install(void)
{
    /* A stack of its own: a crash may have been the stack's end. */
    static uint8_t s_stack[65536];
    stack_t stack;
    memset(&stack, 0, sizeof(stack));
    stack.ss_sp = s_stack;
    stack.ss_size = sizeof(s_stack);
    (void)sigaltstack(&stack, NULL);
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND;
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        (void)sigaction(SIGNALS[i], &action, &s_before[i]);
    }
}
