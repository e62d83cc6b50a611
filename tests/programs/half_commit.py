"""Begin a commit, and end it when there is a line on stdin."""

import mmap
import struct
import sys

with open(sys.argv[1], "r+b") as file:
    page = mmap.mmap(file.fileno(), 0)
    (seq_count,) = struct.unpack_from("<I", page, 12)
    struct.pack_into("<I", page, 12, seq_count | 1)
    print(seq_count | 1, flush=True)
    sys.stdin.readline()
    struct.pack_into("<I", page, 12, (seq_count | 1) + 1)
