#!/usr/bin/env python3
"""Reads dynamic counters of emmap while other programs count: python3 emmap_dynamic_counters.py FILE

It needs nothing but Python. A program that adds to counters uses the C library: native/emmap_c.
"""

import mmap
import struct
import sys

ENTRIES, LINE = 16384, 128
COUNTER, DIRECTORY, GAP = 1, 2, 3


class Damaged(Exception):
    """The file is damaged. The text says where."""


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _crc_of_byte(crc):
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC = [_crc_of_byte(byte) for byte in range(256)]


def counters(file, check=False):
    """The names and values of the counters, in the order in which they were added. `file` is bytes or a map.

    With `check`, the checksum of each entry is compared, which takes a few microseconds for each byte.
    """
    if file[:8] != b"EMMAPDYN":
        raise Damaged("not a file of dynamic counters")
    version, mark = struct.unpack_from("=II", file, 8)
    if (version, mark) != (1, 0x01020304):
        raise Damaged(f"version {version}, endian mark {mark:#x}")
    stripes, _, salt = struct.unpack_from("<IIQ", file, 24)
    (end,) = struct.unpack_from("=Q", file, 8448)
    at = ENTRIES
    while at < end <= len(file):
        number, description = struct.unpack_from("=QQ", file, at + 8)
        length, kind, crc = description & 0xFFFF, description >> 16 & 0xFFFF, description >> 32
        name = file[at + 24 : at + 24 + min(length, 104)]
        name += file[at + stripes * LINE : at + stripes * LINE + max(length - 104, 0)]
        if check:
            head = struct.pack("<QQ", salt, at) + struct.pack("=QI", number, description & 0xFFFFFFFF)
            if crc32c(name, crc32c(head)) != crc:
                raise Damaged(f"the entry at {at}")
        if kind == COUNTER:
            values = (struct.unpack_from("=q", file, at + n * LINE)[0] for n in range(stripes))
            value = (sum(values) + 2**63) % 2**64 - 2**63
            yield name.decode(), value
            size = (stripes + -(-max(length - 104, 0) // LINE)) * LINE
        elif kind == DIRECTORY:
            size = LINE + -(-number * 8 // LINE) * LINE
        elif kind == GAP and number > 0:
            size = number
        else:
            raise Damaged(f"no entry at {at}")
        at += size
    if end > len(file):
        raise Damaged("the file is shorter than its entries")


def read(path, check=False):
    """All counters of a file, as a dict."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map:
        return dict(counters(map, check))


if __name__ == "__main__":
    for name, value in read(sys.argv[1]).items():
        print(value, name)
