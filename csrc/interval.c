/*
 * TimeInterval: two times and a status. Manual: _core.pyi.
 *
 * This file holds the parts that make now() quick, and those that are one line of C. The rest (datetimes, enums,
 * pydantic) calls functions of intervals.py, which hands them over by set_interval_functions().
 */
#include "module.h"

#include <structmember.h>

static void interval_free(TimeInterval *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_Free(self);
    Py_DECREF(type);
}

PyObject *interval_new_object(struct module_state *state)
{
    if (!state->interval_type) {
        PyErr_SetString(PyExc_RuntimeError, "the module of TimeInterval is gone");
        return NULL;
    }
    TimeInterval *self = PyObject_New(TimeInterval, state->interval_type);
    if (self)
        self->state = state;
    return (PyObject *)self;
}

static void interval_dealloc(TimeInterval *self)
{
#ifndef Py_GIL_DISABLED
    struct module_state *state = self->state;
    if (state->interval_type && !state->spare) {
        state->spare = self;
        return;
    }
#endif
    interval_free(self);
}

void interval_release_spare(struct module_state *state)
{
    PyTypeObject *type = state->interval_type;
    state->interval_type = NULL; /* nothing is kept from now on */
    if (state->spare)
        interval_free(state->spare);
    state->spare = NULL;
    Py_XDECREF((PyObject *)type);
}

/* The integer `value` of the argument `name`; false with an exception set. */
static bool integer_of(PyObject *value, const char *name, long long *result)
{
    if (PyBool_Check(value) || !PyIndex_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be an integer, not %R", name, value);
        return false;
    }
    PyObject *index = PyNumber_Index(value);
    if (!index)
        return false;
    int overflow;
    *result = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow)
        PyErr_Format(PyExc_OverflowError, "%s must be a 64-bit integer, not %R", name, value);
    return !PyErr_Occurred();
}

static PyObject *interval_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"earliest_ns", "latest_ns", "status", NULL};
    PyObject *earliest, *latest, *given_status = NULL;
    long long earliest_ns, latest_ns, status = SYNCHRONIZED;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:TimeInterval", names, &earliest, &latest, &given_status))
        return NULL;
    if (!integer_of(earliest, names[0], &earliest_ns) || !integer_of(latest, names[1], &latest_ns) ||
        (given_status && !integer_of(given_status, names[2], &status)))
        return NULL;
    if (status < 0 || status > 255)
        return PyErr_Format(PyExc_ValueError, "status must be from 0 to 255, not %lld", status);
    if (earliest_ns > latest_ns)
        return PyErr_Format(PyExc_ValueError, "earliest_ns must not be after latest_ns: %lld is after %lld",
                            earliest_ns, latest_ns);
    const struct interval bounds = {earliest_ns, latest_ns, (uint8_t)status};
    return interval_make(PyType_GetModuleState(type), &bounds);
}

PyObject *core_set_interval_functions(PyObject *module, PyObject *functions)
{
    struct module_state *state = PyModule_GetState(module);
    if (PyTuple_Size(functions) != INTERVAL_FUNCTIONS) {
        PyErr_SetString(PyExc_TypeError, "not the functions that set_interval_functions() takes: see _core.pyi");
        return NULL;
    }
    for (int i = 0; i < INTERVAL_FUNCTIONS; i++) {
        PyObject *before = state->interval_functions[i];
        state->interval_functions[i] = Py_NewRef(PyTuple_GetItem(functions, i));
        Py_XDECREF(before);
    }
    Py_RETURN_NONE;
}

/* Calls a function of intervals.py with `self` and, unless it is NULL, `more`. */
static PyObject *in_python(PyTypeObject *type, enum interval_function which, PyObject *self, PyObject *more)
{
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *function = state ? state->interval_functions[which] : NULL;
    if (!function) {
        PyErr_SetString(PyExc_RuntimeError, "TimeInterval is not complete: import vmclock_async.intervals first");
        return NULL;
    }
    return PyObject_CallFunctionObjArgs(function, self, more, NULL);
}

static PyObject *interval_get(PyObject *self, void *which)
{
    return in_python(Py_TYPE(self), (enum interval_function)(intptr_t)which, self, NULL);
}

static PyObject *interval_repr(PyObject *self) { return in_python(Py_TYPE(self), REPR, self, NULL); }

static PyObject *interval_str(PyObject *self) { return in_python(Py_TYPE(self), TEXT, self, NULL); }

static PyObject *interval_compare(PyObject *self, PyObject *other)
{
    return in_python(Py_TYPE(self), ORDER, self, other);
}

static PyObject *interval_as_dict(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"strings", NULL};
    PyObject *strings = Py_False;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$O:as_dict", names, &strings))
        return NULL;
    return in_python(Py_TYPE(self), AS_DICT, self, strings);
}

static PyObject *interval_schema(PyObject *type, PyObject *Py_UNUSED(args))
{
    return in_python((PyTypeObject *)type, SCHEMA, type, NULL);
}

static PyObject *interval_json_schema(PyObject *type, PyObject *args)
{
    PyObject *schema, *handler;
    if (!PyArg_ParseTuple(args, "OO", &schema, &handler))
        return NULL;
    return in_python((PyTypeObject *)type, JSON_SCHEMA, schema, handler);
}

static PyObject *interval_midpoint_ns(TimeInterval *self, void *Py_UNUSED(closure))
{
    uint64_t width = (uint64_t)self->bounds.latest_ns - (uint64_t)self->bounds.earliest_ns;
    return PyLong_FromLongLong((long long)((uint64_t)self->bounds.earliest_ns + (width >> 1)));
}

static PyObject *interval_error(TimeInterval *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(interval_error_ns(&self->bounds));
}

/* The times of `other`: an interval, nanoseconds, or an object that intervals.py turns into nanoseconds; false with an
 * exception set. A time beyond 64 bits becomes the nearest that 64 bits hold. */
static bool times_of(PyObject *self, PyObject *other, int64_t *earliest_ns, int64_t *latest_ns)
{
    if (Py_TYPE(other) == Py_TYPE(self)) {
        *earliest_ns = ((TimeInterval *)other)->bounds.earliest_ns;
        *latest_ns = ((TimeInterval *)other)->bounds.latest_ns;
        return true;
    }
    /* A bool is an int, too, but no time: intervals.py refuses it. */
    PyObject *moment = PyLong_CheckExact(other) ? Py_NewRef(other) : in_python(Py_TYPE(self), MOMENT, other, NULL);
    if (!moment)
        return false;
    int overflow;
    long long ns = PyLong_AsLongLongAndOverflow(moment, &overflow);
    Py_DECREF(moment);
    *earliest_ns = *latest_ns = overflow > 0 ? INT64_MAX : overflow < 0 ? INT64_MIN : ns;
    return !PyErr_Occurred();
}

static PyObject *interval_before(TimeInterval *self, PyObject *other)
{
    int64_t earliest_ns, latest_ns;
    if (!times_of((PyObject *)self, other, &earliest_ns, &latest_ns))
        return NULL;
    return PyBool_FromLong(self->bounds.latest_ns < earliest_ns);
}

static PyObject *interval_after(TimeInterval *self, PyObject *other)
{
    int64_t earliest_ns, latest_ns;
    if (!times_of((PyObject *)self, other, &earliest_ns, &latest_ns))
        return NULL;
    return PyBool_FromLong(self->bounds.earliest_ns > latest_ns);
}

static int interval_contains(TimeInterval *self, PyObject *other)
{
    int64_t earliest_ns, latest_ns;
    if (!times_of((PyObject *)self, other, &earliest_ns, &latest_ns))
        return -1;
    return self->bounds.earliest_ns <= earliest_ns && latest_ns <= self->bounds.latest_ns;
}

static PyObject *interval_contains_method(TimeInterval *self, PyObject *other)
{
    int contains = interval_contains(self, other);
    return contains < 0 ? NULL : PyBool_FromLong(contains);
}

static PyObject *interval_richcompare(PyObject *self, PyObject *other, int op)
{
    if (op != Py_EQ && op != Py_NE) {
        PyErr_SetString(PyExc_TypeError, "intervals have no <, <=, > and >=, because they may overlap: use before(), "
                                         "after() or compare(), and intervals.sorted_groups() for a sort");
        return NULL;
    }
    if (Py_TYPE(other) != Py_TYPE(self))
        Py_RETURN_NOTIMPLEMENTED;
    const struct interval *a = &((TimeInterval *)self)->bounds, *b = &((TimeInterval *)other)->bounds;
    bool equal = a->earliest_ns == b->earliest_ns && a->latest_ns == b->latest_ns && a->status == b->status;
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static Py_hash_t interval_hash(TimeInterval *self)
{
    PyObject *values = Py_BuildValue("(LLi)", (long long)self->bounds.earliest_ns, (long long)self->bounds.latest_ns,
                                     (int)self->bounds.status);
    Py_hash_t hash = values ? PyObject_Hash(values) : -1;
    Py_XDECREF(values);
    return hash;
}

static PyObject *interval_reduce(TimeInterval *self, PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(O(LLi))", Py_TYPE((PyObject *)self), (long long)self->bounds.earliest_ns,
                         (long long)self->bounds.latest_ns, (int)self->bounds.status);
}

#define BOUND(name) offsetof(TimeInterval, bounds) + offsetof(struct interval, name)

static PyMemberDef interval_members[] = {
    {"earliest_ns", T_LONGLONG, BOUND(earliest_ns), READONLY, "Not later than true time; ns of UTC since 1970."},
    {"latest_ns", T_LONGLONG, BOUND(latest_ns), READONLY, "Not earlier than true time; ns of UTC since 1970."},
    {"_status", T_UBYTE, BOUND(status), READONLY, "The body's clock_status, a number."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef interval_getset[] = {
    {"midpoint_ns", (getter)interval_midpoint_ns, NULL, "The middle, rounded down; ns of UTC since 1970.", NULL},
    {"error_ns", (getter)interval_error, NULL, "Half the width, rounded up; ns.", NULL},
    {"earliest", interval_get, NULL, "earliest_ns as an aware datetime, rounded down to microseconds.",
     (void *)EARLIEST},
    {"latest", interval_get, NULL, "latest_ns as an aware datetime, rounded up to microseconds.", (void *)LATEST},
    {"midpoint", interval_get, NULL, "midpoint_ns as an aware datetime, rounded down to microseconds.",
     (void *)MIDPOINT},
    {"status", interval_get, NULL, "The segment's clock_status when it was read: a ClockStatus.", (void *)STATUS},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef interval_methods[] = {
    {"before", (PyCFunction)interval_before, METH_O,
     "before($self, other, /)\n--\n\nWhether it is certain to be earlier than an interval, ns since 1970 or a "
     "datetime."},
    {"after", (PyCFunction)interval_after, METH_O,
     "after($self, other, /)\n--\n\nWhether it is certain to be later than an interval, ns since 1970 or a datetime."},
    {"compare", interval_compare, METH_O,
     "compare($self, other, /)\n--\n\nThe Order of it and an interval, ns since 1970 or a datetime."},
    {"contains", (PyCFunction)interval_contains_method, METH_O,
     "contains($self, other, /)\n--\n\nWhether all of an interval, ns since 1970 or a datetime is within it."},
    {"as_dict", (PyCFunction)(void (*)(void))interval_as_dict, METH_VARARGS | METH_KEYWORDS,
     "as_dict($self, /, *, strings=False)\n--\n\nIts times, its error and the name of its status, for JSON."},
    {"__reduce__", (PyCFunction)interval_reduce, METH_NOARGS, "For pickle."},
    {"__get_pydantic_core_schema__", interval_schema, METH_VARARGS | METH_CLASS, "For pydantic."},
    {"__get_pydantic_json_schema__", interval_json_schema, METH_VARARGS | METH_CLASS, "For pydantic."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot interval_slots[] = {
    {Py_tp_doc, "TimeInterval(earliest_ns, latest_ns, status=2)\n--\n\n"
                "An interval of UTC that contains true time, to the nanosecond."},
    {Py_tp_new, interval_new},
    {Py_tp_dealloc, interval_dealloc},
    {Py_tp_repr, interval_repr},
    {Py_tp_str, interval_str},
    {Py_sq_contains, interval_contains},
    {Py_tp_hash, interval_hash},
    {Py_tp_richcompare, interval_richcompare},
    {Py_tp_members, interval_members},
    {Py_tp_getset, interval_getset},
    {Py_tp_methods, interval_methods},
    {0, NULL},
};

PyType_Spec interval_spec = {
    .name = "vmclock_async.TimeInterval",
    .basicsize = sizeof(TimeInterval),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = interval_slots,
};
