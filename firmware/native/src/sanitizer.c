/* What AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer are to do, in a build that has them.
 * Compiled in, since the twin gives its program a clean environment. In any other build nobody calls these.
 */

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__tsan_default_options(void);

/* Leaks are not looked for here: the program never ends by itself, and what a static points to is no leak.
 * The fuzz targets do look. Crashes that no check has caught belong to the panic handler (panic.c), which
 * hands on what is none of the firmware's own. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0:detect_stack_use_after_return=1:strict_string_checks=1:allow_user_segv_handler=1:"
           "handle_abort=0:print_legend=0";
}

const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1";
}

const char *__tsan_default_options(void)
{
    return "halt_on_error=0";
}
