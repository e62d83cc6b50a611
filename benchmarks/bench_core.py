"""The cost of one read and of one commit, beside ``time.time_ns()`` in the same run.

    python benchmarks/bench_core.py [--fast]

``core`` is the compiled core alone; ``SegmentWriter.write`` also packs the body and wakes readers, and
``SegmentReader.snapshot`` unpacks it into models.
"""

import os
import tempfile

import pyperf

from vmclock_async import ClockStatus, Flags, SegmentReader, SegmentWriter, VMClockBody


def main() -> None:
    """Run the benchmarks that pyperf's options choose."""
    runner = pyperf.Runner()
    body = VMClockBody(
        flags=Flags.TIME_MAXERROR_VALID,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=2**40,
        counter_period_frac_sec=2**63,
        vm_generation_counter=1,
    )
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=directory) as folder,
        SegmentWriter(f"{folder}/shm0", size=112) as writer,
    ):
        writer.write(body)
        with SegmentReader(writer.path) as reader:
            names = {
                "body": body,
                "packed": body.pack(),
                "page": writer._page,
                "reader": reader,
                "writer": writer,
            }
            runner.timeit("time.time_ns()", "time_ns()", setup="from time import time_ns")
            runner.timeit("core: commit, without the wake-up", "page.commit(packed, None, None)", globals=names)
            runner.timeit("core: read", "page.read()", globals=names)
            runner.timeit("core: read with the counter", "page.read_with_counter()", globals=names)
            runner.timeit("SegmentWriter.write", "writer.write(body)", globals=names)
            runner.timeit("SegmentReader.snapshot", "reader.snapshot()", globals=names)


if __name__ == "__main__":
    main()
