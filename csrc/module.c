/*
 * The compiled core: one mapped page, the counter, and now(). Manual: _core.pyi.
 */
#include "arithmetic.h"
#include "clock.h"
#include "clockbound.h"
#include "descriptor.h"
#include "counter.h"
#include "inotify.h"
#include "module.h"
#include "page.h"
#include "random.h"
#include "witness.h"

static PyMethodDef core_methods[] = {
    {"bounds", (PyCFunction)(void (*)(void))core_bounds, METH_FASTCALL, "The interval that a body's values give."},
    {"checked_counter", core_checked_counter, METH_NOARGS, "counter(), once the kernel says that it may be read."},
    {"clockbound_commit", core_clockbound_commit, METH_VARARGS, "Commit to a ClockBound segment; return generation."},
    {"close_private", core_close_private, METH_O, "Close a descriptor of open_private()."},
    {"counter", core_counter, METH_NOARGS, "The raw CPU counter, in order."},
    {"inotify_open", core_inotify_open, METH_NOARGS, "A new inotify instance."},
    {"inotify_unwatch", core_inotify_unwatch, METH_VARARGS, "End a watch, which is an event of its own."},
    {"inotify_watch", core_inotify_watch, METH_O, "A new inotify instance that watches one file, and the watch."},
    {"inotify_watch_path", core_inotify_watch_path, METH_VARARGS, "Watch a directory for new names, or a file."},
    {"open_private", core_open_private, METH_VARARGS, "Open a file; no child of a fork keeps the descriptor."},
    {"processor_random", core_processor_random, METH_NOARGS, "Random bytes of the processor's own generator."},
    {"reckon", core_reckon, METH_VARARGS, "The interval that now() makes of a page and a counter value."},
    {"set_counter_error", core_set_counter_error, METH_O, "Set the error of counter() where it may not be read."},
    {"set_interval_functions", core_set_interval_functions, METH_VARARGS, "Set what completes TimeInterval."},
    {"clocks", core_clocks, METH_NOARGS, "Clocks of the kernel and the counter at one moment."},
    {"tsc_is_invariant", core_tsc_is_invariant, METH_NOARGS, "Whether the processor says that its TSC is invariant."},
    {"unchanged", (PyCFunction)(void (*)(void))core_unchanged, METH_FASTCALL, "Whether two pages are as they were."},
    {NULL, NULL, 0, NULL},
};

/* Adds a type to the module; a new reference for the module's state, or NULL. */
static PyTypeObject *add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type && PyModule_AddObjectRef(module, name, type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

static int core_exec(PyObject *module)
{
#if defined(__x86_64__)
    const long counter_id = 1; /* VMCLOCK_COUNTER_X86_TSC */
#else
    const long counter_id = 0; /* VMCLOCK_COUNTER_ARM_VCNT */
#endif
    if (page_install_fork_handlers() < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "pthread_atfork");
        return -1;
    }
    struct module_state *state = PyModule_GetState(module);
    state->page_type = add_type(module, "Page", &page_spec);
    state->interval_type = add_type(module, "TimeInterval", &interval_spec);
    PyTypeObject *clock_type = add_type(module, "Clock", &clock_spec);
    Py_XDECREF((PyObject *)clock_type);
    if (!state->page_type || !state->interval_type || !clock_type)
        return -1;
    if (PyModule_AddIntConstant(module, "COUNTER_ID", counter_id) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "READ_LIMIT_NS", READ_LIMIT_NS);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct module_state *state = PyModule_GetState(module);
    Py_VISIT((PyObject *)state->page_type);
    Py_VISIT((PyObject *)state->interval_type);
    Py_VISIT(state->counter_error);
    for (int i = 0; i < INTERVAL_FUNCTIONS; i++)
        Py_VISIT(state->interval_functions[i]);
    if (state->spare) /* it refers to its type, too */
        Py_VISIT((PyObject *)state->interval_type);
    return 0;
}

static int core_clear(PyObject *module)
{
    struct module_state *state = PyModule_GetState(module);
    interval_release_spare(state);
    for (int i = 0; i < INTERVAL_FUNCTIONS; i++)
        Py_CLEAR(state->interval_functions[i]);
    Py_CLEAR(state->counter_error);
    Py_CLEAR(state->page_type);
    return 0;
}

static void core_free(void *module) { core_clear(module); }

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "vmclock_async._core",
    .m_doc = "Ordered access to one VMClock page, the CPU counter, bounded time. See _core.pyi.",
    .m_size = sizeof(struct module_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
