/* The state of one module object: its types, and the Python objects that it was given. */
#ifndef VMCLOCK_ASYNC_CORE_MODULE_H
#define VMCLOCK_ASYNC_CORE_MODULE_H

#include <Python.h>

#include "interval.h"

/* The functions of intervals.py that complete TimeInterval, in the order of set_interval_functions(). */
enum interval_function {
    EARLIEST,
    LATEST,
    MIDPOINT,
    STATUS,
    REPR,
    TEXT,
    ORDER,
    MOMENT,
    AS_DICT,
    SCHEMA,
    JSON_SCHEMA,
    INTERVAL_FUNCTIONS
};

struct module_state {
    PyTypeObject *page_type;
    PyTypeObject *interval_type;
    PyObject *counter_error; /* from set_counter_error(), or NULL */
    PyObject *interval_functions[INTERVAL_FUNCTIONS];
    TimeInterval *spare; /* a freed interval, to be used again, or NULL */
};

/* One freed interval is kept intact, with its reference to the type, so reusing it only resets its reference count:
 * that saves a tenth of a now() whose interval, or the one before, is dropped soon. Free-threaded builds keep none,
 * because two threads may be here at once. Inlined, which saves as much as a call costs. */
static inline PyObject *interval_make(struct module_state *state, const struct interval *bounds)
{
    TimeInterval *self = state->spare;
    if (self) {
        state->spare = NULL;
        Py_SET_REFCNT((PyObject *)self, 1);
    } else {
        self = (TimeInterval *)interval_new_object(state);
        if (!self)
            return NULL;
    }
    self->bounds = *bounds;
    return (PyObject *)self;
}

#endif
