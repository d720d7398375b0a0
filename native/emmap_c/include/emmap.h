/*
 * emmap for C, and for every language that can call C: queues, blocks, counters and maps in files that Elixir, Erlang, Rust
 * and other programs can use at the same time, without a server.
 *
 * Build: cargo build --release --package emmap_c (in native/), which creates libemmap_c.so and libemmap_c.a.
 *
 * Return values
 *   A negative number is an error: a negated error number of <errno.h>. Other return values are documented with each
 *   function. In addition to the errors of the system, any function may return:
 *     -EINVAL    an argument is invalid: NULL, an unknown flag, a number that is too large
 *     -EBADMSG   data in the file is damaged
 *     -EPROTO    the file is of another kind or version, or from a machine with the other byte order
 *     -ESTALE    the file was truncated while it was mapped (after emmap_init()); close the handle and open the file again
 *     -EBUSY     another program holds the lock of the file, and has been stopped for two seconds; or, on systems that do
 *                not report the death of another program (macOS), another program has the queue open
 *     -EBADF     the handle belongs to the parent of this forked process
 *     -EIO       the device failed, or this library has a bug
 *
 * Threads
 *   All threads may use a handle at once. When a handle is closed, no other function may be using it, then or later.
 *
 * Processes
 *   After fork(), the handles of queues, blocks and dynamic counters belong to the parent: in the child, their functions return -EBADF. The child must
 *   open the file again. (A child of vfork() or posix_spawn() that calls exec need not do anything.)
 */
#ifndef EMMAP_H
#define EMMAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of the library, such as "1.0.0". The string is never freed. */
const char *emmap_version(void);

/*
 * Installs a handler for the signal SIGBUS, once, for the whole program. If a mapped file is then truncated, or the disk is
 * full, the next call returns an error; without the handler, the signal ends the program. Signals that were not caused by this
 * library are passed to the previous handler. From then on, the library cannot be unloaded. No other function of this library
 * handles a signal.
 *
 * Returns 0.
 */
int emmap_init(void);

/* ------------------------------------------------------------------------------------------------------------ Queues */

/* An open queue. */
typedef struct emmap_queue emmap_queue;

/* The reader number of the queue itself. */
#define EMMAP_QUEUE 0u
/* The reader of the items that were set aside: see emmap_queue_checkout(). */
#define EMMAP_DEAD_LETTERS 32u

/* For emmap_queue_open(): the file must exist. */
#define EMMAP_EXISTING 1u

/* For emmap_push_options.flags and emmap_item.flags: the bytes are an Erlang term in the external term format, which Elixir
 * decodes. Without this flag, they are raw bytes, which are a binary in Elixir. */
#define EMMAP_TERM 1u
/* For emmap_push_options.flags: .producer and .number are set. */
#define EMMAP_IDENTITY 2u
/* For emmap_item.flags: the item was set aside. */
#define EMMAP_DEAD_LETTER 8u
/* For emmap_push_options.flags: if the item does not fit, the oldest items are dropped. */
#define EMMAP_DROP_OLDEST 16u

/* Returned by emmap_queue_push(): the item had already been pushed. */
#define EMMAP_DUPLICATE 1
/* Returned by emmap_queue_pop(), emmap_queue_checkout() and emmap_queue_wait(): an item is available. */
#define EMMAP_TAKEN 1
/* Returned by the same functions: no item is available. */
#define EMMAP_EMPTY 0

/* How an item is pushed. With all bytes 0, it is pushed as raw bytes, without a limit. */
typedef struct emmap_push_options {
    /* EMMAP_TERM, EMMAP_IDENTITY, EMMAP_DROP_OLDEST, or several of them. */
    uint32_t flags;
    /* How many milliseconds to wait for space; 0: not at all, negative: indefinitely. */
    int32_t timeout_ms;
    /* The maximum size of the queue with this item, as emmap_queue_bytes() counts it; 0: limited only by the disk. */
    uint64_t max_bytes;
    /* With EMMAP_IDENTITY: the producer's number for the item. The item is dropped if the producer has already pushed this number or a
     * higher one. */
    uint64_t number;
    /* With EMMAP_IDENTITY: the identity of the producer. Elixir uses the MD5 of the producer's name. To have the same identity
     * in each language, use the MD5 of the same bytes. Must not be all 0. A queue remembers up to 1,024 producers. */
    uint8_t producer[16];
} emmap_push_options;

/* Describes an item that was taken, or the reason why none was. */
typedef struct emmap_item {
    /* The length of the item in bytes. With -EMSGSIZE: the required capacity. */
    uint64_t length;
    /* The number of the item: the first item ever pushed to the file has 0. */
    uint64_t sequence;
    /* The position of the item in the stream of the queue, in bytes. With -EBADMSG: that of the damaged item. */
    uint64_t position;
    /* EMMAP_TERM, EMMAP_DEAD_LETTER, or both. */
    uint32_t flags;
    /* How many times it was checked out, including this time; 0 if it was popped. For a dead letter: before it was set aside. */
    uint32_t attempts;
} emmap_item;

/* Acknowledges an item. It may be copied, but its contents are private to the library. */
typedef struct emmap_receipt {
    uint64_t sequence;
    uint32_t claim;
    uint16_t attempts;
    uint16_t reader;
} emmap_receipt;

/*
 * Opens the queue of the file at `path`, and creates the file if it does not exist, unless `flags` is EMMAP_EXISTING (otherwise
 * 0). `segment_size` is the segment size of a new file in bytes, a power of two from 65,536 to 1,073,741,824; 0: 262,144.
 * `*queue` is NULL after an error.
 *
 * Opening takes constant time after a program died. After a reboot, it checks the items that were not synced.
 *
 * Returns 0. -ENOENT: the file (EMMAP_EXISTING) or its directory does not exist. -EUSERS: 64 programs have the queue open.
 */
int emmap_queue_open(const char *path, uint32_t flags, uint64_t segment_size, emmap_queue **queue);

/*
 * Closes the handle. Items that were checked out with it are available again. All items are in the file; to have them on the
 * disk, call emmap_queue_sync() first.
 *
 * Returns 0. The handle is closed even after an error; the next program that opens the file repairs what is necessary.
 */
int emmap_queue_close(emmap_queue *queue);

/*
 * Adds an item of `length` bytes, at most 1,073,741,824. `options` may be NULL. When the call has returned 0, the item survives
 * the death of this program; it survives a power failure after emmap_queue_sync().
 *
 * Returns 0, or EMMAP_DUPLICATE. -ENOBUFS: the queue has no space within `max_bytes`. -EMSGSIZE: the item is too long. -ENOSPC: the
 * disk is full. -EUSERS: the queue has the maximum number of producers. -EINTR: a signal interrupted the wait for space; the
 * item was not pushed.
 */
int emmap_queue_push(const emmap_queue *queue, const void *payload, size_t length, const emmap_push_options *options);

/*
 * Removes the oldest item of `reader` (EMMAP_QUEUE, or a number from emmap_queue_reader()): copies its bytes to `buffer`, which
 * has room for `capacity` bytes, and its description to `*item`. The item is no longer in the queue when the call returns; if it
 * must not be lost when this program ends, use emmap_queue_checkout().
 *
 * Returns EMMAP_TAKEN or EMMAP_EMPTY. -EMSGSIZE: the item has `item->length` bytes, more than `capacity`; no item was
 * taken. -EBADMSG: the item at `item->position` is damaged; the reader has moved past it, and the next call takes the next
 * item. -ENOENT: the reader does not exist. After an error, the contents of `buffer` are undefined.
 */
int emmap_queue_pop(const emmap_queue *queue, uint32_t reader, void *buffer, size_t capacity, emmap_item *item);

/*
 * Same as emmap_queue_pop(), but the item stays in the queue until emmap_queue_ack() with `*receipt`, and no other call gets it
 * in the meantime. It is available again, at its place in the order, after emmap_queue_nack(), when the handle is closed, and
 * when this program ends in any way.
 *
 * `max_attempts`: an item that was checked out this many times is set aside instead, to the reader EMMAP_DEAD_LETTERS; 0: never.
 *
 * Returns the same values as emmap_queue_pop(). After -EMSGSIZE, the attempt does not count.
 */
int emmap_queue_checkout(const emmap_queue *queue, uint32_t reader, uint32_t max_attempts, void *buffer, size_t capacity,
                         emmap_item *item, emmap_receipt *receipt);

/*
 * Acknowledges an item: it is not delivered again, except possibly after a power failure.
 *
 * Returns 0. -ENOENT: the receipt is no longer valid: the item was acknowledged or made available before, or dropped for
 * space; or its reader was deleted.
 */
int emmap_queue_ack(const emmap_queue *queue, const emmap_receipt *receipt);

/* Same as emmap_queue_ack(), but once the call has returned 0, the item is not delivered again even after a power failure. */
int emmap_queue_ack_durable(const emmap_queue *queue, const emmap_receipt *receipt);

/* Makes an item available again, at its place in the order. Returns the same values as emmap_queue_ack(). */
int emmap_queue_nack(const emmap_queue *queue, const emmap_receipt *receipt);

/* Returns how many items the reader can take. Takes constant time. */
int64_t emmap_queue_length(const emmap_queue *queue, uint32_t reader);

/* Returns how many items of the reader are checked out, in all programs. Takes constant time. */
int64_t emmap_queue_checked_out(const emmap_queue *queue, uint32_t reader);

/* Returns how many bytes of the file lie between the oldest unacknowledged item of the queue itself and the newest item,
 * including headers and padding. Takes constant time. */
int64_t emmap_queue_bytes(const emmap_queue *queue);

/* Returns 0 once everything that any program has done so far is on the disk. */
int emmap_queue_sync(const emmap_queue *queue);

/*
 * Waits until the reader can take an item, for at most `timeout_ms` milliseconds; 0: checks once, negative: indefinitely. It
 * uses no CPU while it waits. Another caller may take the item first, so call this and emmap_queue_pop() in a loop.
 *
 * Returns EMMAP_TAKEN if an item is available, or EMMAP_EMPTY. -EINTR: a signal interrupted the wait.
 */
int emmap_queue_wait(const emmap_queue *queue, uint32_t reader, int32_t timeout_ms);

/*
 * Finds the reader with this name, of 1 to 62 bytes, and creates it if it does not exist. A reader has its own position: it sees
 * every item that is pushed after it was created, no matter what others take. `*reader` is its number, for the functions above.
 * A reader is stored in the file, and exists until emmap_queue_delete_reader().
 *
 * `max_lag`: how many bytes it may fall behind before it skips the oldest items; 0: limited only by the disk.
 *
 * Returns 0. -EUSERS: the queue has 31 readers.
 */
int emmap_queue_reader(const emmap_queue *queue, const char *name, uint64_t max_lag, uint32_t *reader);

/* Deletes a reader. Returns 0. -ENOENT: no reader has this name. */
int emmap_queue_delete_reader(const emmap_queue *queue, const char *name);

/* ------------------------------------------------------------------------------------------------------------ Blocks */

/* An open file of blocks: a store of fixed-size blocks, whose addresses are numbers from 0. */
typedef struct emmap_blocks emmap_blocks;

/*
 * Opens the blocks of the file at `path`. `block_size` is the block size in bytes, 1 to 1,073,741,824; the file is
 * created if it does not exist, unless `flags` is EMMAP_EXISTING (otherwise 0). With a `block_size` of 0, the file must exist,
 * and may have any block size. `*blocks` is NULL after an error.
 *
 * Returns 0. -ENOENT: the file does not exist. -EINVAL: the blocks of the file have another size. -EUSERS: 64 programs have
 * the file open.
 */
int emmap_blocks_open(const char *path, uint32_t flags, uint64_t block_size, emmap_blocks **blocks);

/*
 * Closes the handle. Closing the last handle of a program first does emmap_blocks_sync().
 *
 * Returns 0, or the error of the sync. The handle is closed even after an error.
 */
int emmap_blocks_close(emmap_blocks *blocks);

/* Returns the block size in bytes. */
int64_t emmap_blocks_size(const emmap_blocks *blocks);

/* Returns how many blocks are in use. Takes constant time. */
int64_t emmap_blocks_count(const emmap_blocks *blocks);

/*
 * Stores a block of emmap_blocks_size() bytes at the lowest free address. When the call has returned, the
 * block survives the death of this program; it survives a power failure after emmap_blocks_sync().
 *
 * Returns the address. -ENOSPC: the disk is full.
 */
int64_t emmap_blocks_store(const emmap_blocks *blocks, const void *data);

/*
 * Copies a block to `buffer`, which has room for it.
 *
 * Returns 0. -ENOENT: the address is not in use. -EBADMSG: the block is damaged. After an error, the contents of `buffer` are
 * undefined.
 */
int emmap_blocks_read(const emmap_blocks *blocks, uint64_t address, void *buffer);

/*
 * Replaces the bytes of a block. After the death of any program, and after a power failure, the block has either the old or the
 * new bytes. The call may do emmap_blocks_sync().
 *
 * Returns 0. -ENOENT: the address is not in use.
 */
int emmap_blocks_write(const emmap_blocks *blocks, uint64_t address, const void *data);

/* Frees a block. Returns 0. -ENOENT: the address is not in use. */
int emmap_blocks_free(const emmap_blocks *blocks, uint64_t address);

/* Returns the first address in use at or after `from`. -ENOENT: no such address is in use. */
int64_t emmap_blocks_next(const emmap_blocks *blocks, uint64_t from);

/* Returns 0 once everything that any program has done so far is on the disk. */
int emmap_blocks_sync(const emmap_blocks *blocks);

/* ---------------------------------------------------------------------------------------------------------- Counters */

/* An open file of counters: signed 64-bit numbers, to which all programs can add at once. */
typedef struct emmap_counters emmap_counters;

/*
 * Opens the counters of the file at `path`. The file is created if it does not exist, and counters are added until it has
 * `count` counters. With a `count` of 0, the file must exist, and may have any number. `*counters` is NULL after an error.
 *
 * Returns 0. -EINVAL: the counters of the file have names, and are fewer than `count`.
 */
int emmap_counters_open(const char *path, uint64_t count, emmap_counters **counters);

/* Closes the handle. Returns 0. */
int emmap_counters_close(emmap_counters *counters);

/* Returns how many counters the file had when it was opened. */
int64_t emmap_counters_count(const emmap_counters *counters);

/* Returns the index of the counter with this name. -ENOENT: no counter had this name when the file was opened. */
int64_t emmap_counters_index(const emmap_counters *counters, const char *name);

/* Adds to the counter with this index, from 0. The value wraps around. Returns 0. -ERANGE: the counter does not exist. */
int emmap_counters_add(const emmap_counters *counters, uint64_t index, int64_t value);

/* Stores the value of a counter in `*value`. Returns 0. -ERANGE: the counter does not exist. */
int emmap_counters_get(const emmap_counters *counters, uint64_t index, int64_t *value);

/* Returns 0 once everything that any program has added so far is on the disk. */
int emmap_counters_sync(const emmap_counters *counters);

/* ------------------------------------------------------------------------------ Counters whose names appear at run time */

/*
 * An open file of counters that Emmap.Counters opens with `dynamic: true`: each has a name, and is added by the first call
 * that adds to it. Names are UTF-8 strings of at most 1,024 bytes. Adding to an existing counter takes no lock.
 */
typedef struct emmap_dynamic emmap_dynamic;

/* The room that a name takes, with its NUL. */
#define EMMAP_NAME_BYTES 1025

/*
 * Opens the counters of the file at `path`. The file is created if it does not exist, unless `flags` is EMMAP_EXISTING.
 * This program adds no counter to a file that has `max_names` of them; 0 means 100,000. `*dynamic` is NULL after an error.
 *
 * Returns 0. -EUSERS: 64 programs have the file open. -EPROTO: it is of another kind, also if its counters are not dynamic.
 */
int emmap_dynamic_open(const char *path, uint32_t flags, uint64_t max_names, emmap_dynamic **dynamic);

/* Closes the handle. Returns 0. */
int emmap_dynamic_close(emmap_dynamic *dynamic);

/* Returns how many counters there are. */
int64_t emmap_dynamic_count(const emmap_dynamic *dynamic);

/*
 * Adds to the counter with this name, which is added if it does not exist. The value wraps around.
 *
 * Returns 0. -EDQUOT: there are `max_names` counters. -EILSEQ: the name is not UTF-8. -EINVAL: it is too long. -ENOSPC: the
 * disk is full.
 */
int emmap_dynamic_add(const emmap_dynamic *dynamic, const char *name, int64_t value);

/* Stores the value of a counter in `*value`. Returns 0. -ENOENT: the counter does not exist. */
int emmap_dynamic_get(const emmap_dynamic *dynamic, const char *name, int64_t *value);

/*
 * Stores the name and the value of the next counter in `name`, which has room for EMMAP_NAME_BYTES, and `*value`. Counters
 * are in the order in which they were added. `*place` must be 0 for the first counter, and is changed for the next call.
 *
 * Returns 1, or 0 after the last counter.
 */
int emmap_dynamic_next(const emmap_dynamic *dynamic, uint64_t *place, char *name, int64_t *value);

/* Returns 0 once everything that any program has added so far is on the disk. */
int emmap_dynamic_sync(const emmap_dynamic *dynamic);

/* -------------------------------------------------------------------------------------------------------------- Maps */

/* A file that is mapped for reading. */
typedef struct emmap_map emmap_map;

/* Maps the file at `path` with its current length. `*map` is NULL after an error. Returns 0. */
int emmap_map_open(const char *path, emmap_map **map);

/* Unmaps the file. Returns 0. */
int emmap_map_close(emmap_map *map);

/* Returns the size of the map in bytes. */
int64_t emmap_map_size(const emmap_map *map);

/*
 * Copies up to `count` bytes at `position` to `buffer`, including everything that others have written so far.
 *
 * Returns how many bytes were copied; fewer than `count` at the end of the map, and 0 past the end. -ESTALE: the file was
 * truncated (after emmap_init()).
 */
int64_t emmap_map_pread(const emmap_map *map, uint64_t position, void *buffer, size_t count);

/*
 * Waits until the signed 64-bit integer at `position`, in the byte order of the machine, differs from `expected`, and stores it
 * in `*value` unless `value` is NULL. The integer may be changed by any program, which must then call emmap_map_notify() or
 * Emmap.notify/2. The call may miss a value that was replaced by `expected` again. Waits for at most `timeout_ms`
 * milliseconds; negative: indefinitely.
 *
 * Returns 0. -ETIMEDOUT: the time has passed. -EINVAL: `position` is not a multiple of 8, or not inside the map.
 */
int emmap_map_wait(const emmap_map *map, uint64_t position, int64_t expected, int32_t timeout_ms, int64_t *value);

/* Wakes all programs and processes of Elixir that wait for the integer at `position` to change. To be called after the change.
 * Returns 0. -EINVAL: as with emmap_map_wait(). */
int emmap_map_notify(const emmap_map *map, uint64_t position);

#ifdef __cplusplus
}
#endif

#endif
