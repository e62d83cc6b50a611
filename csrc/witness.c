/*
 * unchanged(): whether an earlier read of a page and its fence still holds. Manual: _core.pyi.
 *
 * Each control word holds the number of the last commit, so equal words mean equal content. The fence's marker
 * is compared as well, because it alone decides whether the machine was disrupted. The counter is read between the two
 * loads of the page's word, and before those of the fence, as in a read of a page.
 */
#include "witness.h"

#include "counter.h"
#include "module.h"
#include "page.h"

enum { PAGE, CONTROL_WORD, FENCE, FENCE_CONTROL_WORD, FENCE_MARKER, EARLIEST_COUNTER, UNTIL, ARGUMENTS };

static bool is_unchanged(Page *page, Page *fence, const uint64_t *number, uint64_t *counter)
{
    uint64_t control = number[CONTROL_WORD], fence_control = number[FENCE_CONTROL_WORD];
    if (page_is_left(page) || (fence && page_is_left(fence)) || !pages_try_enter(page, fence))
        return false;
    bool same = !((control | fence_control) & SEQ_ODD) && page_has_word(page, CONTROL, control) && page_is_linked(page);
    *counter = read_counter();
    same = same && page_has_word(page, CONTROL, control) &&
           (!fence ||
            (page_has_word(fence, CONTROL, fence_control) && page_has_word(fence, MARKER, number[FENCE_MARKER])));
    pages_leave(page, fence);
    return same;
}

PyObject *core_unchanged(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct module_state *state = PyModule_GetState(module);
    uint64_t number[ARGUMENTS], counter;
    if (count != ARGUMENTS || Py_TYPE(args[PAGE]) != state->page_type ||
        (args[FENCE] != Py_None && Py_TYPE(args[FENCE]) != state->page_type)) {
        PyErr_SetString(PyExc_TypeError,
                        "unchanged(page, control_word, fence, fence_control_word, fence_marker, earliest, until)");
        return NULL;
    }
    for (int i = CONTROL_WORD; i < ARGUMENTS; i++) {
        if (i == FENCE)
            continue;
        number[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (number[i] == UINT64_MAX && PyErr_Occurred())
            return NULL;
    }
    Page *fence = args[FENCE] == Py_None ? NULL : (Page *)args[FENCE];
    if (!is_unchanged((Page *)args[PAGE], fence, number, &counter) ||
        (int64_t)(counter - number[EARLIEST_COUNTER]) < 0 || (int64_t)(number[UNTIL] - counter) <= 0)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(counter);
}
