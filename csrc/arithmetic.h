/* The functions of arithmetic.c that module.c registers. */
#ifndef VMCLOCK_ASYNC_CORE_ARITHMETIC_H
#define VMCLOCK_ASYNC_CORE_ARITHMETIC_H

#include <Python.h>

PyObject *core_reckon(PyObject *module, PyObject *args);
PyObject *core_bounds(PyObject *module, PyObject *const *args, Py_ssize_t count);

#endif
