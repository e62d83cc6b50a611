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

#endif
