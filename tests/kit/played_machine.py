"""A machine in a directory, for ``doctor`` to look at: nothing is wrong there until a test changes something."""

from pathlib import Path
from typing import Final

from kit.told_world import body_now, device_page
from vmclock_async import SegmentWriter
from vmclock_async._cli.findings import Machine, Probing
from vmclock_async.timebase import COUNTER_ID, ClockStatusBits, Timex

__all__ = ("NOW_S", "PATIENCE_S", "SYNCHRONIZED", "played_machine", "put", "timed_page", "vmclock_page")

NOW_S: Final = 1_800_000_000
"""The machine's time: 2027-01-15."""
PATIENCE_S: Final = 50
_CLOCKSOURCE: Final = "devices/system/clocksource/clocksource0/current_clocksource"
SYNCHRONIZED: Final = Timex(
    state=0,
    status=ClockStatusBits.NANO,
    offset_ns=0,
    frequency_ppb=0,
    maxerror_ns=2_000_000,
    esterror_ns=1000,
    tai_offset_s=37,
    realtime_ns=NOW_S * 10**9,
)


def put(path: Path, content: str | bytes) -> Path:
    """Write *content* to *path*, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def vmclock_page(path: Path) -> Path:
    """A device's page at *path*: a marker, and no time."""
    return put(path, device_page(7))


def timed_page(path: Path) -> Path:
    """A device's page at *path* that has a bounded time and a generation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with SegmentWriter(path, size=112) as writer:
        body = body_now(changes={"disruption_marker": 7, "vm_generation_counter": 3})
        writer.write(body, counter_id=COUNTER_ID)
    return path


def played_machine(directory: Path, segment: Path) -> Machine:
    """A machine in *directory* whose every finding is ok, except for chronyd, which is not there."""
    proc, sys, dev, zoneinfo = (directory / name for name in ("proc", "sys", "dev", "zoneinfo"))
    put(
        proc / "cpuinfo",
        "model name : Played\nflags : constant_tsc nonstop_tsc\nserial : 1\n\nmodel name : Second\n",
    )
    put(proc / "locks", "")
    number = segment.parent.stat().st_dev
    put(proc / "self/mountinfo", f"1 0 {number >> 8}:{number & 255} / /x rw - tmpfs tmpfs rw\n")
    put(proc / "sys/kernel/random/boot_id", "0\n")
    for name, limit in {"max_user_instances": 128, "max_user_watches": 8192}.items():
        put(proc / "sys/fs/inotify" / name, f"{limit}\n")
    (proc / "self/ns").mkdir()
    (proc / "self/ns/time").symlink_to("time:[4026531834]")
    put(sys / _CLOCKSOURCE, "tsc\n" if COUNTER_ID == 1 else "arch_sys_counter\n")
    put(sys / "class/ptp/ptp0/clock_name", "KVM virtual PTP\n")
    (sys / "bus/platform/drivers/vmgenid").mkdir(parents=True)
    (sys / "bus/platform/drivers/vmgenid/VMGENCTR:00").symlink_to(directory)
    timed_page(dev / "vmclock0")
    put(dev / "kmsg", "")
    put(zoneinfo / "leap-seconds.list", f"#\tcomment\n#@\t{NOW_S + 10**7 + 2_208_988_800}\n")
    put(directory / "bin/chronyd", "#!/bin/sh\necho chronyd '(chrony)' version 4.7 '(+CMDMON)'\n").chmod(0o755)
    return Machine(
        proc=proc,
        sys=sys,
        dev=dev,
        zoneinfo=zoneinfo,
        chrony_socket=directory / "run/chrony/chronyd.sock",
        chrony_port="127.0.0.1:1",
        search_path=str(directory / "bin"),
        segment=segment,
        kernel_release="6.13.0-played",
        timex=lambda: SYNCHRONIZED,
        counter_unfit_because=lambda: None,
        utc_s=lambda: float(NOW_S),
        probing=Probing(PATIENCE_S),
    )
