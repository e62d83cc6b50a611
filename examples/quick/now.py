"""Read the time, with its error: python examples/quick/now.py"""

from vmclock_async import Clock, VMClockError

try:
    with Clock() as clock:
        now = clock.now()
except VMClockError as exc:
    print("no bounded time:", exc)
else:
    print("not before", now.earliest)
    print("not after ", now.latest)
