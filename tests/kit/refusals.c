/* System calls that fail as the environment says: FLOCK_ERRNO, FSYNC_ERRNO, INOTIFY_ERRNO, and OPEN_ERRNO for the path
 * REFUSED_PATH. Loaded with LD_PRELOAD. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
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

int open64(const char *path, int flags, ...)
{
    const char *refused_path = getenv("REFUSED_PATH");
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (refused_path && !strcmp(path, refused_path) && refused("OPEN_ERRNO"))
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
