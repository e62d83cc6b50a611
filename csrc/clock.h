/* What _core.c makes into Python types and functions of the clock. */
#ifndef VMCLOCK_ASYNC_CORE_CLOCK_H
#define VMCLOCK_ASYNC_CORE_CLOCK_H

#include <Python.h>

extern PyType_Spec clock_spec;

PyObject *core_reckon(PyObject *module, PyObject *args);

#endif
