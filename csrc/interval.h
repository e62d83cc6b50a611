/* TimeInterval, as now() makes it. */
#ifndef VMCLOCK_ASYNC_CORE_INTERVAL_H
#define VMCLOCK_ASYNC_CORE_INTERVAL_H

#include <Python.h>

#include "reckon.h"

struct module_state;

typedef struct {
    PyObject_HEAD
    struct interval bounds;
    struct module_state *state; /* lives as long as the type, and so longer than the interval */
} TimeInterval;

extern PyType_Spec interval_spec;

PyObject *interval_new_object(struct module_state *state);
void interval_release_spare(struct module_state *state);
PyObject *core_set_interval_functions(PyObject *module, PyObject *functions);

/* Half the width, rounded up. */
static inline uint64_t interval_error_ns(const struct interval *bounds)
{
    uint64_t width = (uint64_t)bounds->latest_ns - (uint64_t)bounds->earliest_ns;
    return width - (width >> 1);
}

#endif
