"""Write the time to a segment, for ever."""

import sys
import time
from pathlib import Path

from kit.told_world import World

world = World(Path(sys.argv[1]))
print("there", flush=True)
while True:
    world.tell()
    time.sleep(0.01)
