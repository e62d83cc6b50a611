/*
 * Descriptors that the child of a fork does not keep. Manual: _core.pyi.
 *
 * An flock belongs to the open file, which parent and child share. A child that keeps the descriptor keeps the lock for
 * as long as it lives: the next writer would be refused, with an error that names a dead process. Another thread may
 * fork at any moment, so a descriptor is in the list from the call that opens it to the call that closes it.
 */
#include "descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;

static int *kept; /* process-wide, because a fork is */
static size_t count, capacity;

static size_t position(int fd)
{
    size_t at = 0;
    while (at < count && kept[at] != fd)
        at++;
    return at;
}

bool descriptor_keep(int fd)
{
    if (position(fd) < count)
        return true;
    if (count == capacity) {
        size_t wanted = capacity ? 2 * capacity : 8;
        int *grown = realloc(kept, wanted * sizeof(int));
        if (!grown)
            return false;
        kept = grown;
        capacity = wanted;
    }
    kept[count++] = fd;
    return true;
}

void descriptor_close(int fd)
{
    size_t at = position(fd);
    if (at == count)
        return;
    kept[at] = kept[--count];
    close(fd);
}

/* Only close(): it is safe after a fork of a threaded process, free() is not. */
void descriptors_close_in_child(void)
{
    while (count)
        close(kept[--count]);
}

static int open_and_keep(int dir_fd, const char *path, int flags, mode_t mode)
{
    pthread_mutex_lock(&fork_mutex);
    int fd = openat(dir_fd, path, flags | O_CLOEXEC, mode);
    if (fd >= 0 && !descriptor_keep(fd)) {
        close(fd);
        fd = -1;
        errno = ENOMEM;
    }
    pthread_mutex_unlock(&fork_mutex);
    return fd;
}

PyObject *core_open_private(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *path = NULL;
    int dir_fd, flags, mode, fd;
    if (!PyArg_ParseTuple(args, "iO&ii", &dir_fd, PyUnicode_FSConverter, &path, &flags, &mode))
        return NULL;
    do {
        /* Without the GIL: this may wait for the mutex, and the thread that forks holds the GIL. */
        Py_BEGIN_ALLOW_THREADS
        fd = open_and_keep(dir_fd, PyBytes_AsString(path), flags, (mode_t)mode);
        Py_END_ALLOW_THREADS
    } while (fd < 0 && errno == EINTR && !PyErr_CheckSignals());
    if (fd < 0 && !PyErr_Occurred())
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, PyBytes_AsString(path));
    Py_DECREF(path);
    return fd < 0 ? NULL : PyLong_FromLong(fd);
}

PyObject *core_close_private(PyObject *Py_UNUSED(module), PyObject *arg)
{
    int overflow;
    long fd = PyLong_AsLongAndOverflow(arg, &overflow); /* -1 on overflow: no descriptor */
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&fork_mutex);
    descriptor_close((int)fd);
    pthread_mutex_unlock(&fork_mutex);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}
