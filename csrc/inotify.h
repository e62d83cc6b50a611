/* Watching one file by inotify. inotify.c says how, and why no library does it. */
#ifndef VMCLOCK_ASYNC_CORE_INOTIFY_H
#define VMCLOCK_ASYNC_CORE_INOTIFY_H

#include <Python.h>

PyObject *core_inotify_watch(PyObject *module, PyObject *fd);
PyObject *core_inotify_unwatch(PyObject *module, PyObject *args);

#endif
