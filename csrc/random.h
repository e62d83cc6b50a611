/* Random bytes of the processor's own. Manual: _core.pyi. */
#ifndef VMCLOCK_ASYNC_CORE_RANDOM_H
#define VMCLOCK_ASYNC_CORE_RANDOM_H

#include <Python.h>

PyObject *core_processor_random(PyObject *module, PyObject *ignored);

#endif
