"""Queues of emmap in Python: the file is shared with Elixir, Rust, C and other Python programs, without a server.

EMMAP_LIBRARY is the path of libemmap_c.so: `cargo build --release --package emmap_c` in `native/` makes it.
"""

import ctypes
import errno
import hashlib
import os
import time
from ctypes import POINTER, byref, c_char_p, c_int, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_uint64, c_void_p


class Item(ctypes.Structure):
    _fields_ = [("length", c_uint64), ("sequence", c_uint64), ("position", c_uint64), ("flags", c_uint32), ("attempts", c_uint32)]


class Receipt(ctypes.Structure):
    _fields_ = [("sequence", c_uint64), ("claim", c_uint32), ("attempts", c_uint16), ("reader", c_uint16)]


class Options(ctypes.Structure):
    _fields_ = [("flags", c_uint32), ("timeout_ms", c_int32), ("max_bytes", c_uint64), ("number", c_uint64), ("producer", ctypes.c_uint8 * 16)]


emmap = ctypes.CDLL(os.environ["EMMAP_LIBRARY"])
emmap.emmap_queue_open.argtypes = [c_char_p, c_uint32, c_uint64, POINTER(c_void_p)]
emmap.emmap_queue_close.argtypes = [c_void_p]
emmap.emmap_queue_push.argtypes = [c_void_p, c_char_p, c_size_t, POINTER(Options)]
emmap.emmap_queue_checkout.argtypes = [c_void_p, c_uint32, c_uint32, c_char_p, c_size_t, POINTER(Item), POINTER(Receipt)]
emmap.emmap_queue_pop.argtypes = [c_void_p, c_uint32, c_char_p, c_size_t, POINTER(Item)]
emmap.emmap_queue_ack.argtypes = emmap.emmap_queue_nack.argtypes = [c_void_p, POINTER(Receipt)]
emmap.emmap_queue_wait.argtypes = [c_void_p, c_uint32, c_int32]
emmap.emmap_queue_reader.argtypes = [c_void_p, c_char_p, c_uint64, POINTER(c_uint32)]
emmap.emmap_queue_length.argtypes, emmap.emmap_queue_length.restype = [c_void_p, c_uint32], c_int64


class Queue:
    """One thread uses a Queue at a time; each thread opens its own. Errors are OSError; a damaged item is EBADMSG, and is skipped."""

    def __init__(self, path, reader=None):
        self._handle, self._reader, self._buffer = c_void_p(), c_uint32(0), ctypes.create_string_buffer(4096)
        self._check(emmap.emmap_queue_open(os.fsencode(path), 0, 0, byref(self._handle)))
        if reader is not None:
            self._check(emmap.emmap_queue_reader(self._handle, reader.encode(), 0, byref(self._reader)))

    def push(self, payload, producer=None, number=0, max_bytes=0, timeout=0):
        """Adds bytes. False: `producer` (a string) has pushed this number or a higher one. `timeout`: seconds to wait for space."""
        options = Options(timeout_ms=_milliseconds(timeout), max_bytes=max_bytes)
        if producer is not None:
            options.flags, options.number = 2, number
            options.producer[:] = hashlib.md5(producer.encode()).digest()
        return self._check(emmap.emmap_queue_push(self._handle, payload, len(payload), byref(options))) == 0

    def pop(self, timeout=0):
        """Takes the oldest item: bytes, or None. `timeout`: seconds to wait for it; None: without end."""
        return self._take(timeout, lambda *buffer: emmap.emmap_queue_pop(self._handle, self._reader, *buffer))

    def checkout(self, timeout=0):
        """As pop, but returns the item and a receipt. It is available again if this program ends before ack."""
        receipt = Receipt()
        item = self._take(timeout, lambda *buffer: emmap.emmap_queue_checkout(self._handle, self._reader, 0, *buffer, byref(receipt)))
        return None if item is None else (item, receipt)

    def ack(self, receipt):
        self._check(emmap.emmap_queue_ack(self._handle, byref(receipt)))

    def nack(self, receipt):
        self._check(emmap.emmap_queue_nack(self._handle, byref(receipt)))

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            self._check(emmap.emmap_queue_close(handle))

    def __len__(self):
        return self._check(emmap.emmap_queue_length(self._handle, self._reader))

    def _take(self, timeout, take):
        deadline = None if timeout is None else time.monotonic() + timeout
        item = Item()
        while True:
            taken = take(self._buffer, len(self._buffer), byref(item))
            if taken == -errno.EMSGSIZE:
                self._buffer = ctypes.create_string_buffer(item.length)
            elif taken == 0:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return None
                # A signal (such as Ctrl-C) ends the call, and Python handles it here.
                if (waited := emmap.emmap_queue_wait(self._handle, self._reader, _milliseconds(left))) != -errno.EINTR:
                    self._check(waited)
            else:
                self._check(taken)
                return ctypes.string_at(self._buffer, item.length)

    @staticmethod
    def _check(result):
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def _milliseconds(seconds):
    return -1 if seconds is None else min(int(seconds * 1000 + 0.999), 2**31 - 1)
