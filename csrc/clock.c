/*
 * now(), at() and at_monotonic(): each reads the page, with the counter and the fence's marker inside that read, and
 * computes the interval. Manual: _core.pyi.
 *
 * The core handles the plain case alone. Python handles everything else (a reading without a bound, a commit that does
 * not end, a leap second, a marker that moved) in _now_slowly(), _at_slowly() and _at_monotonic_slowly(), which a
 * derived class defines.
 */
#include "clock.h"

#include "module.h"
#include "page.h"

typedef struct {
    PyObject_HEAD
    Page *page;  /* NULL: every reading is a slow one */
    Page *fence; /* or NULL */
    struct module_state *state; /* the module lives as long as the type, and so longer than the clock */
    uint64_t identity; /* magic and size that Python has checked */
    uint64_t marker;   /* the marker that Python knows */
    uint64_t since_counter;     /* counter and CLOCK_MONOTONIC when Python first saw that marker */
    uint64_t since_monotonic_ns;
    uint64_t until; /* counter value from which Python reads the page itself */
    struct limits limits;
    pthread_mutex_t mutex; /* free-threaded builds: keeps _attach() and a reading apart */
} Clock;

#ifdef Py_GIL_DISABLED
#define LOCK(self) pthread_mutex_lock(&(self)->mutex)
#define UNLOCK(self) pthread_mutex_unlock(&(self)->mutex)
#else
#define LOCK(self) ((void)0)
#define UNLOCK(self) ((void)0)
#endif

/* The low half of a marker is the device's. The high half counts the disruptions that the publisher found. */
static uint32_t device_marker(uint64_t marker) { return (uint32_t)marker; }

/* Copies the attached page by seqlock_read() or seqlock_try_read(), with the counter read inside that copy. False
 * unless the page is as Python saw it. */
INLINE bool read_attached(Clock *self, seqlock_reading *read, uint64_t *copy, uint64_t *counter)
{
    uint64_t marker = 0;
    Page *page = self->page, *fence = self->fence;
    if (!page || page_is_left(page) || !pages_try_enter(page, fence))
        return false;
    bool whole = read(page->words, copy, counter, fence ? fence->words : NULL, &marker);
    pages_leave(page, fence);
    return whole && copy[IDENTITY] == self->identity && copy[MARKER] == self->marker &&
           (!fence || device_marker(marker) == device_marker(copy[MARKER])) && (int64_t)(self->until - *counter) >= 0;
}

INLINE bool read_now(Clock *self, seqlock_reading *read, struct interval *out)
{
    uint64_t copy[PAGE_WORDS], counter;
    return read_attached(self, read, copy, &counter) && reckon(copy, counter, &self->limits, out);
}

/* The limits of a stamp: it may lie before its reference by as much as a reading may lie after it. */
static struct limits limits_of_stamps(const Clock *self)
{
    struct limits limits = self->limits;
    limits.before = limits.after;
    return limits;
}

static bool read_at(Clock *self, uint64_t stamp, struct interval *out)
{
    uint64_t copy[PAGE_WORDS], counter;
    if (!read_attached(self, seqlock_read, copy, &counter) || !page_is_linked(self->page) ||
        (int64_t)(stamp - self->since_counter) < 0 || (int64_t)(counter - stamp) < 0)
        return false;
    struct limits limits = limits_of_stamps(self);
    return ticks_last_at_most(copy, counter - stamp, limits.after) && reckon(copy, stamp, &limits, out) &&
           !before_month_of_reference(copy, out->earliest_ns);
}

/* Whether the page and the fence's marker are still as in `copy`: after a second reading of the counter. */
static bool is_as_copied(Clock *self, const uint64_t *copy)
{
    Page *page = self->page, *fence = self->fence;
    if (!pages_try_enter(page, fence))
        return false;
    bool same = page_has_word(page, CONTROL, copy[CONTROL]) &&
                (!fence || device_marker(page_word_at(fence, MARKER)) == device_marker(copy[MARKER]));
    pages_leave(page, fence);
    return same;
}

static bool read_at_monotonic(Clock *self, int64_t ns, struct interval *out)
{
    uint64_t copy[PAGE_WORDS], counter;
    struct interval after;
    if (!read_attached(self, seqlock_read, copy, &counter) || !page_is_linked(self->page) ||
        ns < (int64_t)self->since_monotonic_ns)
        return false;
    int64_t age_ns = monotonic_ns() - ns;
    uint64_t later = read_counter(); /* CLOCK_MONOTONIC was read between the two */
    if ((int64_t)(later - counter) < 0 || !is_as_copied(self, copy) || age_ns < 0 ||
        (u128)age_ns << 64 > self->limits.after * NS_PER_S || !reckon(copy, counter, &self->limits, out) ||
        !reckon(copy, later, &self->limits, &after))
        return false;
    out->latest_ns = after.latest_ns;
    return set_back_by_monotonic(out, age_ns) && !is_near_leap(copy, out->earliest_ns);
}

static PyObject *slowly(Clock *self, const char *name, PyObject *stamp, PyObject *max_error_ns)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
    if (!method)
        return NULL;
    PyObject *result = stamp ? PyObject_CallFunctionObjArgs(method, stamp, max_error_ns, NULL)
                             : PyObject_CallFunctionObjArgs(method, max_error_ns, NULL);
    Py_DECREF(method);
    return result;
}

/* The keyword max_error_ns after `positional` arguments, or None. NULL, with TypeError set, for any other arguments. */
static PyObject *only_max_error_ns(const char *usage, Py_ssize_t positional, PyObject *const *args, Py_ssize_t count,
                                   PyObject *names)
{
    if (LIKELY(count == positional && !names)) /* before any call: now() without a limit stays short */
        return Py_None;
    Py_ssize_t keywords = names ? PyTuple_Size(names) : 0;
    if (count == positional && keywords == 0)
        return Py_None;
    if (count == positional && keywords == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "max_error_ns") == 0)
        return args[positional];
    PyErr_SetString(PyExc_TypeError, usage);
    return NULL;
}

/* Not inlined, so that now() without a limit stays short. */
static __attribute__((noinline)) bool number_of(PyObject *object, uint64_t *number)
{
    if (PyBool_Check(object))
        return false;
    *number = PyLong_AsUnsignedLongLong(object);
    if (*number != UINT64_MAX || !PyErr_Occurred())
        return true;
    PyErr_Clear();
    return false;
}

/* Whether max_error_ns is None or an integer of 64 bits. If it is neither, Python says what is wrong with it. */
static bool limit_of(PyObject *max_error_ns, uint64_t *limit_ns)
{
    *limit_ns = UINT64_MAX;
    return max_error_ns == Py_None || number_of(max_error_ns, limit_ns);
}

/* The interval by seqlock_try_read() or seqlock_read(), and the state that makes an object of it. */
INLINE bool quick_now(Clock *self, seqlock_reading *read, PyObject *max_error_ns, struct interval *found,
                      struct module_state **state)
{
    uint64_t limit_ns;
    bool plain = limit_of(max_error_ns, &limit_ns);
    LOCK(self);
    plain = plain && read_now(self, read, found);
    *state = self->state;
    UNLOCK(self);
    return plain && (max_error_ns == Py_None || interval_error_ns(found) <= limit_ns);
}

/* clock_now() calls this when its first try gave no interval: the page may be within a commit. It is not inlined and
 * has an interval of its own, so that the values of the first try stay in registers. */
static __attribute__((noinline)) PyObject *now_again(Clock *self, PyObject *max_error_ns)
{
    struct interval found;
    struct module_state *state;
    return quick_now(self, seqlock_read, max_error_ns, &found, &state)
               ? interval_make(state, &found)
               : slowly(self, "_now_slowly", NULL, max_error_ns);
}

static PyObject *clock_now(Clock *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct interval found;
    struct module_state *state;
    PyObject *max_error_ns =
        only_max_error_ns("now() takes no arguments but the keyword max_error_ns", 0, args, count, names);
    if (!max_error_ns)
        return NULL;
    if (!LIKELY(quick_now(self, seqlock_try_read, max_error_ns, &found, &state)))
        return now_again(self, max_error_ns);
    return interval_make(state, &found);
}

static bool at_counter(Clock *self, PyObject *stamp, struct interval *out)
{
    return read_at(self, PyLong_AsUnsignedLongLongMask(stamp), out);
}

static bool at_ns(Clock *self, PyObject *stamp, struct interval *out)
{
    int overflow;
    long long ns = PyLong_AsLongLongAndOverflow(stamp, &overflow);
    return !overflow && read_at_monotonic(self, ns, out);
}

/* at() or at_monotonic(), by how each of them reads its stamp, an integer. */
static PyObject *clock_at_stamp(Clock *self, bool (*read)(Clock *, PyObject *, struct interval *), const char *usage,
                                const char *in_python, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct interval found;
    uint64_t limit_ns;
    PyObject *max_error_ns = only_max_error_ns(usage, 1, args, count, names);
    if (!max_error_ns)
        return NULL;
    bool plain = limit_of(max_error_ns, &limit_ns) && PyLong_Check(args[0]);
    LOCK(self);
    plain = plain && read(self, args[0], &found);
    struct module_state *state = self->state;
    UNLOCK(self);
    if (!plain || interval_error_ns(&found) > limit_ns)
        return slowly(self, in_python, args[0], max_error_ns);
    return interval_make(state, &found);
}

static PyObject *clock_at(Clock *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return clock_at_stamp(self, at_counter, "at() takes a counter value and the keyword max_error_ns", "_at_slowly",
                          args, count, names);
}

static PyObject *clock_at_monotonic(Clock *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    return clock_at_stamp(self, at_ns,
                          "at_monotonic() takes nanoseconds of CLOCK_MONOTONIC and the keyword max_error_ns",
                          "_at_monotonic_slowly", args, count, names);
}

static bool is_page(struct module_state *state, PyObject *object)
{
    if (Py_TYPE(object) == state->page_type)
        return true;
    PyErr_Format(PyExc_TypeError, "not a Page: %R", object);
    return false;
}

static void swap(Page **one, Page **other)
{
    Page *before = *one;
    *one = *other;
    *other = before;
}

static PyObject *clock_limit(Clock *self, PyObject *args)
{
    unsigned char counter_id;
    unsigned long long max_age_s, max_age_frac_sec, drift_ppb;
    if (!PyArg_ParseTuple(args, "bKKK", &counter_id, &max_age_s, &max_age_frac_sec, &drift_ppb))
        return NULL;
    if (max_age_s >= FARTHEST_S || drift_ppb > NS_PER_S) {
        PyErr_SetString(PyExc_ValueError, "max_age or drift_ppb is out of range");
        return NULL;
    }
    LOCK(self);
    self->limits.counter_id = counter_id;
    self->limits.before = SECOND;
    self->limits.after = (u128)max_age_s << 64 | max_age_frac_sec;
    self->limits.drift_ppb = drift_ppb;
    UNLOCK(self);
    Py_RETURN_NONE;
}

static PyObject *clock_attach(Clock *self, PyTypeObject *defining, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    struct module_state *state = PyType_GetModuleState(defining);
    uint64_t number[5]; /* identity, marker, since_counter, since_monotonic_ns, until */
    if (!state)
        return NULL;
    if (count != 7 || names) {
        PyErr_SetString(PyExc_TypeError,
                        "_attach(page, fence, identity, marker, since_counter, since_monotonic_ns, until)");
        return NULL;
    }
    if (!is_page(state, args[0]) || (args[1] != Py_None && !is_page(state, args[1])))
        return NULL;
    for (int i = 0; i < 5; i++) {
        number[i] = PyLong_AsUnsignedLongLong(args[2 + i]);
        if (number[i] == UINT64_MAX && PyErr_Occurred())
            return NULL;
    }
    Page *page = (Page *)Py_NewRef(args[0]);
    Page *fence = args[1] == Py_None ? NULL : (Page *)Py_NewRef(args[1]);
    LOCK(self);
    swap(&self->page, &page);
    swap(&self->fence, &fence);
    self->state = state;
    self->identity = number[0];
    self->marker = number[1];
    self->since_counter = number[2];
    self->since_monotonic_ns = number[3];
    self->until = number[4];
    UNLOCK(self);
    Py_XDECREF((PyObject *)page); /* the former page; not under the lock, because its end may take long */
    Py_XDECREF((PyObject *)fence);
    Py_RETURN_NONE;
}

static PyObject *clock_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Clock *self = (Clock *)alloc(type, 0); /* zeroed */
    if (self)
        pthread_mutex_init(&self->mutex, NULL);
    return (PyObject *)self;
}

static void clock_dealloc(Clock *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    Py_XDECREF((PyObject *)self->page);
    Py_XDECREF((PyObject *)self->fence);
    pthread_mutex_destroy(&self->mutex);
    release(self);
    Py_DECREF(type);
}

#define METHOD(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef quick_methods[] = {
    {"now", METHOD(clock_now), METH_FASTCALL | METH_KEYWORDS,
     "now($self, /, *, max_error_ns=None)\n--\n\n"
     "The interval of UTC that contains true time, at this moment. See vmclock_async.Clock."},
    {"at", METHOD(clock_at), METH_FASTCALL | METH_KEYWORDS,
     "at($self, counter_ticks, /, *, max_error_ns=None)\n--\n\n"
     "The interval of UTC that contains the time at which the counter was counter_ticks. See vmclock_async.Clock."},
    {"at_monotonic", METHOD(clock_at_monotonic), METH_FASTCALL | METH_KEYWORDS,
     "at_monotonic($self, ns, /, *, max_error_ns=None)\n--\n\n"
     "The interval of UTC that contains the time at which CLOCK_MONOTONIC was ns. See vmclock_async.Clock."},
    {NULL, NULL, 0, NULL},
};

/* Each derived class gets these methods as its own, because the interpreter calls a method of C in the quick way only
 * where the object is of the class that the method was made for. */
static PyObject *clock_init_subclass(PyObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *own = PyObject_GetAttrString(type, "__dict__");
    if (!own)
        return NULL;
    for (PyMethodDef *quick = quick_methods; quick->ml_name; quick++) {
        if (PyMapping_HasKeyString(own, quick->ml_name))
            continue; /* the class has a method of its own by this name */
        PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, quick);
        int failed = method ? PyObject_SetAttrString(type, quick->ml_name, method) : -1;
        Py_XDECREF(method);
        if (failed) {
            Py_DECREF(own);
            return NULL;
        }
    }
    Py_DECREF(own);
    Py_RETURN_NONE;
}

static PyMethodDef clock_methods[] = {
    {"_attach", METHOD(clock_attach), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, "Read this page from now on."},
    {"_limit", (PyCFunction)clock_limit, METH_VARARGS, "Set the limits of a reading, once."},
    {"__init_subclass__", METHOD(clock_init_subclass), METH_VARARGS | METH_KEYWORDS | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot clock_slots[] = {
    {Py_tp_doc, "now() in the core. See _core.pyi."},
    {Py_tp_new, clock_new},
    {Py_tp_dealloc, clock_dealloc},
    {Py_tp_methods, clock_methods},
    {0, NULL},
};

PyType_Spec clock_spec = {
    .name = "vmclock_async._core.Clock",
    .basicsize = sizeof(Clock),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = clock_slots,
};
