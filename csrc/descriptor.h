/*
 * Descriptors that the child of a fork does not keep: those of a writer's segment and lock.
 */
#ifndef VMCLOCK_ASYNC_CORE_DESCRIPTOR_H
#define VMCLOCK_ASYNC_CORE_DESCRIPTOR_H

#include <Python.h>

#include <pthread.h>
#include <stdbool.h>

/* Held from before a fork until after it, in parent and child. Whatever a fork must find whole is changed under it. */
extern pthread_mutex_t fork_mutex;

/* The caller of each of these three holds fork_mutex. */
bool descriptor_keep(int fd); /* false: no memory. A descriptor that is kept already stays so. */
void descriptor_close(int fd); /* does nothing if fd is not kept: then it is not ours, or not any more */
void descriptors_close_in_child(void);

PyObject *core_open_private(PyObject *module, PyObject *args);
PyObject *core_close_private(PyObject *module, PyObject *fd);

#endif
