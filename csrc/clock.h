/* The type of clock.c that module.c registers. */
#ifndef VMCLOCK_ASYNC_CORE_CLOCK_H
#define VMCLOCK_ASYNC_CORE_CLOCK_H

#include <Python.h>

extern PyType_Spec clock_spec;

#endif
