"""What NumPy takes for what Emmap.Array does, on the same file of sorted 64-bit floats.

The argument is the file. Each line of the input names what to do: sum, min, search (of many in one call) or one (search in many
calls). Each line of the output is how long it took, in nanoseconds.
"""
import sys
import time

import numpy

array = numpy.memmap(sys.argv[1], dtype=numpy.float64, mode="r")
random = numpy.random.default_rng(7)
greatest = float(array[-1])
SEARCHES = 20_000


def timed(count, act):
    begun = time.perf_counter_ns()
    act()
    print((time.perf_counter_ns() - begun) / count, flush=True)


print("ready", flush=True)
for line in sys.stdin:
    keys = random.random(SEARCHES) * greatest
    if line == "sum\n":
        timed(1, array.sum)
    elif line == "min\n":
        timed(1, array.min)
    elif line == "search\n":
        timed(SEARCHES, lambda: numpy.searchsorted(array, keys))
    else:
        few = [float(key) for key in keys]
        timed(SEARCHES, lambda: [array.searchsorted(key) for key in few])
