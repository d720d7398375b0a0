"""What programs in Python use for the same: NumPy's memmap, LMDB, SQLite. A line for each figure: what;side;nanoseconds of each.

Arguments: a folder, the number of rounds, and how many calls a round makes.
"""
import mmap
import os
import sqlite3
import struct
import sys
import time

folder, rounds, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
SIZE = 64 << 20
DATA = b"x" * 64
path = os.path.join(folder, "data.bin")
with open(path, "wb") as file:
    file.write(os.urandom(SIZE))


def timed(what, side, count, act):
    begun = time.perf_counter_ns()
    act()
    print(f"{what};{side};{(time.perf_counter_ns() - begun) / count}")


def optional(name):
    try:
        return __import__(name)
    except ImportError:
        print(f"missing;{name};0")


numpy, lmdb = optional("numpy"), optional("lmdb")
file = open(path, "r+b")
memory = mmap.mmap(file.fileno(), 0)
words = numpy.memmap(path, dtype=numpy.uint64, mode="r+") if numpy else None


def mmap_read():
    for n in range(calls):
        memory[64:128]


def mmap_number():
    for n in range(calls):
        struct.unpack_from("<Q", memory, 64)


def numpy_read():
    for n in range(calls):
        words[8:16].tobytes()


def numpy_number():
    for n in range(calls):
        int(words[8])


def lmdb_store(environment):
    # As good as it gets: one transaction, no sync.
    with environment.begin(write=True) as transaction:
        for n in range(calls):
            transaction.put(struct.pack(">Q", n), DATA)


def lmdb_read(environment):
    with environment.begin(buffers=False) as transaction:
        for n in range(calls):
            transaction.get(struct.pack(">Q", n))


def sqlite_store(database):
    with database:
        database.executemany("replace into blocks values (?, ?)", ((n, DATA) for n in range(calls)))


def sqlite_read(database):
    for n in range(calls):
        database.execute("select data from blocks where id = ?", (n,)).fetchone()


database = sqlite3.connect(os.path.join(folder, "sqlite"))
database.execute("pragma journal_mode = wal")
database.execute("pragma synchronous = off")
database.execute("create table blocks (id integer primary key, data blob)")
environment = lmdb.open(os.path.join(folder, "lmdb"), map_size=1 << 30, sync=False) if lmdb else None

for _ in range(rounds):
    timed("read 64 B", "mmap of Python", calls, mmap_read)
    timed("read a number", "mmap and struct of Python", calls, mmap_number)
    if numpy:
        timed("read 64 B", "NumPy memmap", calls, numpy_read)
        timed("read a number", "NumPy memmap", calls, numpy_number)
        timed("sum 64 MB", "NumPy memmap", 1, lambda: words.sum())
    if lmdb:
        timed("store 64 B", "LMDB, one transaction", calls, lambda: lmdb_store(environment))
        timed("get 64 B", "LMDB, one transaction", calls, lambda: lmdb_read(environment))
    timed("store 64 B", "SQLite, one transaction", calls, lambda: sqlite_store(database))
    timed("get 64 B", "SQLite", calls, lambda: sqlite_read(database))
