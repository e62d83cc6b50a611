/* What there is to ask about the counter, beside its value. Manual: _core.pyi. */
#ifndef VMCLOCK_ASYNC_CORE_COUNTER_H
#define VMCLOCK_ASYNC_CORE_COUNTER_H

#include <Python.h>

#include <stdbool.h>

/* Whether this thread may read the counter, asked of the kernel; where it may not, reading it is a SIGSEGV. */
bool counter_readable(void);

PyObject *core_checked_counter(PyObject *module, PyObject *ignored);
PyObject *core_counter(PyObject *module, PyObject *ignored);
PyObject *core_tsc_is_invariant(PyObject *module, PyObject *ignored);

#endif
