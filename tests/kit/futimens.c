/* futimens(2) that can be held up, and can fail, once or always. Loaded with LD_PRELOAD; the test plays it by ctypes. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

atomic_int refused_errno, refused_always_errno, held_us, held_after_us;
atomic_int calls;
atomic_int last_thread;

int futimens(int fd, const struct timespec times[2])
{
    atomic_fetch_add(&calls, 1);
    atomic_store(&last_thread, (int)syscall(SYS_gettid));
    usleep((useconds_t)atomic_load(&held_us));
    int refused = atomic_exchange(&refused_errno, 0);
    if (!refused)
        refused = atomic_load(&refused_always_errno);
    if (refused) {
        errno = refused;
        return -1;
    }
    int result = (int)syscall(SYS_utimensat, fd, NULL, times, 0);
    usleep((useconds_t)atomic_load(&held_after_us));
    return result;
}
