/*
 * What the files of the core share: a mapped page, and how to be counted in while using it.
 */
#ifndef VMCLOCK_ASYNC_CORE_PAGE_H
#define VMCLOCK_ASYNC_CORE_PAGE_H

#include <Python.h>

#include <pthread.h>
#include <sys/stat.h>

#include "waker.h"
#include "seqlock.h"

typedef struct Page {
    PyObject_HEAD
    page_word *words;
    int fd;
    int lock_fd;
    int writable;
    atomic_int closed;
    atomic_int left; /* its reader has gone over to another file */
    atomic_int released;
    atomic_int in_flight;
    pthread_mutex_t commit_mutex;
    Waker waker;
    struct Page *next; /* of the writable pages of this process */
} Page;

extern PyType_Spec page_spec;

/* Once a process; -1 with errno set. */
int page_install_fork_handlers(void);

/* Counts the caller in, unless the page is closed. Count first, look second: close() does it the other way round.
 * Where there is a GIL it is held from here to page_leave(), and nobody can close the page meanwhile. */
static inline bool page_try_enter(Page *self)
{
#ifdef Py_GIL_DISABLED
    atomic_fetch_add(&self->in_flight, 1);
    if (!atomic_load(&self->closed))
        return true;
    atomic_fetch_sub(&self->in_flight, 1);
    return false;
#else
    return !atomic_load(&self->closed);
#endif
}

static inline void page_leave(Page *self)
{
#ifdef Py_GIL_DISABLED
    atomic_fetch_sub(&self->in_flight, 1);
#else
    (void)self;
#endif
}

/* Whether the file has a name yet: one that was removed, or over which another was renamed, has none. */
static inline bool page_is_linked(const Page *page)
{
    struct stat status;
    return fstat(page->fd, &status) == 0 && status.st_nlink > 0;
}

#endif
