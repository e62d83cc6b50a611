/*
 * Watching files by inotify: three functions of the C library, which is loaded already. A library in Python has to
 * find the C library by name first: ctypes runs other programs for that, and these need a writable temporary directory.
 *
 * No call waits, so the GIL is held: no thread that needs the GIL can close unwatch()'s descriptor meanwhile.
 */
#include "inotify.h"

#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

/* IN_ATTRIB: futimens() after a commit, or a change of the link count by unlink() or a rename over the path.
 * IN_MODIFY: the write() of a writer that may no longer set times (waker.c). A store through a mapping raises
 * neither. */
#define EVENTS (IN_ATTRIB | IN_MODIFY | IN_DELETE_SELF | IN_MOVE_SELF)

PyObject *core_inotify_watch(PyObject *Py_UNUSED(module), PyObject *file)
{
    char path[32];
    int fd = PyObject_AsFileDescriptor(file);
    if (fd < 0)
        return NULL;
    int instance = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (instance < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "inotify_init1");
    /* By descriptor, because the path may lead to another file by now. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int watch = inotify_add_watch(instance, path, EVENTS);
    if (watch < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "inotify_add_watch");
        close(instance);
        return NULL;
    }
    return Py_BuildValue("(ii)", instance, watch);
}

/* What may bring a file about: in a directory, a new name; of a file, whatever inotify_watch() looks for. */
#define ARRIVALS (IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

PyObject *core_inotify_watch_path(PyObject *Py_UNUSED(module), PyObject *args)
{
    int instance;
    PyObject *path;
    if (!PyArg_ParseTuple(args, "iO&", &instance, PyUnicode_FSConverter, &path))
        return NULL;
    int watch = inotify_add_watch(instance, PyBytes_AsString(path), ARRIVALS);
    if (watch < 0 && errno == ENOTDIR)
        watch = inotify_add_watch(instance, PyBytes_AsString(path), EVENTS);
    Py_DECREF(path);
    if (watch < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "inotify_add_watch");
    return PyLong_FromLong(watch);
}

PyObject *core_inotify_open(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    int instance = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (instance < 0)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "inotify_init1");
    return PyLong_FromLong(instance);
}

PyObject *core_inotify_unwatch(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *file;
    int watch;
    if (!PyArg_ParseTuple(args, "Oi", &file, &watch))
        return NULL;
    int instance = PyObject_AsFileDescriptor(file);
    if (instance < 0)
        return NULL;
    if (inotify_rm_watch(instance, watch))
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "inotify_rm_watch");
    Py_RETURN_NONE;
}
