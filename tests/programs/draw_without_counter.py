"""Draw where the kernel forbids reading the counter."""

import ctypes

from vmclock_async._segment.entropy import Ingredients

prctl = ctypes.CDLL(None).prctl
# From here on nearly all of Python that asks for a time dies.
assert not prctl(26, 2, 0, 0, 0)  # PR_SET_TSC, PR_TSC_SIGSEGV
first, second = Ingredients.gather(None, 0), Ingredients.gather(None, 0)
differ = first.mix() != second.mix()
assert not prctl(26, 1, 0, 0, 0)
print(first.counter, differ)
