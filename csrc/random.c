/*
 * Random bytes of the processor's own: a snapshot of a machine holds no part of its generator. Manual: _core.pyi.
 *
 * Each call asks whether the instruction is there. A remembered answer would be part of a snapshot, and the machine
 * that is restored from it may have another processor.
 */
#include "random.h"

#include <stdbool.h>
#include <stdint.h>

#include "processor.h"

#define WORDS 4
#define TRIES 10 /* Intel's advice for RDRAND: a processor that refuses ten times in a row is broken */

#if defined(__x86_64__)
#define FEATURES 1
#define RDRAND (1u << 30) /* bit of its ECX */

static bool has_random(void)
{
    unsigned eax, ebx, ecx, edx;
    return may_ask_processor() && __get_cpuid(FEATURES, &eax, &ebx, &ecx, &edx) && ecx & RDRAND;
}

/* False: the generator has nothing ready (carry flag 0). */
static bool random_word(uint64_t *word)
{
    bool ready;
    __asm__ volatile("rdrand %0" : "=r"(*word), "=@ccc"(ready));
    return ready;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

#define RNG (1ul << 16) /* HWCAP2_RNG, which headers before Linux 5.6 lack */

static bool has_random(void) { return getauxval(AT_HWCAP2) & RNG; }

/* False: the generator has nothing ready (NZCV 0b0100). RNDR by its number: assemblers know the name from v8.5 on. */
static bool random_word(uint64_t *word)
{
    uint32_t ready;
    __asm__ volatile("mrs %0, s3_3_c2_c4_0\n\tcset %w1, ne" : "=r"(*word), "=r"(ready) : : "cc");
    return ready;
}
#endif

PyObject *core_processor_random(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    uint64_t words[WORDS];
    if (!has_random())
        Py_RETURN_NONE;
    for (int i = 0; i < WORDS; i++) {
        int tries = TRIES;
        while (!random_word(&words[i]))
            if (--tries == 0)
                Py_RETURN_NONE;
    }
    return PyBytes_FromStringAndSize((const char *)words, sizeof words);
}
