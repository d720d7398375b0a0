"""LMDB, from Python: nanoseconds of a lookup, one line for each round.

Arguments: a folder, a file with a record on each line (a key of 16 bytes, and its value), and the number of rounds.
"""
import os
import random
import sys
import time

try:
    import lmdb
except ImportError:
    sys.exit("no lmdb")

folder, lines, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
CALLS = 20_000
environment = lmdb.open(os.path.join(folder, "lmdb_table"), map_size=1 << 30, sync=False)
with open(lines, "rb") as file:
    records = [(line[:16], line[16:-1]) for line in file]
with environment.begin(write=True) as transaction:
    for key, value in records:
        transaction.put(key, value)

random.seed(1)
for _ in range(rounds):
    keys = [random.choice(records)[0] for _ in range(CALLS)]
    with environment.begin() as transaction:
        get = transaction.get
        begun = time.perf_counter_ns()
        for key in keys:
            get(key)
        print((time.perf_counter_ns() - begun) / CALLS)
