/*
 * The compiled core: one mapped page, the counter, and now(). Manual: _core.pyi.
 */
#include "_core_clock.h"
#include "_core_descriptor.h"
#include "_core_counter.h"
#include "_core_inotify.h"
#include "_core_interval.h"
#include "_core_page.h"

static PyMethodDef core_methods[] = {
    {"close_private", core_close_private, METH_O, "Close a descriptor of open_private()."},
    {"checked_counter", core_checked_counter, METH_NOARGS, "The same, once the kernel says that it may be read."},
    {"counter", core_counter, METH_NOARGS, "The raw CPU counter, in order."},
    {"open_private", core_open_private, METH_VARARGS, "Open a file; no child of a fork keeps the descriptor."},
    {"inotify_unwatch", core_inotify_unwatch, METH_VARARGS, "End a watch, which is an event of its own."},
    {"inotify_watch", core_inotify_watch, METH_O, "A new inotify instance that watches one file, and the watch."},
    {"reckon", core_reckon, METH_VARARGS, "What now() makes of a copy of a page and a counter value."},
    {"tsc_is_invariant", core_tsc_is_invariant, METH_NOARGS, "Whether the processor says that its TSC is invariant."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    int result = type ? PyModule_AddObjectRef(module, name, type) : -1;
    Py_XDECREF(type);
    return result;
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
    struct interval_state *state = PyModule_GetState(module);
    if (add_type(module, "Page", &page_spec) < 0 || add_type(module, "Clock", &clock_spec) < 0)
        return -1;
    state->type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &interval_spec, NULL);
    if (!state->type || PyModule_AddObjectRef(module, "TimeInterval", (PyObject *)state->type) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "COUNTER_ID", counter_id) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "READ_LIMIT_NS", READ_LIMIT_NS);
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct interval_state *state = PyModule_GetState(module);
    Py_VISIT((PyObject *)state->type);
    for (int i = 0; i < state->count; i++) /* what is kept refers to it, too */
        Py_VISIT((PyObject *)state->type);
    return 0;
}

static int core_clear(PyObject *module)
{
    interval_state_clear(PyModule_GetState(module));
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
    .m_size = sizeof(struct interval_state),
    .m_methods = core_methods,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_module); }
