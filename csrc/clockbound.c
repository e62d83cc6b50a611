/*
 * clockbound_commit(): a commit to a ClockBound segment. Manual: _core.pyi. Protocol: seqlock.h.
 */
#include "clockbound.h"

#include "module.h"
#include "page.h"

#include <string.h>

PyObject *core_clockbound_commit(PyObject *module, PyObject *args)
{
    struct module_state *state = PyModule_GetState(module);
    uint64_t contents[CLOCKBOUND_MOST_WORDS];
    PyObject *object, *bytes;
    char *start;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(args, "O!O!", state->page_type, &object, &PyBytes_Type, &bytes) ||
        PyBytes_AsStringAndSize(bytes, &start, &length) < 0)
        return NULL;
    if (length % 8 || length < (Py_ssize_t)(CLOCKBOUND_HEADER * sizeof(uint64_t)) ||
        length > (Py_ssize_t)sizeof(contents))
        return PyErr_Format(PyExc_ValueError, "a ClockBound segment has 16 to 104 bytes, in words, not %zd", length);
    memcpy(contents, start, (size_t)length);
    Page *page = (Page *)object;
    if (!page->writable || !page_try_enter(page)) {
        PyErr_SetString(PyExc_ValueError, page->writable ? "the page is closed" : "the page is mapped read-only");
        return NULL;
    }
    pthread_mutex_lock(&page->commit_mutex);
    uint16_t generation = clockbound_commit(page->words, contents, (size_t)length / sizeof(uint64_t));
    pthread_mutex_unlock(&page->commit_mutex);
    page_leave(page);
    return PyLong_FromLong(generation);
}
