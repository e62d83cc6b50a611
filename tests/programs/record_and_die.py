"""Write the records on stdin to a recording, and be killed."""

import os
import signal
import sys

from vmclock_async.recording import Record, RecordingHeader, RecordingWriter

header, *lines = sys.stdin
writer = RecordingWriter(sys.argv[1], RecordingHeader.model_validate_json(header))
for line in lines:
    writer.write(Record.model_validate_json(line))
os.kill(os.getpid(), signal.SIGKILL)
