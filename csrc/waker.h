/*
 * Waking the readers of a file after a commit, at a cost to the writer that does not grow with them.
 * How: waker.c.
 */
#ifndef VMCLOCK_ASYNC_CORE_WAKER_H
#define VMCLOCK_ASYNC_CORE_WAKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    int fd;                /* the owner's; open until waker_stop() */
    pthread_mutex_t mutex; /* over the next three: of free-threaded builds */
    bool begun;
    bool has_thread;
    pthread_t thread;
    sem_t call;
    atomic_int due;
    atomic_int stopping;
    atomic_int error; /* errno of a waking that failed, and of which nobody was told yet */
} Waker;

void waker_init(Waker *self, int fd);

/* -1 with errno set if this waking failed, or one before. */
int waker_wake(Waker *self);

/* What is due is done, and the thread is gone. Nobody may be in waker_wake(). */
void waker_stop(Waker *self);

#endif
