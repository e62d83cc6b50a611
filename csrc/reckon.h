/*
 * Dead reckoning: from one whole copy of a page and a counter value to an interval of UTC.
 *
 * This is the arithmetic of reckoning.py, which has the formulas and gives the reason where there is no interval.
 * Here the answer is then a mere false, and it is false in rare cases too (a leap second announced, in progress or just
 * over; an age that is exactly the limit; an error that grew by 2^64 / 2^shift ns or more; a reference 2^34 s after
 * 1970 or later): the caller asks reckoning.py.
 *
 * Integers are exact; every rounding goes outward. Times without a unit are in 2^-64 s. Only the counter takes more
 * of now()'s time. So a sum is 128 bits wide only where it has to be: elsewhere it is checked for a carry.
 */
#ifndef VMCLOCK_ASYNC_RECKON_H
#define VMCLOCK_ASYNC_RECKON_H

#include <string.h>

#include "seqlock.h"

__extension__ typedef __int128 i128;
__extension__ typedef unsigned __int128 u128;

#define NS_PER_S 1000000000
#define LARGEST_SHIFT 63
#define SECOND ((i128)1 << 64)
#define FARTHEST_S (UINT64_C(1) << 34) /* past every year that fits, and short of every overflow */

enum { SYNCHRONIZED = 2, FREERUNNING = 3 };
enum { UTC = 0, TAI = 1 };
enum { PRE_POS = 1, POST_NEG = 5 };
enum { TAI_OFFSET_VALID = 1 << 0, PERIOD_MAXERROR_VALID = 1 << 4, TIME_MAXERROR_VALID = 1 << 6 };

struct interval {
    int64_t earliest_ns, latest_ns;
    uint8_t status;
};

struct limits {
    u128 before, after; /* how far a reading may be from its reference, on either side; less than FARTHEST_S */
    uint64_t drift_ppb; /* replaces a maximum period error that the page lacks; 0: no replacement */
    uint8_t counter_id;
};

INLINE u128 product(uint64_t one, uint64_t other) { return (u128)one * other; }
INLINE uint64_t upper(u128 number) { return (uint64_t)(number >> 64); }
INLINE uint64_t lower(u128 number) { return (uint64_t)number; }

/* The bits that a shift drops. */
INLINE uint64_t dropped(unsigned shift) { return (UINT64_C(1) << shift) - 1; }

/* number / 2^shift, rounded down. The shift is 0 to 63, which the compiler does not know: a shift of the two words
 * together would cost it a case for 64 and more. */
INLINE u128 shifted(u128 number, unsigned shift)
{
    uint64_t high = upper(number), low = lower(number);
    return (u128)(high >> shift) << 64 | low >> shift | high << 1 << (LARGEST_SHIFT - shift);
}

/* Growth of the error, rounded up: ticks * rate * 10^9 / 2^(64 + shift). False: it is 2^64 / 2^shift ns or more. */
INLINE bool growth_ns(uint64_t ticks, uint64_t rate, unsigned shift, uint64_t *growth)
{
    u128 rate_ns = product(rate, NS_PER_S);
    u128 low = product(ticks, lower(rate_ns)), high = product(ticks, upper(rate_ns));
    uint64_t sum; /* of high and of low's upper half, in units of 2^-shift ns; below them is low's lower half */
    if (upper(high) || __builtin_add_overflow(lower(high), upper(low), &sum) ||
        __builtin_add_overflow(sum, dropped(shift) + (lower(low) != 0), &sum))
        return false;
    *growth = sum >> shift;
    return true;
}

INLINE bool reckon(const uint64_t *copy, uint64_t counter, const struct limits *limits, struct interval *out)
{
    struct vmclock_abi page;
    memcpy(&page, copy, sizeof(page));
    unsigned shift = page.counter_period_shift;
    uint64_t rate = page.counter_period_maxerror_rate_frac_sec;
    int64_t offset_s = 0;
    uint32_t constants = (uint32_t)copy[CONTROL];
    if (!LIKELY(constants == control_word(0, UTC, limits->counter_id, 1))) {
        if (constants != control_word(0, TAI, limits->counter_id, 1) || !(page.flags & TAI_OFFSET_VALID) ||
            page.tai_offset_sec >= 0)
            return false;
        offset_s = page.tai_offset_sec;
    }
    if (shift > LARGEST_SHIFT || (page.clock_status != SYNCHRONIZED && page.clock_status != FREERUNNING) ||
        !page.counter_period_frac_sec || !(page.flags & TIME_MAXERROR_VALID) || page.time_sec >= FARTHEST_S ||
        (page.leap_indicator >= PRE_POS && page.leap_indicator <= POST_NEG))
        return false;
    if (!LIKELY(page.flags & PERIOD_MAXERROR_VALID)) {
        if (!limits->drift_ppb)
            return false;
        u128 drift = product(page.counter_period_frac_sec, limits->drift_ppb);
        rate = (uint64_t)((drift + NS_PER_S - 1) / NS_PER_S); /* fits: at most 10^9 ppb */
    }

    int64_t difference = (int64_t)(counter - page.counter_value);
    bool past = difference < 0;
    uint64_t ticks = past ? -(uint64_t)difference : (uint64_t)difference;
    u128 span = product(ticks, page.counter_period_frac_sec);
    u128 elapsed = shifted(span, shift);
    bool rest = lower(span) & dropped(shift);
    if (elapsed >= (past ? limits->before : limits->after))
        return false;
    /* True time is later than low_s and low_frac by at most `rest`. Modulo 2^64 s, a time before 1970 is large. */
    uint64_t low_s = page.time_sec + (uint64_t)offset_s, low_frac, high_frac;
    if (past) {
        elapsed += rest;
        low_s -= upper(elapsed) + __builtin_sub_overflow(page.time_frac_sec, lower(elapsed), &low_frac);
    } else
        low_s += upper(elapsed) + __builtin_add_overflow(page.time_frac_sec, lower(elapsed), &low_frac);
    if (low_s > INT64_MAX / NS_PER_S)
        return false;
    u128 fraction = product(low_frac, NS_PER_S); /* in 2^-64 ns */
    uint64_t low_ns = low_s * NS_PER_S + upper(fraction), growth, error_ns;
    uint64_t high_ns = low_ns + __builtin_add_overflow(lower(fraction), rest ? NS_PER_S : 0, &high_frac);
    high_ns += high_frac != 0;
    if (!growth_ns(ticks, rate, shift, &growth) ||
        __builtin_add_overflow(page.time_maxerror_nanosec, growth, &error_ns) || error_ns > low_ns ||
        __builtin_add_overflow(high_ns, error_ns, &out->latest_ns))
        return false;
    out->earliest_ns = (int64_t)(low_ns - error_ns);
    out->status = page.clock_status;
    return true;
}

/* Whether `ticks` of the counter of `copy` last at most `most`, in 2^-64 s. */
static inline bool ticks_last_at_most(const uint64_t *copy, uint64_t ticks, u128 most)
{
    struct vmclock_abi page;
    memcpy(&page, copy, sizeof(page));
    return page.counter_period_shift <= LARGEST_SHIFT &&
           shifted(product(ticks, page.counter_period_frac_sec), page.counter_period_shift) <= most;
}

/* Day of the month of a day since 1970-01-01, from 0: 400 years of the Gregorian calendar are 146,097 days. */
static inline int64_t day_of_month(int64_t day)
{
    int64_t of_era = (day + 719468) % 146097; /* since 0000-03-01, so that a leap day ends its year */
    int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    int64_t month = (5 * of_year + 2) / 153;
    return of_year - (153 * month + 2) / 5;
}

/* Whether `ns` lies in an earlier month of UTC than the reference of `copy`: a leap second that the page no longer
 * mentions may lie between them. reckon() has made an interval of the page. */
static inline bool before_month_of_reference(const uint64_t *copy, int64_t ns)
{
    struct vmclock_abi page;
    memcpy(&page, copy, sizeof(page));
    int64_t utc_s = (int64_t)page.time_sec + (page.time_type == TAI ? page.tai_offset_sec : 0);
    int64_t day = utc_s / 86400 - (utc_s % 86400 < 0);
    return ns < (i128)(day - day_of_month(day)) * 86400 * NS_PER_S;
}

/* Whether a leap second is announced or just over, or the time lies in an earlier month than the reference. */
static inline bool is_near_leap(const uint64_t *copy, int64_t ns)
{
    struct vmclock_abi page;
    memcpy(&page, copy, sizeof(page));
    return page.leap_indicator || before_month_of_reference(copy, ns);
}

/* The kernel slews CLOCK_MONOTONIC by at most a tenth (ADJ_TICK) plus 500 ppm (ADJ_FREQUENCY), and it assumes that an
 * oscillator is off by at most 500 ppm (kernel/time/ntp.c). So CLOCK_MONOTONIC runs at 0.899 to 1.101 of true time.
 * False: the interval would begin before 1970. */
static inline bool set_back_by_monotonic(struct interval *now, int64_t age_ns)
{
    i128 earliest_ns = now->earliest_ns - ((i128)age_ns * 1000 + 898) / 899;
    i128 latest_ns = now->latest_ns - (i128)age_ns * 1000 / 1101;
    now->earliest_ns = (int64_t)earliest_ns;
    now->latest_ns = (int64_t)latest_ns;
    return earliest_ns >= 0;
}

#endif
