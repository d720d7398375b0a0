"""SQLite and LMDB for bench/survive: databases.py work NAME FOLDER SYNC, or databases.py found NAME FOLDER."""
import os
import sqlite3
import sys
import time

COUNT = 1000
RECORD = b"x" * 75
what, name, folder = sys.argv[1:4]
path = os.path.join(folder, "database")


def sqlite(synced):
    database = sqlite3.connect(path)
    if not synced:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = off")
    return database


def lmdb_environment(synced):
    import lmdb

    return lmdb.open(path, map_size=1 << 26, sync=synced)


synced = name in ("sqlite", "lmdb")
database = sqlite(synced) if name.startswith("sqlite") else lmdb_environment(synced)


def add(n):
    if name.startswith("sqlite"):
        with database:
            database.execute("insert into records values (?, ?)", (n, RECORD))
    else:
        with database.begin(write=True) as transaction:
            transaction.put(b"%08d" % n, RECORD)


if what == "work":
    if name.startswith("sqlite"):
        database.execute("create table records (id integer primary key, data blob)")
        database.commit()
    begun = time.perf_counter()
    for n in range(COUNT):
        add(n)
    took = int((time.perf_counter() - begun) * 1e6)
    if sys.argv[4] == "1":
        if name.startswith("sqlite"):
            database.execute("pragma synchronous = full")
            database.execute("pragma wal_checkpoint(truncate)")
        else:
            database.sync(True)
    print(f"DONE {took}", flush=True)
    time.sleep(3600)
else:
    try:
        if name.startswith("sqlite"):
            print(database.execute("select count(*) from records").fetchone()[0])
        else:
            with database.begin() as transaction:
                print(transaction.stat()["entries"])
    except Exception:
        print(0)
