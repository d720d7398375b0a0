"""Blocks of emmap in Python: the file is shared with Elixir, Rust, C and other Python programs, without a server.

EMMAP_LIBRARY is the path of libemmap_c.so: `cargo build --release --package emmap_c` in `native/` makes it.
"""

import ctypes
import errno
import os
from ctypes import POINTER, byref, c_char_p, c_int64, c_uint32, c_uint64, c_void_p

emmap = ctypes.CDLL(os.environ["EMMAP_LIBRARY"])
emmap.emmap_blocks_open.argtypes = [c_char_p, c_uint32, c_uint64, POINTER(c_void_p)]
emmap.emmap_blocks_close.argtypes = emmap.emmap_blocks_sync.argtypes = [c_void_p]
emmap.emmap_blocks_size.argtypes, emmap.emmap_blocks_size.restype = [c_void_p], c_int64
emmap.emmap_blocks_count.argtypes, emmap.emmap_blocks_count.restype = [c_void_p], c_int64
emmap.emmap_blocks_store.argtypes, emmap.emmap_blocks_store.restype = [c_void_p, c_char_p], c_int64
emmap.emmap_blocks_next.argtypes, emmap.emmap_blocks_next.restype = [c_void_p, c_uint64], c_int64
emmap.emmap_blocks_read.argtypes = [c_void_p, c_uint64, c_char_p]
emmap.emmap_blocks_write.argtypes = [c_void_p, c_uint64, c_char_p]
emmap.emmap_blocks_free.argtypes = [c_void_p, c_uint64]


class Blocks:
    """Threads may share Blocks. An address that is not in use is KeyError; other errors are OSError, a damaged block EBADMSG."""

    def __init__(self, path, block_size=0):
        self._handle = c_void_p()
        self._check(emmap.emmap_blocks_open(os.fsencode(path), 0, block_size, byref(self._handle)))
        self.block_size = self._check(emmap.emmap_blocks_size(self._handle))

    def store(self, data):
        """Stores a block at the lowest free address, and returns that."""
        return self._check(emmap.emmap_blocks_store(self._handle, self._block(data)))

    def __getitem__(self, address):
        buffer = ctypes.create_string_buffer(self.block_size)
        self._check(emmap.emmap_blocks_read(self._handle, address, buffer), address)
        return buffer.raw

    def __setitem__(self, address, data):
        """Gives a block new bytes. It has the old ones or the new ones, whoever dies."""
        self._check(emmap.emmap_blocks_write(self._handle, address, self._block(data)), address)

    def __delitem__(self, address):
        self._check(emmap.emmap_blocks_free(self._handle, address), address)

    def __len__(self):
        return self._check(emmap.emmap_blocks_count(self._handle))

    def __iter__(self):
        """The addresses in use, in order."""
        address = emmap.emmap_blocks_next(self._handle, 0)
        while address >= 0:
            yield address
            address = emmap.emmap_blocks_next(self._handle, address + 1)
        if address != -errno.ENOENT:
            self._check(address)

    def sync(self):
        """What was done so far is on the disk when this returns."""
        self._check(emmap.emmap_blocks_sync(self._handle))

    def close(self):
        handle, self._handle = self._handle, None
        if handle is not None:
            self._check(emmap.emmap_blocks_close(handle))

    def _block(self, data):
        if len(data) != self.block_size:
            raise ValueError(f"a block has {self.block_size} bytes, got {len(data)}")
        return bytes(data)

    @staticmethod
    def _check(result, address=None):
        if result == -errno.ENOENT and address is not None:
            raise KeyError(address)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result
