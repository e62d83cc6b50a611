/* Whether an earlier read of two pages still holds. */
#ifndef VMCLOCK_ASYNC_CORE_WITNESS_H
#define VMCLOCK_ASYNC_CORE_WITNESS_H

#include <Python.h>

PyObject *core_unchanged(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
