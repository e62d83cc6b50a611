"""Print a draw, with the processor's ingredients as they are, or played; the C library's are played from outside."""

import sys

from vmclock_async._segment.entropy import Ingredients

generation, marker, played = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
ingredients = Ingredients.gather(generation, marker)
if "counter" in played:
    ingredients = ingredients._replace(counter=5)
if "processor" in played:
    ingredients = ingredients._replace(processor=None)
print(ingredients.mix().hex())
