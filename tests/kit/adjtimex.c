/* A clock of the kernel's to play with, at the system calls' boundary: adjtimex(2), CLOCK_REALTIME and CLOCK_TAI,
 * which clock_settime(2) sets as the kernel does: the clock is then unsynchronized (ntp_clear()).
 *
 * Loaded with LD_PRELOAD. What to give is read at each call from the file $ADJTIMEX_STAND_IN, mapped shared, which
 * the test rewrites (adjtimex.py); `sequence` is odd meanwhile. Leap seconds go as in kernel/time/ntp.c and
 * __do_adjtimex(): adjtimex(2) knows of one at once, the clocks from the next tick on, `late_ns` later.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000LL

struct played {
    _Atomic int64_t sequence;
    int64_t refused;          /* errno of adjtimex(2), or 0 */
    int64_t base_ns;          /* CLOCK_REALTIME when CLOCK_MONOTONIC_RAW was raw_base_ns; 0: the real one */
    int64_t raw_base_ns;
    int64_t rate_ppb;         /* CLOCK_REALTIME runs faster than RAW by this */
    int64_t leap_at_ns;       /* CLOCK_REALTIME at which a second is inserted or left out; 0: none is */
    int64_t late_ns;
    int64_t status, offset, freq, maxerror, esterror, tick, tai;
    int64_t set_refused;      /* errno of clock_settime(2), or 0 */
    int64_t sets;             /* how often CLOCK_REALTIME was set */
};

static struct played *file;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("ADJTIMEX_STAND_IN");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED)
        abort();
    close(fd);
    file = mapped;
}

static struct played now_played(void)
{
    struct played copy;
    int64_t before;
    do {
        before = atomic_load(&file->sequence);
        memcpy(&copy, (const void *)file, sizeof copy);
        atomic_thread_fence(memory_order_acquire);
    } while (before & 1 || before != atomic_load(&file->sequence));
    return copy;
}

static int64_t real_ns(clockid_t id)
{
    static int (*real)(clockid_t, struct timespec *);
    struct timespec ts;
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real(id, &ts);
    return ts.tv_sec * NS + ts.tv_nsec;
}

/* CLOCK_REALTIME as it would be without the leap. */
static int64_t unleaped_ns(const struct played *p)
{
    if (!p->base_ns)
        return real_ns(CLOCK_REALTIME);
    int64_t passed = real_ns(CLOCK_MONOTONIC_RAW) - p->raw_base_ns;
    return p->base_ns + passed + (int64_t)((__int128)passed * p->rate_ppb / NS);
}

/* Seconds by which the leap has changed TAI minus UTC at `unleaped`. */
static int leapt(const struct played *p, int64_t unleaped)
{
    if (!p->leap_at_ns || unleaped < p->leap_at_ns)
        return 0;
    return p->status & STA_INS ? 1 : -1;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int64_t ns;
    if (id == CLOCK_REALTIME || id == CLOCK_TAI) {
        struct played p = now_played();
        ns = unleaped_ns(&p);
        if (id == CLOCK_TAI)
            ns += p.tai * NS;
        else
            ns -= leapt(&p, ns - p.late_ns) * NS;
    } else {
        static int (*real)(clockid_t, struct timespec *);
        if (!real)
            real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
        return real(id, ts);
    }
    ts->tv_sec = ns / NS;
    ts->tv_nsec = ns % NS;
    return 0;
}

int clock_settime(clockid_t id, const struct timespec *ts)
{
    struct played p = now_played();
    if (id != CLOCK_REALTIME || p.set_refused) {
        errno = p.set_refused ? (int)p.set_refused : EINVAL;
        return -1;
    }
    atomic_fetch_add(&file->sequence, 1);
    file->raw_base_ns = real_ns(CLOCK_MONOTONIC_RAW);
    file->base_ns = ts->tv_sec * NS + ts->tv_nsec;
    file->status |= STA_UNSYNC;
    file->sets++;
    atomic_fetch_add(&file->sequence, 1);
    return 0;
}

int adjtimex(struct timex *t)
{
    struct played p = now_played();
    int64_t unleaped = unleaped_ns(&p);
    int leap = leapt(&p, unleaped);
    int64_t now = unleaped - leap * NS;
    if (p.refused || t->modes) {
        errno = p.refused ? (int)p.refused : EPERM;
        return -1;
    }
    memset(t, 0, sizeof *t);
    t->status = (int)p.status;
    t->offset = p.offset;
    t->freq = p.freq;
    t->maxerror = p.maxerror;
    t->esterror = p.esterror;
    t->tick = p.tick;
    t->tai = (int)p.tai + leap;
    t->time.tv_sec = now / NS;
    t->time.tv_usec = p.status & STA_NANO ? now % NS : now % NS / 1000;
    if (p.status & (STA_UNSYNC | STA_CLOCKERR))
        return TIME_ERROR;
    if (!p.leap_at_ns)
        return TIME_OK;
    if (!leap)
        return p.status & STA_INS ? TIME_INS : TIME_DEL;
    return leap > 0 && now < p.leap_at_ns ? TIME_OOP : TIME_WAIT;
}
