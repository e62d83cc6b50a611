"""Start an ntpd in this program's own network, let an ntp source ask it, and print what a reader would have got."""

import ctypes
import fcntl
import json
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio
import pytest

from kit.notes import Notes, contains_realtime
from kit.ntp_source import quicken
from vmclock_ntp import NtpSettings, NtpSource

LOOKS: Final = 100
SMALL_NS: Final = 50 * 10**6
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1
CONFIGURATION: Final = """\
refclock shm minpoll 0 maxpoll 0
driftfile {directory}/drift
restrict 127.0.0.1
"""
"""It follows a clock that this program plays; its dispersion falls below a second within ten. It takes the frequency
from the file, where it would measure for five minutes, and limits the rate of nobody here."""
SHM_KEY: Final = 0x4E545030
REQUEST: Final = bytes([4 << 3 | 3]).ljust(48, b"\0")


class ShmTime(ctypes.Structure):
    """A sample for ntpd's driver 28, whose documentation has the layout."""

    _fields_ = (
        ("mode", ctypes.c_int),
        ("count", ctypes.c_int),
        ("clock_sec", ctypes.c_long),
        ("clock_usec", ctypes.c_int),
        ("receive_sec", ctypes.c_long),
        ("receive_usec", ctypes.c_int),
        ("leap", ctypes.c_int),
        ("precision", ctypes.c_int),
        ("samples", ctypes.c_int),
        ("valid", ctypes.c_int),
        ("clock_nsec", ctypes.c_uint),
        ("receive_nsec", ctypes.c_uint),
        ("unused", ctypes.c_int * 8),
    )


async def play_clock() -> None:
    """Play a reference clock that agrees with this machine's: each time ntpd has taken a sample, there is another."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(SHM_KEY, ctypes.sizeof(ShmTime), 0o1600)  # IPC_CREAT
    shared = ShmTime.from_address(libc.shmat(number, None, 0))
    shared.precision = -20
    while True:
        if not shared.valid:
            sec, nsec = divmod(time.time_ns(), 10**9)
            shared.clock_sec = shared.receive_sec = sec
            shared.clock_usec = shared.receive_usec = nsec // 1000
            shared.clock_nsec = shared.receive_nsec = nsec
            shared.valid = 1
        await anyio.sleep(0.1)


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


async def serves() -> None:
    """Return once the server gives a time that the source takes: one that is off by less than a second."""
    while True:
        async with await anyio.create_connected_udp_socket("127.0.0.1", 123) as server:
            with anyio.move_on_after(0.1):
                await server.send(REQUEST)
                answer = await server.receive()
                leap, dispersion_s = answer[0] >> 6, int.from_bytes(answer[8:12], "big") / 2**16
                if leap == 0 and dispersion_s < 0.9:
                    return
        await anyio.sleep(0.05)


async def outlive(ntpd: "subprocess.Popen[bytes]") -> None:
    """End this program if *ntpd* ends: what it wrote says why."""
    while ntpd.poll() is None:
        await anyio.sleep(0.1)
    raise SystemExit(f"ntpd ended with {ntpd.returncode}")


async def main(ntpd: "subprocess.Popen[bytes]") -> None:
    notes, looks, outside = Notes(), 0, 0
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(play_clock)
        tasks.start_soon(outlive, ntpd)
        await serves()
        tasks.start_soon(NtpSource(NtpSettings(servers=("127.0.0.1",))).run, notes)
        while looks < LOOKS or (notes.last.time_maxerror_nanosec or 0) > SMALL_NS:
            await anyio.sleep(0.01)
            if notes.updates and notes.last.measures:
                looks += 1
                outside += not contains_realtime(notes.last)
        tasks.cancel_scope.cancel()
    errors_ns = [update.time_maxerror_nanosec for update in notes.updates]
    print(json.dumps({"looks": looks, "outside": outside, "errors_ns": errors_ns, "statuses": notes.statuses}))


raise_loopback()
with pytest.MonkeyPatch.context() as monkeypatch, tempfile.TemporaryDirectory() as directory:
    quicken(monkeypatch)
    configuration = Path(directory) / "ntp.conf"
    configuration.write_text(CONFIGURATION.format(directory=directory))
    (Path(directory) / "drift").write_text("0.0\n")
    ntpd = [sys.argv[1], "--nofork", "--configfile", str(configuration)]
    with subprocess.Popen(ntpd, stdout=sys.stderr) as process:
        try:
            anyio.run(main, process)
        finally:
            process.kill()
