/* Commits to a ClockBound segment. */
#ifndef VMCLOCK_ASYNC_CORE_CLOCKBOUND_H
#define VMCLOCK_ASYNC_CORE_CLOCKBOUND_H

#include <Python.h>

PyObject *core_clockbound_commit(PyObject *module, PyObject *args);

#endif
