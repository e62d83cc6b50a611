/*
 * A mapped page, which several files of the core share, and how a call is counted in while it uses the page.
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
    atomic_int left; /* its reader has moved to another file */
    atomic_int released;
    atomic_int in_flight;
    pthread_mutex_t commit_mutex;
    Waker waker;
    struct Page *next; /* in the list of this process's writable pages */
} Page;

extern PyType_Spec page_spec;

/* Takes effect once in a process. Returns -1 with errno set on failure. */
int page_install_fork_handlers(void);

/* Counts the caller in, unless the page is closed. It counts first and then looks at `closed`; close() does the
 * reverse. Where there is a GIL, the caller holds it until page_leave(), so nobody can close the page meanwhile. */
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

/* Counts the caller in at both pages, of which the fence may be NULL, or at neither. */
static inline bool pages_try_enter(Page *page, Page *fence)
{
    if (!page_try_enter(page))
        return false;
    if (!fence || page_try_enter(fence))
        return true;
    page_leave(page);
    return false;
}

static inline void pages_leave(Page *page, Page *fence)
{
    if (fence)
        page_leave(fence);
    page_leave(page);
}

static inline uint64_t page_word_at(Page *page, int index)
{
    return atomic_load_explicit(&page->words[index], memory_order_acquire);
}

static inline bool page_has_word(Page *page, int index, uint64_t word) { return page_word_at(page, index) == word; }

/* Whether the page's reader has gone over to another file. */
static inline bool page_is_left(Page *page) { return atomic_load_explicit(&page->left, memory_order_relaxed); }

/* Whether the file still has a name. It has none once it was removed, or another file was renamed over it. */
static inline bool page_is_linked(const Page *page)
{
    struct stat status;
    return fstat(page->fd, &status) == 0 && status.st_nlink > 0;
}

#endif
