"""Open a clock where XDG_RUNTIME_DIR is each of the arguments, which are another user's."""

import os
import sys

from nobody import become_nobody
from vmclock_async import Clock, VMClockError
from vmclock_async._paths import user_path

become_nobody()
for value in sys.argv[1:]:
    os.environ["XDG_RUNTIME_DIR"] = value
    assert value not in str(user_path()) or value == "/"
    try:
        Clock()
    except VMClockError as exc:
        print(type(exc).__name__)
    else:
        print("there")
