/*
 * now(): a read of the page, the counter and the fence's marker inside it, and the interval. Manual: _core.pyi.
 *
 * Only what goes well is done here. Whatever else there is (a reason why there is no bound, a commit that does not
 * end, a leap second, a marker that moved) is told, or mended, by now_slowly() in Python, in a class derived from
 * Clock.
 */
#include "clock.h"

#include "module.h"
#include "page.h"

typedef struct {
    PyObject_HEAD
    Page *page;  /* NULL: every reading is a slow one */
    Page *fence; /* or NULL */
    struct module_state *state; /* of the module, which lives as long as the type, and so longer than the clock */
    uint64_t identity; /* magic and size, as they were checked */
    uint64_t marker;   /* as Python knows it */
    uint64_t until;    /* counter value at which Python wants to look itself */
    struct limits limits;
    pthread_mutex_t mutex; /* of free-threaded builds: attach() beside a reading */
} Clock;

#ifdef Py_GIL_DISABLED
#define LOCK(self) pthread_mutex_lock(&(self)->mutex)
#define UNLOCK(self) pthread_mutex_unlock(&(self)->mutex)
#else
#define LOCK(self) ((void)0)
#define UNLOCK(self) ((void)0)
#endif

static bool read_bounded(Clock *self, struct interval *out)
{
    uint64_t copy[PAGE_WORDS], counter, marker = 0;
    Page *page = self->page, *fence = self->fence;
    if (!page || !page_try_enter(page))
        return false;
    if (fence && !page_try_enter(fence)) {
        page_leave(page);
        return false;
    }
    bool whole = seqlock_read(page->words, copy, &counter, fence ? fence->words : NULL, &marker);
    if (fence)
        page_leave(fence);
    page_leave(page);
    return whole && copy[IDENTITY] == self->identity && copy[MARKER] == self->marker &&
           (!fence || (uint32_t)marker == (uint32_t)copy[MARKER]) && (int64_t)(self->until - counter) >= 0 &&
           reckon(copy, counter, &self->limits, out);
}

static PyObject *clock_slowly(Clock *self, PyObject *max_error_ns)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self, "_now_slowly");
    if (!method)
        return NULL;
    PyObject *result = PyObject_CallFunctionObjArgs(method, max_error_ns, NULL);
    Py_DECREF(method);
    return result;
}

/* The keyword max_error_ns, or None; NULL for whatever else there is. */
static PyObject *only_max_error_ns(PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Py_ssize_t keywords = names ? PyTuple_Size(names) : 0;
    if (count == 0 && keywords == 0)
        return Py_None;
    if (count == 0 && keywords == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "max_error_ns") == 0)
        return args[0];
    PyErr_SetString(PyExc_TypeError, "now() takes no arguments but the keyword max_error_ns");
    return NULL;
}

static PyObject *clock_now(Clock *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    struct interval found;
    unsigned long long limit_ns = UINT64_MAX;
    PyObject *max_error_ns = only_max_error_ns(args, count, names);
    if (!max_error_ns)
        return NULL;
    if (max_error_ns != Py_None) {
        limit_ns = PyLong_AsUnsignedLongLong(max_error_ns);
        if (limit_ns == (unsigned long long)-1 && PyErr_Occurred()) {
            if (!PyErr_ExceptionMatches(PyExc_OverflowError))
                return NULL;
            PyErr_Clear();
            return clock_slowly(self, max_error_ns); /* which says what is out of range */
        }
    }
    LOCK(self);
    bool bounded = read_bounded(self, &found);
    struct module_state *state = self->state;
    UNLOCK(self);
    if (!bounded || interval_error_ns(&found) > limit_ns)
        return clock_slowly(self, max_error_ns);
    return interval_make(state, &found);
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

static PyObject *clock_attach(Clock *self, PyTypeObject *defining, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    struct module_state *state = PyType_GetModuleState(defining);
    unsigned long long number[7]; /* identity, marker, counter_id, max_age in two words, drift_ppb, until */
    if (!state)
        return NULL;
    if (count != 9 || names) {
        PyErr_SetString(PyExc_TypeError, "attach(page, fence, identity, marker, counter_id, max_age_s, "
                                         "max_age_frac_sec, drift_ppb, until)");
        return NULL;
    }
    if (!is_page(state, args[0]) || (args[1] != Py_None && !is_page(state, args[1])))
        return NULL;
    for (int i = 0; i < 7; i++) {
        number[i] = PyLong_AsUnsignedLongLong(args[2 + i]);
        if (number[i] == (unsigned long long)-1 && PyErr_Occurred())
            return NULL;
    }
    if (number[2] > 255 || number[3] >= FARTHEST_S || number[5] > NS_PER_S) {
        PyErr_SetString(PyExc_ValueError, "counter_id, max_age or drift_ppb is out of range");
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
    self->limits.counter_id = (uint8_t)number[2];
    self->limits.before = SECOND;
    self->limits.after = (u128)number[3] << 64 | number[4];
    self->limits.drift_ppb = number[5];
    self->until = number[6];
    UNLOCK(self);
    Py_XDECREF((PyObject *)page); /* what was there before; not under the lock, for it may take its time */
    Py_XDECREF((PyObject *)fence);
    Py_RETURN_NONE;
}

static PyObject *clock_detach(Clock *self, PyObject *Py_UNUSED(ignored))
{
    Page *page = NULL, *fence = NULL;
    LOCK(self);
    swap(&self->page, &page);
    swap(&self->fence, &fence);
    UNLOCK(self);
    Py_XDECREF((PyObject *)page);
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

static PyMethodDef now_method = {
    "now", METHOD(clock_now), METH_FASTCALL | METH_KEYWORDS,
    "now($self, /, *, max_error_ns=None)\n--\n\n"
    "The interval of UTC that contains true time, at this moment. See vmclock_async.Clock.",
};

/* Each derived class gets now() as its own: the interpreter calls a method of C's in the quick way only where the
 * object is of the very class that the method was made for. */
static PyObject *clock_init_subclass(PyObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, &now_method);
    int failed = method ? PyObject_SetAttrString(type, "now", method) : -1;
    Py_XDECREF(method);
    if (failed)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef clock_methods[] = {
    {"_attach", METHOD(clock_attach), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, "Read this page from now on."},
    {"_detach", (PyCFunction)clock_detach, METH_NOARGS, "Read no page: every reading is a slow one."},
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

PyObject *core_reckon(PyObject *Py_UNUSED(module), PyObject *args)
{
    uint64_t copy[PAGE_WORDS];
    struct limits limits;
    struct interval found;
    char *bytes;
    Py_ssize_t length;
    PyObject *page;
    unsigned long long counter, before_s, before_frac, after_s, after_frac, drift_ppb;
    unsigned char counter_id;
    if (!PyArg_ParseTuple(args, "OKb(KK)(KK)K", &page, &counter, &counter_id, &before_s, &before_frac, &after_s,
                          &after_frac, &drift_ppb) ||
        PyBytes_AsStringAndSize(page, &bytes, &length) < 0)
        return NULL;
    if (length != sizeof(copy) || before_s >= FARTHEST_S || after_s >= FARTHEST_S || drift_ppb > NS_PER_S) {
        PyErr_SetString(PyExc_ValueError, "a page is 112 bytes, a limit less than 2**34 s, a drift at most 10**9 ppb");
        return NULL;
    }
    memcpy(copy, bytes, sizeof(copy));
    limits.counter_id = counter_id;
    limits.before = (u128)before_s << 64 | before_frac;
    limits.after = (u128)after_s << 64 | after_frac;
    limits.drift_ppb = drift_ppb;
    if (!reckon(copy, counter, &limits, &found))
        Py_RETURN_NONE;
    return Py_BuildValue("(LLi)", (long long)found.earliest_ns, (long long)found.latest_ns, (int)found.status);
}
