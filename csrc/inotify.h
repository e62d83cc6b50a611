/* Watching files by inotify. inotify.c says how, and why no library does it. */
#ifndef VMCLOCK_ASYNC_CORE_INOTIFY_H
#define VMCLOCK_ASYNC_CORE_INOTIFY_H

#include <Python.h>

PyObject *core_inotify_watch(PyObject *module, PyObject *fd);
PyObject *core_inotify_watch_path(PyObject *module, PyObject *args);
PyObject *core_inotify_open(PyObject *module, PyObject *ignored);
PyObject *core_inotify_unwatch(PyObject *module, PyObject *args);

#endif
