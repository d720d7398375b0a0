"""Takes part in a queue until it is killed, as `native/emmap_core/examples/queue_worker.rs` does, with the same items and logs.

`python3 queue_worker.py FILE LOGS PRODUCER FIRST IDENTITY`
"""

import itertools
import os
import struct
import sys
import threading
import time
import traceback

from emmap_queue import Queue

PUSHED, DELIVERED, ACKNOWLEDGED, RELEASED = 1, 2, 3, 4
MOST_BYTES = 2 << 20


class Log:
    """One write for each record, so that a kill does not tear it."""

    def __init__(self, logs, name):
        self._fd = os.open(f"{logs}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def note(self, kind, item, at, attempts):
        os.write(self._fd, struct.pack("<5Q", kind, *item, at, attempts))


def item(producer, number):
    """An item of any size that says what it must be."""
    filler = 70_000 if number % 997 == 996 else number * 7 % 300
    return struct.pack("<2Q", producer, number) + bytes([number % 256]) * filler


def parse(payload):
    producer, number = struct.unpack_from("<2Q", payload)
    assert payload == item(producer, number), "an item is not what was pushed"
    return producer, number


def produce(path, logs, producer, first, identity):
    log, queue = Log(logs, "producer"), Queue(path)
    name = f"worker {producer}" if identity else None
    for number in itertools.count(first):
        queue.push(item(producer, number), name, number, max_bytes=MOST_BYTES, timeout=60)
        log.note(PUSHED, (producer, number), time.time_ns(), 0)
        if number % 16 == 0:
            time.sleep(0.0003)


def consume(path, logs, name, reader):
    log, queue = Log(logs, name), Queue(path, reader)
    for turn in itertools.count():
        start = time.time_ns()
        found = queue.checkout(timeout=0.05)
        if found is None:
            continue
        payload, receipt = found
        what, attempts = parse(payload), receipt.attempts
        log.note(DELIVERED, what, start, attempts)
        if turn % 64 == 63:
            queue.nack(receipt)
            log.note(RELEASED, what, time.time_ns(), attempts)
        else:
            queue.ack(receipt)
            log.note(ACKNOWLEDGED, what, time.time_ns(), attempts)


def run(work, *arguments):
    """A thread that found something wrong ends all of them."""
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(101)


def main(path, logs, producer, first, identity):
    work = [
        (produce, path, logs, int(producer), int(first), identity == "1"),
        (consume, path, logs, "consumer", None),
        (consume, path, logs, "reader", "audit"),
    ]
    for arguments in work:
        threading.Thread(target=run, args=arguments).start()


main(*sys.argv[1:])
