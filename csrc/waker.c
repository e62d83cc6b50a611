/*
 * Waking the readers of a file after a commit, and setting its mtime to when that was.
 *
 * futimens() asks for permission at each call: a process that gave up its privileges after opening has none. A write()
 * does not ask, sets the times as well, and raises IN_MODIFY. So then the first byte of the magic is written over itself:
 * it never changes while the page is mapped, and to readers, which load the word whole, it is the same before and after.
 * futimens() comes first because readers of earlier versions watch for IN_ATTRIB alone.
 *
 * futimens() raises IN_ATTRIB for whoever watches the file: in that call the kernel goes through the watches one by
 * one, and whom it wakes may push the caller off its processor (with five readers on two processors for 250 us). So
 * a thread of its own does it, and the writer only calls that, 4 us whatever happens then. The thread is SCHED_BATCH:
 * it pushes nobody aside, the writer least of all, which goes to sleep soon. (But not where a seccomp filter is in
 * force, as systemd's SystemCallFilter=: many end who calls sched_setscheduler(2).)
 *
 * Calls that come while one is due are one: a reader looks at the page, not at how often it was woken.
 *
 * The first waking is the writer's own: a segment of an earlier boot has this boot's mtime once write() has returned,
 * and who commits once needs no thread.
 *
 * In the child of a fork there is no such thread, and no page either (page.c): nothing here is used again.
 */
#include "waker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC_FIRST_BYTE "V" /* of 0x4B4C4356, little-endian: "VCLK" */

static void wake_all(Waker *self)
{
    if (!futimens(self->fd, NULL))
        return;
    bool may_not = errno == EACCES || errno == EPERM;
    if (!may_not || pwrite(self->fd, MAGIC_FIRST_BYTE, 1, 0) != 1)
        atomic_store(&self->error, errno);
}

static void *wake_when_called(void *waker)
{
    Waker *self = waker;
    bool stop;
    do {
        while (sem_wait(&self->call))
            ; /* EINTR */
        stop = atomic_load(&self->stopping); /* before due: nothing falls due after stopping was set */
        if (atomic_exchange(&self->due, 0))
            wake_all(self);
    } while (!stop);
    return NULL;
}

static void set_policy(Waker *self, int policy)
{
    const struct sched_param unused = {0};
    if (prctl(PR_GET_SECCOMP) == 0)
        pthread_setschedparam(self->thread, policy, &unused); /* if not, it is dearer, and no worse */
}

static bool start_thread(Waker *self)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    self->has_thread = !pthread_create(&self->thread, NULL, wake_when_called, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (self->has_thread) {
        pthread_setname_np(self->thread, "vmclock-waker");
        set_policy(self, SCHED_BATCH);
    }
    return self->has_thread;
}

void waker_init(Waker *self, int fd)
{
    self->fd = fd;
    self->begun = self->has_thread = false;
    atomic_init(&self->due, 0);
    atomic_init(&self->stopping, 0);
    atomic_init(&self->error, 0);
    sem_init(&self->call, 0, 0);
    pthread_mutex_init(&self->mutex, NULL);
}

int waker_wake(Waker *self)
{
    pthread_mutex_lock(&self->mutex);
    bool by_thread = self->has_thread || (self->begun && start_thread(self));
    self->begun = true;
    pthread_mutex_unlock(&self->mutex);
    if (!by_thread)
        wake_all(self);
    else if (!atomic_exchange(&self->due, 1))
        sem_post(&self->call);
    errno = atomic_exchange(&self->error, 0);
    return errno ? -1 : 0;
}

void waker_stop(Waker *self)
{
    if (self->has_thread) {
        atomic_store(&self->stopping, 1);
        set_policy(self, SCHED_OTHER); /* so that a busy machine does not keep the caller waiting */
        sem_post(&self->call);
        pthread_join(self->thread, NULL);
    }
    sem_destroy(&self->call);
    pthread_mutex_destroy(&self->mutex);
}
