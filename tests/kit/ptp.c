/* A PTP clock behind the system calls: every descriptor is one, an hour ahead of CLOCK_REALTIME.
 *
 * Loaded with LD_PRELOAD. $PTP_STAND_IN names the calls that are answered, each by a letter: p, e, g; the others are
 * refused as a kernel does that cannot. Structures and numbers are those of the kernel's header. */
#include <dlfcn.h>
#include <errno.h>
#include <linux/ptp_clock.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#define AHEAD_S 3600

static int answers(char call)
{
    const char *calls = getenv("PTP_STAND_IN");
    return calls && strchr(calls, call);
}

static int real_gettime(clockid_t id, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, ts);
}

static struct ptp_clock_time read_clock(clockid_t id, int ahead_s)
{
    struct timespec ts;
    real_gettime(id, &ts);
    return (struct ptp_clock_time){.sec = ts.tv_sec + ahead_s, .nsec = (__u32)ts.tv_nsec};
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    if (id >= 0 || (id & 7) != 3)
        return real_gettime(id, ts);
    if (!answers('g')) {
        errno = EOPNOTSUPP;
        return -1;
    }
    real_gettime(CLOCK_REALTIME, ts);
    ts->tv_sec += AHEAD_S;
    return 0;
}

static long long ns_of(struct ptp_clock_time t) { return t.sec * 1000000000LL + t.nsec; }

/* As good as one instant: both are read again until nothing came in between. */
static int sys_offset_precise(struct ptp_sys_offset_precise *precise)
{
    struct ptp_clock_time before;
    memset(precise, 0, sizeof *precise);
    do {
        before = read_clock(CLOCK_MONOTONIC_RAW, 0);
        precise->device = read_clock(CLOCK_REALTIME, AHEAD_S);
        precise->sys_monoraw = read_clock(CLOCK_MONOTONIC_RAW, 0);
    } while (ns_of(precise->sys_monoraw) - ns_of(before) > 20000);
    return 0;
}

static int sys_offset_extended(struct ptp_sys_offset_extended *extended)
{
    clockid_t id = (clockid_t)extended->rsv[0]; /* clockid since Linux 6.12 */
    for (unsigned int i = 0; i < extended->n_samples && i < PTP_MAX_SAMPLES; i++) {
        extended->ts[i][0] = read_clock(id, 0);
        extended->ts[i][1] = read_clock(CLOCK_REALTIME, AHEAD_S);
        extended->ts[i][2] = read_clock(id, 0);
    }
    return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == PTP_SYS_OFFSET_PRECISE && answers('p'))
        return sys_offset_precise(argument);
    if (request == PTP_SYS_OFFSET_EXTENDED && answers('e'))
        return sys_offset_extended(argument);
    if (request == PTP_SYS_OFFSET_PRECISE || request == PTP_SYS_OFFSET_EXTENDED) {
        errno = request == PTP_SYS_OFFSET_PRECISE ? EOPNOTSUPP : EINVAL;
        return -1;
    }
    static int (*real)(int, unsigned long, void *);
    if (!real)
        real = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    return real(fd, request, argument);
}
