/* Numbers, sizes and offsets of the interface to PTP clocks, as the kernel's header on this machine has them. */
#include <linux/ptp_clock.h>
#include <stddef.h>
#include <stdio.h>

#define SAY(name, value) printf("%s %lu\n", name, (unsigned long)(value))

int main(void)
{
    SAY("SYS_OFFSET_PRECISE", PTP_SYS_OFFSET_PRECISE);
    SAY("SYS_OFFSET_EXTENDED", PTP_SYS_OFFSET_EXTENDED);
    SAY("MAX_SAMPLES", PTP_MAX_SAMPLES);
    SAY("CLOCK_TIME", sizeof(struct ptp_clock_time));
    SAY("CLOCK_TIME.nsec", offsetof(struct ptp_clock_time, nsec));
    SAY("PRECISE", sizeof(struct ptp_sys_offset_precise));
    SAY("PRECISE.sys_monoraw", offsetof(struct ptp_sys_offset_precise, sys_monoraw));
    SAY("EXTENDED", sizeof(struct ptp_sys_offset_extended));
    SAY("EXTENDED.clockid", offsetof(struct ptp_sys_offset_extended, n_samples) + sizeof(unsigned int));
    SAY("EXTENDED.ts", offsetof(struct ptp_sys_offset_extended, ts));
    return 0;
}
