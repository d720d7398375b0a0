"""What NumPy takes for what Emmap.Array does, on the same file of sorted 64-bit floats. A line for each figure: what;nanoseconds.

Arguments: the file, the number of rounds, and the number of searches of a round.
"""
import sys
import time

import numpy

path, rounds, searches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
array = numpy.memmap(path, dtype=numpy.float64, mode="r")
random = numpy.random.default_rng(7)
greatest = float(array[-1])


def timed(what, count, act):
    begun = time.perf_counter_ns()
    act()
    print(f"{what};{(time.perf_counter_ns() - begun) / count}")


for round in range(rounds):
    timed("sum", 1, array.sum)
    timed("min", 1, array.min)
    keys = random.random(searches) * greatest
    timed("search", searches, lambda: numpy.searchsorted(array, keys))
    few = [float(key) for key in keys[: searches // 10]]
    timed("search one", len(few), lambda: [array.searchsorted(key) for key in few])
