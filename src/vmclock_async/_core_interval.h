/* TimeInterval, as now() makes it. */
#ifndef VMCLOCK_ASYNC_CORE_INTERVAL_H
#define VMCLOCK_ASYNC_CORE_INTERVAL_H

#include <Python.h>

#include "_reckon.h"

typedef struct {
    PyObject_HEAD
    struct interval bounds;
    struct interval_state *state;
} TimeInterval;

#define KEPT 16

/* Of one module object: its type, and memory of intervals that are gone, for those to come. */
struct interval_state {
    PyTypeObject *type;
    TimeInterval *kept[KEPT];
    int count;
};

extern PyType_Spec interval_spec;

PyObject *interval_make(struct interval_state *state, const struct interval *bounds);
void interval_state_clear(struct interval_state *state);

/* Half the width, rounded up. */
static inline uint64_t interval_error_ns(const struct interval *bounds)
{
    uint64_t width = (uint64_t)bounds->latest_ns - (uint64_t)bounds->earliest_ns;
    return (width >> 1) + (width & 1);
}

#endif
