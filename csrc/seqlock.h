/*
 * The protocol of one VMClock page: ordered loads and stores, and the counter.
 *
 * Layout: Linux UAPI header include/uapi/linux/vmclock-abi.h, checked below field by field.
 * Everything that must be ordered is in this file, and it uses no Python: a test compiles it alone for other
 * architectures and searches its object code for the barriers named here.
 *
 * The page is only accessed as aligned 64-bit atomic words, because memcpy may tear and the compiler may move or drop
 * it.
 */
#ifndef VMCLOCK_ASYNC_SEQLOCK_H
#define VMCLOCK_ASYNC_SEQLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a VMClock page is little-endian, so the machine that maps it must be too"
#endif

#define INLINE static inline __attribute__((always_inline))
#define LIKELY(condition) __builtin_expect(!!(condition), 1)

/* type, name, offset: each field of the ABI, checked where the compiler puts it */
#define VMCLOCK_ABI(FIELD)                                       \
    FIELD(uint32_t, magic, 0x00)                                 \
    FIELD(uint32_t, size, 0x04)                                  \
    FIELD(uint16_t, version, 0x08)                               \
    FIELD(uint8_t, counter_id, 0x0A)                             \
    FIELD(uint8_t, time_type, 0x0B)                              \
    FIELD(uint32_t, seq_count, 0x0C)                             \
    FIELD(uint64_t, disruption_marker, 0x10)                     \
    FIELD(uint64_t, flags, 0x18)                                 \
    FIELD(uint16_t, padding, 0x20)                               \
    FIELD(uint8_t, clock_status, 0x22)                           \
    FIELD(uint8_t, leap_second_smearing_hint, 0x23)              \
    FIELD(int16_t, tai_offset_sec, 0x24)                         \
    FIELD(uint8_t, leap_indicator, 0x26)                         \
    FIELD(uint8_t, counter_period_shift, 0x27)                   \
    FIELD(uint64_t, counter_value, 0x28)                         \
    FIELD(uint64_t, counter_period_frac_sec, 0x30)               \
    FIELD(uint64_t, counter_period_esterror_rate_frac_sec, 0x38) \
    FIELD(uint64_t, counter_period_maxerror_rate_frac_sec, 0x40) \
    FIELD(uint64_t, time_sec, 0x48)                              \
    FIELD(uint64_t, time_frac_sec, 0x50)                         \
    FIELD(uint64_t, time_esterror_nanosec, 0x58)                 \
    FIELD(uint64_t, time_maxerror_nanosec, 0x60)                 \
    FIELD(uint64_t, vm_generation_counter, 0x68)

#define MEMBER(type, name, offset) type name;
struct vmclock_abi {
    VMCLOCK_ABI(MEMBER)
};
#define CHECK(type, name, offset) \
    _Static_assert(offsetof(struct vmclock_abi, name) == (offset), #name " is not where the ABI has it");
VMCLOCK_ABI(CHECK)
#undef MEMBER
#undef CHECK
_Static_assert(sizeof(struct vmclock_abi) == 112, "the ABI's structure is 112 bytes");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit loads and stores must be single instructions");

typedef _Atomic uint64_t page_word;

enum {
    IDENTITY = 0,    /* word 0: magic, size */
    CONTROL = 1,     /* word 1: version, counter_id, time_type, seq_count */
    MARKER = 2,      /* word 2, the body's first: disruption_marker */
    BODY = 2,        /* words 2 to 12: the body; 13: the generation counter */
    PAGE_WORDS = 14, /* all words that the ABI defines */
};

#define VMCLOCK_MAGIC UINT64_C(0x4B4C4356)
#define SEQ_ODD (UINT64_C(1) << 32)
#define READ_LIMIT_NS 50000

static inline uint32_t control_seq_count(uint64_t control) { return (uint32_t)(control >> 32); }

static inline uint64_t control_word(uint32_t seq_count, uint8_t time_type, uint8_t counter_id, uint16_t version)
{
    return (uint64_t)seq_count << 32 | (uint64_t)time_type << 24 | (uint64_t)counter_id << 16 | version;
}

/* Steps 1 and 2 of a commit, whose control word is odd. They need the fence: a release store orders only what precedes
 * it and would let the body's stores move up past it on Arm. */
static inline void control_open(page_word *page, uint64_t control)
{
    atomic_store_explicit(&page[CONTROL], control, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
}

static inline uint64_t seqlock_begin(page_word *page, uint64_t constants_mask)
{
    uint64_t control = atomic_load_explicit(&page[CONTROL], memory_order_relaxed);
    control = (control & constants_mask) | SEQ_ODD; /* odd already if a writer died within a commit */
    control_open(page, control);
    return control;
}

/* Commits `words` words of body. A negative counter_id or time_type keeps what the page has. */
static inline uint32_t seqlock_commit(page_word *page, const uint64_t *body, size_t words, int counter_id,
                                      int time_type)
{
    uint64_t control = seqlock_begin(page, UINT64_MAX);
    for (size_t i = 0; i < words; i++)
        atomic_store_explicit(&page[BODY + i], body[i], memory_order_relaxed);
    uint32_t seq_count = control_seq_count(control) + 1;
    uint64_t next = control_word(seq_count, time_type < 0 ? (uint8_t)(control >> 24) : (uint8_t)time_type,
                                 counter_id < 0 ? (uint8_t)(control >> 16) : (uint8_t)counter_id, 1);
    atomic_store_explicit(&page[CONTROL], next, memory_order_release);
    return seq_count;
}

/* Starts cold in place: version 0 and a zero body. seq_count goes on upward, because a reader may remember a number
 * that a restart at 0 would reach again. */
static inline uint32_t seqlock_reset(page_word *page, uint32_t size)
{
    size_t words = size < sizeof(struct vmclock_abi) ? size / sizeof(uint64_t) : PAGE_WORDS;
    uint64_t control = seqlock_begin(page, UINT64_MAX << 32);
    atomic_store_explicit(&page[IDENTITY], (uint64_t)size << 32 | VMCLOCK_MAGIC, memory_order_relaxed);
    for (size_t i = BODY; i < words; i++)
        atomic_store_explicit(&page[i], 0, memory_order_relaxed);
    uint32_t seq_count = control_seq_count(control) + 1;
    atomic_store_explicit(&page[CONTROL], control_word(seq_count, 0, 0, 0), memory_order_release);
    return seq_count;
}

/*
 * A ClockBound segment, whose protocol is a seqlock too. Word 0 is the magic, word 1 holds size, version and, in its
 * upper 16 bits, the generation: odd inside a commit, even at rest, 0 before the first commit and never again. Version
 * 0 says that the segment is begun afresh. Clients load version and generation as 16 bits each.
 */
enum {
    CLOCKBOUND_HEADER = 2,     /* words */
    CLOCKBOUND_MOST_WORDS = 13 /* layout 3; layout 2 has 10 */
};
#define CLOCKBOUND_SIZE UINT64_C(0xFFFFFFFF)
#define CLOCKBOUND_SIZE_AND_VERSION UINT64_C(0xFFFFFFFFFFFF)

/* Commits `words` words, whose own generation is ignored; returns the even generation. */
static inline uint16_t clockbound_commit(page_word *page, const uint64_t *contents, size_t words)
{
    uint64_t control = atomic_load_explicit(&page[CONTROL], memory_order_relaxed);
    uint64_t header = contents[CONTROL] & CLOCKBOUND_SIZE_AND_VERSION;
    bool continues = (control & CLOCKBOUND_SIZE_AND_VERSION) == header &&
                     atomic_load_explicit(&page[IDENTITY], memory_order_relaxed) == contents[IDENTITY];
    uint16_t odd = (uint16_t)(control >> 48) | 1; /* odd already if a writer died within a commit */
    control_open(page, (continues ? header : header & CLOCKBOUND_SIZE) | (uint64_t)odd << 48);
    atomic_store_explicit(&page[IDENTITY], contents[IDENTITY], memory_order_relaxed);
    for (size_t i = CLOCKBOUND_HEADER; i < words; i++)
        atomic_store_explicit(&page[i], contents[i], memory_order_relaxed);
    uint16_t even = odd == UINT16_MAX ? 2 : (uint16_t)(odd + 1);
    atomic_store_explicit(&page[CONTROL], header | (uint64_t)even << 48, memory_order_release);
    return even;
}

/* A build for tests adds this to the counter (CFLAGS=-DVMCLOCK_COUNTER_SHIFT=...), so that the suite can be run on a
 * machine that has just booted, and across the counter's end. */
#ifndef VMCLOCK_COUNTER_SHIFT
#define VMCLOCK_COUNTER_SHIFT 0
#endif

/* Reads the raw counter, after the load of the control word and before every later load. (On Arm isb waits for that
 * load, an acquire, but not for the relaxed loads of the body: these may come later, and are checked all the same.) */
static inline uint64_t read_counter(void)
{
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high) : : "memory");
    return ((uint64_t)high << 32 | low) + (uint64_t)(VMCLOCK_COUNTER_SHIFT);
#elif defined(__aarch64__)
    /* A load that depends on the counter, as in the kernel's arch_counter_enforce_ordering: no later load can be
     * satisfied before it. */
    uint64_t ticks, scratch;
    __asm__ volatile("isb\n\tmrs %0, cntvct_el0\n\teor %1, %0, %0\n\tadd %1, sp, %1\n\tldr xzr, [%1]"
                     : "=r"(ticks), "=&r"(scratch)
                     :
                     : "memory");
    return ticks + (uint64_t)(VMCLOCK_COUNTER_SHIFT);
#else
#error "the VMClock ABI names no counter for this architecture"
#endif
}

/* Reads the raw counter within a read of a page, which checks its later loads by itself. On x86 these need no lfence:
 * they are in order with each other, and though one may be executed before rdtsc, it is not retired before rdtsc. A
 * hypervisor changes a device's marker while the processor is stopped; a processor stopped in between executes that
 * load again. */
static inline uint64_t read_counter_in_read(void)
{
#if defined(__x86_64__)
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return ((uint64_t)high << 32 | low) + (uint64_t)(VMCLOCK_COUNTER_SHIFT);
#else
    return read_counter();
#endif
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield" : : : "memory");
#endif
}

/* The type of seqlock_try_read() and seqlock_read(). */
typedef bool seqlock_reading(page_word *page, uint64_t *copy, uint64_t *counter, page_word *fence, uint64_t *marker);

/* One try: true when `copy` is whole. If asked to, it reads the counter and then another page's marker inside it. */
INLINE bool seqlock_try_read(page_word *page, uint64_t *copy, uint64_t *counter, page_word *fence, uint64_t *marker)
{
    copy[CONTROL] = atomic_load_explicit(&page[CONTROL], memory_order_acquire);
    if (copy[CONTROL] & SEQ_ODD)
        return false;
    copy[IDENTITY] = atomic_load_explicit(&page[IDENTITY], memory_order_relaxed);
    /* Unrolled, so that the words of a caller's copy stay in registers. */
#pragma GCC unroll 14
    for (size_t i = BODY; i < PAGE_WORDS; i++)
        copy[i] = atomic_load_explicit(&page[i], memory_order_relaxed);
    if (counter)
        *counter = read_counter_in_read();
    if (fence)
        *marker = atomic_load_explicit(&fence[MARKER], memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&page[CONTROL], memory_order_relaxed) == copy[CONTROL];
}

static inline int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Tries for at most READ_LIMIT_NS; it reads the clock only once the first try has failed. */
INLINE bool seqlock_read(page_word *page, uint64_t *copy, uint64_t *counter, page_word *fence, uint64_t *marker)
{
    if (seqlock_try_read(page, copy, counter, fence, marker))
        return true;
    int64_t deadline = monotonic_ns() + READ_LIMIT_NS;
    do {
        for (int i = 0; i < 8; i++)
            cpu_relax();
        if (seqlock_try_read(page, copy, counter, fence, marker))
            return true;
    } while (monotonic_ns() < deadline);
    return false;
}

#endif
