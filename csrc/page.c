/*
 * One mapped page, as Python sees it. Manual: _core.pyi. Protocol: seqlock.h.
 *
 * A Page owns its mapping and its descriptors. Three things may happen to it during a call:
 *   - another thread closes it: page_try_enter() says what keeps the mapping until the call ends;
 *   - another thread commits: a mutex keeps commits apart (free-threaded builds);
 *   - the process forks: the child would share a writer's page and its lock, so every writable page
 *     is closed in the child by a pthread_atfork handler, which sees forks made from C too.
 */
#include "page.h"

#include "descriptor.h"
#include "counter.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE_BYTES 4096 /* one whole page always: a file's mapping is zero-filled past its end */

/* Writable pages of this process, for the fork handler: process-wide, because a fork is. Changed under fork_mutex. */
static Page *writers;
static pthread_once_t fork_handlers_once = PTHREAD_ONCE_INIT;
static int fork_handlers_error;

static void page_unmap(Page *self)
{
    munmap((void *)self->words, PAGE_BYTES);
    self->words = NULL;
    self->fd = self->lock_fd = -1;
}

static void before_fork(void) { pthread_mutex_lock(&fork_mutex); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&fork_mutex); }

/* Uses only calls that are safe after a fork of a threaded process: munmap and close. It does not unlock: an flock
 * belongs to the open file that parent and child share, so LOCK_UN would release the parent's lock. */
static void after_fork_in_child(void)
{
    for (Page *page = writers; page; page = page->next) {
        atomic_store(&page->closed, 1); /* may be set already, by a thread of the parent that was closing it */
        atomic_store(&page->released, 1);
        page_unmap(page);
    }
    writers = NULL;
    descriptors_close_in_child();
    pthread_mutex_unlock(&fork_mutex);
}

static void install_fork_handlers(void)
{
    fork_handlers_error = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

int page_install_fork_handlers(void)
{
    pthread_once(&fork_handlers_once, install_fork_handlers);
    errno = fork_handlers_error;
    return fork_handlers_error ? -1 : 0;
}

/* Puts the page into the list, and its descriptors among those that no child keeps. False: no memory. */
static bool writers_add(Page *self)
{
    pthread_mutex_lock(&fork_mutex);
    bool kept = descriptor_keep(self->fd) && (self->lock_fd < 0 || descriptor_keep(self->lock_fd));
    if (kept) {
        self->next = writers;
        writers = self;
    }
    pthread_mutex_unlock(&fork_mutex);
    return kept;
}

/* Removes the page from the list and releases it in one step: a fork finds a page in the list whole, or not at all. */
static void writers_release(Page *self)
{
    pthread_mutex_lock(&fork_mutex);
    for (Page **link = &writers; *link; link = &(*link)->next)
        if (*link == self) {
            *link = self->next;
            break;
        }
    descriptor_close(self->fd);
    descriptor_close(self->lock_fd);
    page_unmap(self);
    pthread_mutex_unlock(&fork_mutex);
}

static void reader_release(Page *self)
{
    close(self->fd);
    if (self->lock_fd >= 0)
        close(self->lock_fd);
    page_unmap(self);
}

/* Counts the caller in: 0. Returns -1, with ValueError set, for a closed page. */
static int page_enter(Page *self)
{
    if (page_try_enter(self))
        return 0;
    PyErr_SetString(PyExc_ValueError, "the page is closed");
    return -1;
}

/* Lets no further call begin and waits until none is under way. True for the first caller. */
static bool page_stop(Page *self)
{
    bool first = !atomic_exchange(&self->closed, 1);
    while (atomic_load(&self->in_flight)) /* ends, because every call is bounded */
        sched_yield();
    return first;
}

static void page_close_once(Page *self)
{
    page_stop(self);
    if (atomic_exchange(&self->released, 1))
        return;
    Py_BEGIN_ALLOW_THREADS
    waker_stop(&self->waker);
    Py_END_ALLOW_THREADS
    if (self->writable)
        writers_release(self);
    else
        reader_release(self);
}

static PyObject *page_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fd", "writable", "lock_fd", NULL};
    int fd, writable = 0, lock_fd = -1;
    Page *self = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|$pi", names, &fd, &writable, &lock_fd))
        return NULL;
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *words = mmap(NULL, PAGE_BYTES, prot, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "mmap");
        return NULL;
    }
    allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    self = (Page *)alloc(type, 0);
    if (!self) {
        munmap(words, PAGE_BYTES);
        return NULL;
    }
    self->words = words;
    self->fd = fd;
    self->lock_fd = lock_fd;
    self->writable = writable;
    atomic_init(&self->closed, 0);
    atomic_init(&self->left, 0);
    atomic_init(&self->released, 0);
    atomic_init(&self->in_flight, 0);
    pthread_mutex_init(&self->commit_mutex, NULL);
    waker_init(&self->waker, fd);
    if (writable && !writers_add(self)) {
        atomic_store(&self->released, 1); /* the caller still owns the descriptors */
        page_unmap(self);
        Py_DECREF((PyObject *)self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void page_dealloc(Page *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    page_close_once(self);
    pthread_mutex_destroy(&self->commit_mutex);
    release(self);
    Py_DECREF(type);
}

static PyObject *page_close(Page *self, PyObject *Py_UNUSED(ignored))
{
    page_close_once(self);
    Py_RETURN_NONE;
}

static PyObject *page_leave_behind(Page *self, PyObject *Py_UNUSED(ignored))
{
    atomic_store(&self->left, 1);
    Py_RETURN_NONE;
}

static PyObject *page_retire(Page *self, PyObject *Py_UNUSED(ignored))
{
    if (!page_stop(self))
        Py_RETURN_NONE;
    return PyLong_FromLong(self->lock_fd);
}

static int require_writable(Page *self)
{
    if (self->writable)
        return 0;
    PyErr_SetString(PyExc_ValueError, "the page is mapped read-only");
    return -1;
}

static PyObject *page_wake(Page *self, PyObject *Py_UNUSED(ignored))
{
    if (require_writable(self) < 0 || page_enter(self) < 0)
        return NULL;
    int failed = waker_wake(&self->waker);
    page_leave(self);
    if (failed)
        return PyErr_SetFromErrnoWithFilename(PyExc_OSError, "futimens");
    Py_RETURN_NONE;
}

static PyObject *page_fileno(Page *self, PyObject *Py_UNUSED(ignored))
{
    if (page_enter(self) < 0)
        return NULL;
    int fd = self->fd;
    page_leave(self);
    return PyLong_FromLong(fd);
}

static PyObject *page_closed(Page *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(atomic_load(&self->closed));
}

static PyObject *page_load(Page *self, void *index)
{
    if (page_enter(self) < 0)
        return NULL;
    uint64_t word = atomic_load_explicit(&self->words[(uintptr_t)index], memory_order_acquire);
    page_leave(self);
    return PyLong_FromUnsignedLongLong(word);
}

static PyObject *page_read(Page *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t copy[PAGE_WORDS];
    if (page_enter(self) < 0)
        return NULL;
    bool whole = seqlock_read(self->words, copy, NULL, NULL, NULL);
    page_leave(self);
    if (!whole)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize((const char *)copy, sizeof(copy));
}

static PyObject *page_read_with_counter(Page *self, PyObject *Py_UNUSED(ignored))
{
    uint64_t copy[PAGE_WORDS], counter = 0;
    if (counter_require_readable(PyType_GetModuleState(Py_TYPE((PyObject *)self))) < 0)
        return NULL;
    if (page_enter(self) < 0)
        return NULL;
    bool whole = seqlock_read(self->words, copy, &counter, NULL, NULL);
    page_leave(self);
    if (!whole)
        Py_RETURN_NONE;
    /* Not "y#": built with the headers of 3.13 or later, it fails on 3.11 and 3.12 (PY_SSIZE_T_CLEAN). */
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)copy, sizeof(copy));
    return Py_BuildValue("(NK)", bytes, (unsigned long long)counter);
}

static PyObject *page_commit(Page *self, PyObject *const *args, Py_ssize_t count)
{
    uint64_t body[PAGE_WORDS - BODY];
    char *bytes;
    Py_ssize_t length;
    long constants[2] = {-1, -1};
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "commit(body, counter_id, time_type)");
        return NULL;
    }
    if (PyBytes_AsStringAndSize(args[0], &bytes, &length) < 0 || require_writable(self) < 0)
        return NULL;
    if (length != 88 && length != 96) {
        PyErr_Format(PyExc_ValueError, "a body has 88 or 96 bytes, not %zd", length);
        return NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (args[1 + i] == Py_None)
            continue;
        int overflow;
        constants[i] = PyLong_AsLongAndOverflow(args[1 + i], &overflow); /* -1 on overflow */
        if (constants[i] == -1 && PyErr_Occurred())
            return NULL;
        if (constants[i] < 0 || constants[i] > 255) {
            PyErr_Format(PyExc_ValueError, "%s must be from 0 to 255, not %R", i ? "time_type" : "counter_id",
                         args[1 + i]);
            return NULL;
        }
    }
    memcpy(body, bytes, (size_t)length);
    if (page_enter(self) < 0)
        return NULL;
    pthread_mutex_lock(&self->commit_mutex);
    uint32_t seq_count =
        seqlock_commit(self->words, body, (size_t)length / sizeof(uint64_t), (int)constants[0], (int)constants[1]);
    pthread_mutex_unlock(&self->commit_mutex);
    page_leave(self);
    return PyLong_FromUnsignedLong(seq_count);
}

static PyObject *page_reset(Page *self, PyObject *arg)
{
    int overflow;
    long size = PyLong_AsLongAndOverflow(arg, &overflow); /* -1 on overflow */
    if ((size == -1 && PyErr_Occurred()) || require_writable(self) < 0)
        return NULL;
    if (size < 104 || size > PAGE_BYTES) {
        PyErr_Format(PyExc_ValueError, "a segment's size is from 104 to 4096 bytes, not %R", arg);
        return NULL;
    }
    if (page_enter(self) < 0)
        return NULL;
    pthread_mutex_lock(&self->commit_mutex);
    uint32_t seq_count = seqlock_reset(self->words, (uint32_t)size);
    pthread_mutex_unlock(&self->commit_mutex);
    page_leave(self);
    return PyLong_FromUnsignedLong(seq_count);
}

static PyMethodDef page_methods[] = {
    {"close", (PyCFunction)page_close, METH_NOARGS, "Unmap the page and close its descriptors."},
    {"commit", (PyCFunction)(void (*)(void))page_commit, METH_FASTCALL, "Commit a body; return seq_count."},
    {"fileno", (PyCFunction)page_fileno, METH_NOARGS, "The descriptor of the mapped file."},
    {"leave", (PyCFunction)page_leave_behind, METH_NOARGS,
     "Stop the core's clocks from reading the page by themselves."},
    {"read", (PyCFunction)page_read, METH_NOARGS, "One bounded attempt at a whole copy, or None."},
    {"read_with_counter", (PyCFunction)page_read_with_counter, METH_NOARGS, "The same, with the counter."},
    {"retire", (PyCFunction)page_retire, METH_NOARGS,
     "End all calls; return the lock's descriptor to the first caller."},
    {"wake", (PyCFunction)page_wake, METH_NOARGS, "Set the file's times, which wakes inotify watches."},
    {"reset", (PyCFunction)page_reset, METH_O, "Start cold in place; return seq_count."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef page_getset[] = {
    {"closed", (getter)page_closed, NULL, "Whether the page has been closed.", NULL},
    {"control_word", (getter)page_load, NULL, "The word at 0x08, loaded whole.", (void *)CONTROL},
    {"disruption_marker", (getter)page_load, NULL, "The word at 0x10, loaded whole.", (void *)MARKER},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot page_slots[] = {
    {Py_tp_doc, "One mapped VMClock page. See _core.pyi."},
    {Py_tp_new, page_new},
    {Py_tp_dealloc, page_dealloc},
    {Py_tp_methods, page_methods},
    {Py_tp_getset, page_getset},
    {0, NULL},
};

PyType_Spec page_spec = {
    .name = "vmclock_async._core.Page",
    .basicsize = sizeof(Page),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = page_slots,
};
