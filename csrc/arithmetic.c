/*
 * The arithmetic of reckon.h as functions for Python, which need no mapped page. Manual: _core.pyi.
 */
#include "arithmetic.h"

#include "reckon.h"

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
        PyErr_SetString(PyExc_ValueError,
                        "a page has 112 bytes, a limit is less than 2**34 s, a drift at most 10**9 ppb");
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

/* The low 64 bits of an integer, which may have a sign (tai_offset_sec has); false with an exception set. */
static bool word_of(PyObject *integer, uint64_t *word)
{
    *word = PyLong_AsUnsignedLongLongMask(integer);
    return *word != UINT64_MAX || !PyErr_Occurred();
}

PyObject *core_bounds(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    enum { VALUES, COUNTER_ID, TIME_TYPE, NOW, OWN_COUNTER_ID, BEFORE_S, AFTER_S, ARGUMENTS };
    enum {
        DISRUPTION_MARKER,
        FLAGS,
        CLOCK_STATUS,
        SMEARING_HINT,
        TAI_OFFSET_SEC,
        LEAP_INDICATOR,
        PERIOD_SHIFT,
        COUNTER_VALUE,
        PERIOD_FRAC_SEC,
        PERIOD_ESTERROR,
        PERIOD_MAXERROR,
        TIME_SEC,
        TIME_FRAC_SEC,
        TIME_ESTERROR,
        TIME_MAXERROR,
        FIELDS
    };
    uint64_t number[ARGUMENTS], value[FIELDS], copy[PAGE_WORDS];
    struct interval found;
    if (count != ARGUMENTS || PyTuple_Size(args[VALUES]) != FIELDS) {
        PyErr_Clear();
        PyErr_SetString(PyExc_TypeError,
                        "bounds(15 values, counter_id, time_type, counter, own_counter_id, before_s, after_s)");
        return NULL;
    }
    for (int i = COUNTER_ID; i < ARGUMENTS; i++)
        if (!word_of(args[i], &number[i]))
            return NULL;
    for (int i = 0; i < FIELDS; i++)
        if (!word_of(PyTuple_GetItem(args[VALUES], i), &value[i]))
            return NULL;
    if (number[BEFORE_S] >= FARTHEST_S || number[AFTER_S] >= FARTHEST_S) {
        PyErr_SetString(PyExc_ValueError, "a limit is less than 2**34 s");
        return NULL;
    }
    struct vmclock_abi page = {
        .version = 1,
        .counter_id = (uint8_t)number[COUNTER_ID],
        .time_type = (uint8_t)number[TIME_TYPE],
        .flags = value[FLAGS],
        .clock_status = (uint8_t)value[CLOCK_STATUS],
        .tai_offset_sec = (int16_t)value[TAI_OFFSET_SEC],
        .leap_indicator = (uint8_t)value[LEAP_INDICATOR],
        .counter_period_shift = (uint8_t)value[PERIOD_SHIFT],
        .counter_value = value[COUNTER_VALUE],
        .counter_period_frac_sec = value[PERIOD_FRAC_SEC],
        .counter_period_maxerror_rate_frac_sec = value[PERIOD_MAXERROR],
        .time_sec = value[TIME_SEC],
        .time_frac_sec = value[TIME_FRAC_SEC],
        .time_maxerror_nanosec = value[TIME_MAXERROR],
    };
    memcpy(copy, &page, sizeof(copy));
    struct limits limits = {(u128)number[BEFORE_S] << 64, (u128)number[AFTER_S] << 64, 0,
                            (uint8_t)number[OWN_COUNTER_ID]};
    if (!reckon(copy, number[NOW], &limits, &found))
        Py_RETURN_NONE;
    return Py_BuildValue("(LL)", (long long)found.earliest_ns, (long long)found.latest_ns);
}
