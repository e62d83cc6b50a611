/*
 * Wakes the readers of a file after a commit, and sets its mtime to the time of the commit.
 *
 * futimens() checks permission at each call, so it fails in a process that gave up its privileges after opening. A
 * write() does not check, sets the times as well, and raises IN_MODIFY. So such a process writes the first byte of the
 * magic over itself: that byte never changes while the page is mapped, and readers, which load the word whole, see the
 * same before and after. futimens() comes first because readers of earlier versions watch for IN_ATTRIB alone.
 *
 * futimens() raises IN_ATTRIB for every watch on the file: the kernel goes through the watches one by one within that
 * call, and a reader it wakes may take the caller's processor (for 250 us with five readers on two processors). So a
 * separate thread calls futimens(), and the writer only signals that thread, at a cost that does not grow with the
 * readers. The thread is SCHED_BATCH, so it preempts nobody, least of all the writer, which goes to sleep soon. Under a
 * seccomp filter (systemd's SystemCallFilter=) the policy is left alone: many filters kill a process that calls
 * sched_setscheduler(2).
 *
 * Calls that arrive while one is due count as one: a reader reads the page, and does not count its wake-ups.
 *
 * A signal to a sleeping thread costs 25 us where its processor sleeps too, five times the rest of a commit. So after
 * a call that came within a millisecond of the one before, as in a replay of a recording, the thread stays awake for
 * some rounds and looks by itself. Readers then wake up a tenth of a millisecond after a commit; after a pause they
 * wake up at once.
 *
 * The writer's own thread does the first waking. So the segment of an earlier boot has this boot's mtime once write()
 * has returned, and a writer that commits only once needs no thread.
 *
 * The child of a fork has neither this thread nor the page (page.c), and uses nothing of this file.
 */
#include "waker.h"

#include "seqlock.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC_FIRST_BYTE "V" /* 0x4B4C4356 is "VCLK" in little-endian order */

#define IN_A_ROW_NS 1000000
#define ROUNDS 20

/* Signals the thread, if it sleeps. */
static void call(Waker *self)
{
    if (atomic_exchange(&self->asleep, 0))
        sem_post(&self->call);
}

static void wake_all(Waker *self)
{
    if (!futimens(self->fd, NULL))
        return;
    bool may_not = errno == EACCES || errno == EPERM;
    if (!may_not || pwrite(self->fd, MAGIC_FIRST_BYTE, 1, 0) != 1)
        atomic_store(&self->error, errno);
}

/* Wakes the readers if that is due, and looks again while calls follow each other; returns whether to go on. */
static bool wake_while_called(Waker *self, int64_t *last_ns)
{
    const struct timespec pause = {.tv_nsec = 50 * 1000};
    int rounds = 0;
    do {
        bool stop = atomic_load(&self->stopping); /* before due: nothing falls due after stopping was set */
        if (atomic_exchange(&self->due, 0)) {
            wake_all(self);
            int64_t now_ns = monotonic_ns();
            rounds = now_ns - *last_ns < IN_A_ROW_NS ? ROUNDS : 0;
            *last_ns = now_ns;
        }
        if (stop)
            return false;
    } while (rounds-- > 0 && (nanosleep(&pause, NULL), true));
    return true;
}

static void *wake_when_called(void *waker)
{
    Waker *self = waker;
    int64_t last_ns = INT64_MIN / 2;
    do {
        while (sem_wait(&self->call))
            ; /* EINTR */
        if (!wake_while_called(self, &last_ns))
            return NULL;
        atomic_store(&self->asleep, 1); /* before the look at due: a caller sets due before it looks at this */
        if (atomic_load(&self->due) || atomic_load(&self->stopping))
            call(self);
    } while (true);
}

static void set_policy(Waker *self, int policy)
{
    const struct sched_param unused = {0};
    if (prctl(PR_GET_SECCOMP) == 0)
        pthread_setschedparam(self->thread, policy, &unused); /* a failure costs time alone */
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
    atomic_init(&self->asleep, 1);
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
    else {
        atomic_store(&self->due, 1);
        call(self);
    }
    errno = atomic_exchange(&self->error, 0);
    return errno ? -1 : 0;
}

void waker_stop(Waker *self)
{
    if (self->has_thread) {
        atomic_store(&self->stopping, 1);
        set_policy(self, SCHED_OTHER); /* so that a busy machine does not keep the caller waiting */
        call(self);
        pthread_join(self->thread, NULL);
    }
    sem_destroy(&self->call);
    pthread_mutex_destroy(&self->mutex);
}
