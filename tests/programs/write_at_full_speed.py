"""Commit to a page at full speed, until stdin ends."""

import os
import select
import sys

from vmclock_async import _core

page = _core.Page(os.open(sys.argv[1], os.O_RDWR), writable=True)
print("ready", flush=True)
sys.stdin.readline()
number = 1
while not select.select([sys.stdin], [], [], 0)[0]:  # until its end
    for _ in range(1000):
        number += 1
        page.commit(number.to_bytes(8, "little") * 11, number & 255, number >> 8 & 255)
print(number - 1)
