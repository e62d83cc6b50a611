/* Whether an x86 processor may be asked about itself, which is not so in every process. */
#ifndef VMCLOCK_ASYNC_CORE_PROCESSOR_H
#define VMCLOCK_ASYNC_CORE_PROCESSOR_H

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GET_CPUID 0x1011 /* arch_prctl(2): returns 0 where CPUID raises SIGSEGV */

static inline bool may_ask_processor(void) { return syscall(SYS_arch_prctl, GET_CPUID, 0) != 0; }
#endif

#endif
