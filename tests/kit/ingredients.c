/* What the C library has of a draw's ingredients, as the environment says. Loaded with LD_PRELOAD.
 *
 * PLAYED_RANDOM is the byte that the kernel's random source gives for ever, PLAYED_REALTIME_S the time of
 * CLOCK_REALTIME, PLAYED_PID the process; one that is not set stays the machine's.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t getrandom(void *bytes, size_t size, unsigned flags)
{
    const char *byte = getenv("PLAYED_RANDOM");
    if (!byte)
        return NEXT(syscall)(SYS_getrandom, bytes, size, flags);
    memset(bytes, atoi(byte), size);
    return (ssize_t)size;
}

/* A Python that was built for an older C library calls getrandom(2) by its number. */
long syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_getrandom && getenv("PLAYED_RANDOM"))
        return getrandom((void *)a[0], (size_t)a[1], (unsigned)a[2]);
    return NEXT(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    const char *seconds = getenv("PLAYED_REALTIME_S");
    if (!seconds || id != CLOCK_REALTIME)
        return NEXT(clock_gettime)(id, ts);
    *ts = (struct timespec){.tv_sec = atol(seconds)};
    return 0;
}

pid_t getpid(void)
{
    const char *pid = getenv("PLAYED_PID");
    return pid ? atoi(pid) : NEXT(getpid)();
}
