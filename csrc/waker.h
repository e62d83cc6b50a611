/*
 * Waking the readers of a file after a commit, at a cost to the writer that does not grow with their number.
 * waker.c says how.
 */
#ifndef VMCLOCK_ASYNC_CORE_WAKER_H
#define VMCLOCK_ASYNC_CORE_WAKER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

typedef struct {
    int fd;                /* belongs to the owner; open until waker_stop() */
    pthread_mutex_t mutex; /* free-threaded builds: over the next three */
    bool begun;
    bool has_thread;
    pthread_t thread;
    sem_t call;
    atomic_int due;
    atomic_int asleep; /* the thread waits for a call */
    atomic_int stopping;
    atomic_int error; /* errno of a failed waking that no caller has learned of yet */
} Waker;

void waker_init(Waker *self, int fd);

/* Returns -1 with errno set if this waking failed, or an earlier one. */
int waker_wake(Waker *self);

/* Does the waking that is due and ends the thread. No other thread may be in waker_wake(). */
void waker_stop(Waker *self);

#endif
