/* Questions about the counter, beside its value. Manual: _core.pyi. */
#ifndef VMCLOCK_ASYNC_CORE_COUNTER_H
#define VMCLOCK_ASYNC_CORE_COUNTER_H

#include <Python.h>

struct module_state;

/* Asks the kernel whether this thread may read the counter, because a forbidden read raises SIGSEGV. Returns 0, or -1
 * with the error of set_counter_error() set. */
int counter_require_readable(struct module_state *state);

PyObject *core_set_counter_error(PyObject *module, PyObject *type);

PyObject *core_checked_counter(PyObject *module, PyObject *ignored);
PyObject *core_counter(PyObject *module, PyObject *ignored);
PyObject *core_clocks(PyObject *module, PyObject *ignored);
PyObject *core_tsc_is_invariant(PyObject *module, PyObject *ignored);

#endif
