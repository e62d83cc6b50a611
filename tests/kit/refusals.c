/* System calls that fail as the environment says: FLOCK_ERRNO, FSYNC_ERRNO, INOTIFY_ERRNO. Loaded with LD_PRELOAD. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int refused(const char *name)
{
    const char *number = getenv(name);
    if (number)
        errno = atoi(number);
    return number ? -1 : 0;
}

int flock(int fd, int operation) { return refused("FLOCK_ERRNO") ? -1 : (int)syscall(SYS_flock, fd, operation); }

int fsync(int fd) { return refused("FSYNC_ERRNO") ? -1 : (int)syscall(SYS_fsync, fd); }

int inotify_init1(int flags) { return refused("INOTIFY_ERRNO") ? -1 : (int)syscall(SYS_inotify_init1, flags); }
