/*
 * The counter: its value, whether this thread may read it, and whether the processor promises that it keeps its
 * rate. Manual: _core.pyi.
 */
#include "counter.h"

#include <stdbool.h>
#include <sys/prctl.h>
#include <time.h>

#include "module.h"
#include "processor.h"
#include "seqlock.h"

#define POWER_MANAGEMENT 0x80000007
#define INVARIANT_TSC (1u << 8) /* bit of its EDX */

int counter_require_readable(struct module_state *state)
{
    int mode = PR_TSC_ENABLE; /* stays so where the kernel does not know PR_GET_TSC, or a filter forbids it */
    prctl(PR_GET_TSC, &mode, 0, 0, 0);
    if (mode != PR_TSC_SIGSEGV)
        return 0;
    PyErr_SetString(state->counter_error ? state->counter_error : PyExc_RuntimeError,
                    "this thread may not read the CPU's counter (prctl PR_GET_TSC gives PR_TSC_SIGSEGV); "
                    "do not forbid it with PR_SET_TSC. A SegmentReader gives snapshots all the same");
    return -1;
}

PyObject *core_set_counter_error(PyObject *module, PyObject *type)
{
    struct module_state *state = PyModule_GetState(module);
    PyObject *before = state->counter_error;
    state->counter_error = Py_NewRef(type);
    Py_XDECREF(before);
    Py_RETURN_NONE;
}

PyObject *core_checked_counter(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (counter_require_readable(PyModule_GetState(module)) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(read_counter());
}

PyObject *core_counter(PyObject *module, PyObject *ignored)
{
    static _Thread_local bool readable; /* each thread has its own permission; only a "yes" is remembered */
    if (!readable) {
        PyObject *counter = core_checked_counter(module, ignored);
        readable = counter != NULL;
        return counter;
    }
    return PyLong_FromUnsignedLongLong(read_counter());
}

static long long clock_ns(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now); /* it cannot fail for these */
    return (long long)now.tv_sec * 1000000000 + now.tv_nsec;
}

PyObject *core_clocks(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    PyObject *readable = core_counter(module, NULL);
    if (readable == NULL)
        return NULL;
    Py_DECREF(readable);
    long long before = clock_ns(CLOCK_MONOTONIC);
    long long boot = clock_ns(CLOCK_BOOTTIME);
    long long after = clock_ns(CLOCK_MONOTONIC);
    unsigned long long first = read_counter();
    long long raw = clock_ns(CLOCK_MONOTONIC_RAW);
    unsigned long long second = read_counter();
    return Py_BuildValue("(LLKLK)", boot - after, boot - before, first, raw, second);
}

PyObject *core_tsc_is_invariant(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
#if defined(__x86_64__)
    unsigned eax, ebx, ecx, edx;
    if (!may_ask_processor())
        Py_RETURN_NONE;
    return PyBool_FromLong(__get_cpuid(POWER_MANAGEMENT, &eax, &ebx, &ecx, &edx) && edx & INVARIANT_TSC);
#else
    Py_RETURN_NONE;
#endif
}
