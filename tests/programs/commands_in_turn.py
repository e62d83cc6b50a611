"""Run commands, each in a child of its own, in the surroundings in which this interpreter was started.

The first argument is a file with the words of each command as JSON; the status of each, and the number of bytes that
it wrote to the file of the third argument, which may be its stderr, go to the file of the second.
"""

import json
import os
import sys
from pathlib import Path

from vmclock_async._cli import app, now, publish, script, show, watch  # noqa: F401 - once, not in each child

commands, told, complaints = map(Path, sys.argv[1:])
results = []
for words in json.loads(commands.read_bytes()):
    before = complaints.stat().st_size
    if not (child := os.fork()):
        # As the interpreter decodes them: where the locale is ASCII, each byte beyond it by itself.
        sys.argv[1:] = [os.fsdecode(word.encode("utf-8", "surrogateescape")) for word in words]
        sys.exit(script())
    _, status = os.waitpid(child, 0)
    results.append([os.waitstatus_to_exitcode(status), complaints.stat().st_size - before])
told.write_text(json.dumps(results))
