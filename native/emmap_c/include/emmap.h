/*
 * emmap for C, and for every language that can call C: queues, counters and maps in files that Elixir, Erlang, Rust and
 * other programs use at the same time. There is no server.
 *
 * Build: cargo build --release --package emmap_c (in native/), which makes libemmap_c.so and libemmap_c.a.
 *
 * Return values
 *   A negative number is an error: the negated number of <errno.h>. What else a function returns is said there. Besides the
 *   errors of the system:
 *     -EINVAL    an argument is wrong: NULL, an unknown flag, a number that is too large
 *     -EBADMSG   something is damaged
 *     -EPROTO    the file is of another kind or version, or of a machine of the other byte order
 *     -ESTALE    the file was truncated under the map (after emmap_init()); close the handle and open the file again
 *     -EBUSY     another program has the lock of the file, and was stopped for two seconds meanwhile; or, where the death of
 *                another program cannot be seen (macOS), another program has the queue open
 *     -EBADF     the handle is one of the parent of this forked process
 *     -EIO       the device failed, or there is an error in this library
 *
 * Threads
 *   All threads may use a handle at once. When one is closed, no other function may be using it, nor use it afterwards.
 *
 * Processes
 *   After fork(), the handles of queues are the parent's: in the child their functions return -EBADF. The child opens the
 *   file again. (A child that was made by vfork() or posix_spawn() and calls exec has nothing to do.)
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
 * Takes the signal SIGBUS, once, for the whole program: when a file is truncated under its map, or the disk is full, the next
 * call returns an error; without it the signal ends the program. Signals that are none of this library's go to the handler that
 * was there before. The library stays loaded from then on. Nothing else in this library takes a signal.
 *
 * Returns 0.
 */
int emmap_init(void);

/* ------------------------------------------------------------------------------------------------------------ Queues */

/* An open queue. */
typedef struct emmap_queue emmap_queue;

/* The reader that stands for the queue itself. */
#define EMMAP_QUEUE 0u
/* The reader of the items that were set aside: see emmap_queue_checkout(). */
#define EMMAP_DEAD_LETTERS 32u

/* For emmap_queue_open(): the file must exist. */
#define EMMAP_EXISTING 1u

/* For emmap_push_options.flags and emmap_item.flags: the bytes are an Erlang term in the external term format, which Elixir
 * decodes. Without it they are raw bytes, which are a binary in Elixir. */
#define EMMAP_TERM 1u
/* For emmap_push_options.flags: .producer and .number are set. */
#define EMMAP_IDENTITY 2u
/* For emmap_item.flags: the item was set aside. */
#define EMMAP_DEAD_LETTER 8u
/* For emmap_push_options.flags: an item for which there is no space drops the oldest ones. */
#define EMMAP_DROP_OLDEST 16u

/* Returned by emmap_queue_push(): the item was pushed before. */
#define EMMAP_DUPLICATE 1
/* Returned by emmap_queue_pop(), emmap_queue_checkout() and emmap_queue_wait(): there is an item. */
#define EMMAP_TAKEN 1
/* Returned by the same: there is none. */
#define EMMAP_EMPTY 0

/* How an item is pushed. All bytes 0: raw bytes, without a limit. */
typedef struct emmap_push_options {
    /* EMMAP_TERM, EMMAP_IDENTITY, EMMAP_DROP_OLDEST, or several of them. */
    uint32_t flags;
    /* How many milliseconds to wait for space; 0: not at all, negative: without end. */
    int32_t timeout_ms;
    /* How many bytes the queue may have with this item, as emmap_queue_bytes() counts them; 0: as many as the disk has. */
    uint64_t max_bytes;
    /* With EMMAP_IDENTITY: the producer's number of the item. An item is dropped if the producer has pushed this number or a
     * higher one. */
    uint64_t number;
    /* With EMMAP_IDENTITY: who pushes. Elixir uses the MD5 of the producer's name: a producer has the same identity in each
     * language if it is the MD5 of the same bytes. Must not be all 0. A queue remembers up to 1,024 producers. */
    uint8_t producer[16];
} emmap_push_options;

/* An item that was taken, or why it was not. */
typedef struct emmap_item {
    /* How many bytes it has. With -EMSGSIZE: how many there must be room for. */
    uint64_t length;
    /* Its number: the first item ever pushed to the file has 0. */
    uint64_t sequence;
    /* Where it is in the stream of the queue, in bytes. With -EBADMSG: where the damaged item is. */
    uint64_t position;
    /* EMMAP_TERM, EMMAP_DEAD_LETTER, or both. */
    uint32_t flags;
    /* How many times it was checked out, with this time; 0 if it was popped. Of a dead letter: before it was set aside. */
    uint32_t attempts;
} emmap_item;

/* What an item is acknowledged with. It may be copied; its contents are the library's. */
typedef struct emmap_receipt {
    uint64_t sequence;
    uint32_t claim;
    uint16_t attempts;
    uint16_t reader;
} emmap_receipt;

/*
 * Opens the queue of the file at `path`, and creates the file unless `flags` is EMMAP_EXISTING (else 0). `segment_size` is that
 * of a new file in bytes, a power of two from 65,536 to 1,073,741,824; 0: 262,144. `*queue` is NULL after an error.
 *
 * It takes constant time after a program died, and checks what was not synced after a reboot.
 *
 * Returns 0. -ENOENT: there is no file (EMMAP_EXISTING), or no directory. -EUSERS: 64 programs have the queue open.
 */
int emmap_queue_open(const char *path, uint32_t flags, uint64_t segment_size, emmap_queue **queue);

/*
 * Closes the handle. What was checked out with it is available again. All items are in the file; to have them on the disk, call
 * emmap_queue_sync() first.
 *
 * Returns 0. The handle is closed also after an error, which the next one who opens the file deals with.
 */
int emmap_queue_close(emmap_queue *queue);

/*
 * Adds an item of `length` bytes, at most 1,073,741,824. `options` may be NULL. When the call has returned 0, the item survives
 * the death of this program; it survives a power failure after emmap_queue_sync().
 *
 * Returns 0, or EMMAP_DUPLICATE. -ENOBUFS: there is no space within `max_bytes`. -EMSGSIZE: the item is too long. -ENOSPC: the
 * disk is full. -EUSERS: there are as many producers as there can be. -EINTR: a signal interrupted the wait for space; the
 * item was not pushed.
 */
int emmap_queue_push(const emmap_queue *queue, const void *payload, size_t length, const emmap_push_options *options);

/*
 * Takes the oldest item of `reader` (EMMAP_QUEUE, or what emmap_queue_reader() has returned): copies its bytes to `buffer`, which
 * has room for `capacity` bytes, and what it is to `*item`. It is gone from the queue when the call returns: where that must not
 * be lost, use emmap_queue_checkout().
 *
 * Returns EMMAP_TAKEN or EMMAP_EMPTY. -EMSGSIZE: the item has `item->length` bytes, more than there is room for; nothing was
 * taken. -EBADMSG: the item at `item->position` is damaged; the reader has moved past it, and the next call takes the next
 * item. After an error the contents of `buffer` are undefined. -ENOENT: there is no such reader.
 */
int emmap_queue_pop(const emmap_queue *queue, uint32_t reader, void *buffer, size_t capacity, emmap_item *item);

/*
 * As emmap_queue_pop(), but the item stays in the queue until emmap_queue_ack() with `*receipt`, and nobody else gets it
 * meanwhile. It is available again, in its place, after emmap_queue_nack(), when the handle is closed, and when this program
 * ends, however it does.
 *
 * `max_attempts`: an item that was checked out so many times is set aside instead, where EMMAP_DEAD_LETTERS finds it; 0: never.
 *
 * Returns as emmap_queue_pop(); after -EMSGSIZE the attempt does not count.
 */
int emmap_queue_checkout(const emmap_queue *queue, uint32_t reader, uint32_t max_attempts, void *buffer, size_t capacity,
                         emmap_item *item, emmap_receipt *receipt);

/*
 * Acknowledges an item: it is not delivered again, but perhaps after a power failure.
 *
 * Returns 0. -ENOENT: the receipt is not valid any more: the item was acknowledged or made available before, or dropped for
 * space; or its reader was deleted.
 */
int emmap_queue_ack(const emmap_queue *queue, const emmap_receipt *receipt);

/* As emmap_queue_ack(), and it is not delivered again after a power failure either, once the call has returned 0. */
int emmap_queue_ack_durable(const emmap_queue *queue, const emmap_receipt *receipt);

/* Makes an item available again, in its place. Returns as emmap_queue_ack(). */
int emmap_queue_nack(const emmap_queue *queue, const emmap_receipt *receipt);

/* Returns how many items the reader can take. Takes constant time. */
int64_t emmap_queue_length(const emmap_queue *queue, uint32_t reader);

/* Returns how many items of the reader are checked out, in all programs. Takes constant time. */
int64_t emmap_queue_checked_out(const emmap_queue *queue, uint32_t reader);

/* Returns how many bytes of the file lie between the oldest item that the queue itself needs and the newest, with headers
 * and padding. Takes constant time. */
int64_t emmap_queue_bytes(const emmap_queue *queue);

/* Returns 0 when everything that was done so far, by any program, is on the disk. */
int emmap_queue_sync(const emmap_queue *queue);

/*
 * Waits until the reader can take an item, at most for `timeout_ms` milliseconds; 0: looks once, negative: without end. It uses
 * no CPU meanwhile. Another may take the item first: call emmap_queue_pop() in a loop.
 *
 * Returns EMMAP_TAKEN if there is an item, or EMMAP_EMPTY. -EINTR: a signal interrupted it.
 */
int emmap_queue_wait(const emmap_queue *queue, uint32_t reader, int32_t timeout_ms);

/*
 * Finds the reader with this name, of 1 to 62 bytes, and creates it if there is none: a position of its own, which sees every
 * item that is pushed from then on, whatever others take. `*reader` is its number, for the functions above. It is in the file,
 * and stays until emmap_queue_delete_reader().
 *
 * `max_lag`: how many bytes it may fall behind before it skips the oldest items; 0: as many as the disk has.
 *
 * Returns 0. -EUSERS: there are 31 readers.
 */
int emmap_queue_reader(const emmap_queue *queue, const char *name, uint64_t max_lag, uint32_t *reader);

/* Deletes a reader. Returns 0. -ENOENT: there is none of this name. */
int emmap_queue_delete_reader(const emmap_queue *queue, const char *name);

/* ------------------------------------------------------------------------------------------------------------ Blocks */

/* An open file of blocks: a store of blocks of one size, whose addresses are numbers from 0. */
typedef struct emmap_blocks emmap_blocks;

/*
 * Opens the blocks of the file at `path`. `block_size`, in bytes, 1 to 1,073,741,824: creates the file if there is none, unless
 * `flags` is EMMAP_EXISTING (else 0); 0: the file must exist, and has the size that it has. `*blocks` is NULL after an error.
 *
 * Returns 0. -ENOENT: the file does not exist. -EINVAL: the blocks of the file have another size. -EUSERS: 64 programs have it open.
 */
int emmap_blocks_open(const char *path, uint32_t flags, uint64_t block_size, emmap_blocks **blocks);

/*
 * Closes the handle. The last one of a program does emmap_blocks_sync() first.
 *
 * Returns 0, or the error of the sync. The handle is closed also after an error.
 */
int emmap_blocks_close(emmap_blocks *blocks);

/* Returns how many bytes a block has. */
int64_t emmap_blocks_size(const emmap_blocks *blocks);

/* Returns how many blocks are in use. Takes constant time. */
int64_t emmap_blocks_count(const emmap_blocks *blocks);

/*
 * Stores a block, of as many bytes as emmap_blocks_size() says, at the lowest free address. When the call has returned, the
 * block survives the death of this program; it survives a power failure after emmap_blocks_sync().
 *
 * Returns the address. -ENOSPC: the disk is full.
 */
int64_t emmap_blocks_store(const emmap_blocks *blocks, const void *data);

/*
 * Copies a block to `buffer`, which has room for it.
 *
 * Returns 0. -ENOENT: the address is not in use. -EBADMSG: the block is damaged. After an error the contents of `buffer` are
 * undefined.
 */
int emmap_blocks_read(const emmap_blocks *blocks, uint64_t address, void *buffer);

/*
 * Gives a block new bytes. Whoever dies, and after a power failure, it has the old ones or the new ones. It may do
 * emmap_blocks_sync().
 *
 * Returns 0. -ENOENT: the address is not in use.
 */
int emmap_blocks_write(const emmap_blocks *blocks, uint64_t address, const void *data);

/* Ends the use of a block. Returns 0. -ENOENT: the address is not in use. */
int emmap_blocks_free(const emmap_blocks *blocks, uint64_t address);

/* Returns the first address in use from `from` on. -ENOENT: there is none. */
int64_t emmap_blocks_next(const emmap_blocks *blocks, uint64_t from);

/* Returns 0 when everything that was done so far, by any program, is on the disk. */
int emmap_blocks_sync(const emmap_blocks *blocks);

/* ---------------------------------------------------------------------------------------------------------- Counters */

/* An open file of counters: signed numbers of 64 bits, which all programs add to at once. */
typedef struct emmap_counters emmap_counters;

/*
 * Opens the counters of the file at `path`. `count`: creates the file if there is none, and adds counters until there are so
 * many; 0: the file must exist, and has the counters that it has. `*counters` is NULL after an error.
 *
 * Returns 0. -EINVAL: the counters of the file have names, and there are fewer than `count`.
 */
int emmap_counters_open(const char *path, uint64_t count, emmap_counters **counters);

/* Closes the handle. Returns 0. */
int emmap_counters_close(emmap_counters *counters);

/* Returns how many counters there were when the file was opened. */
int64_t emmap_counters_count(const emmap_counters *counters);

/* Returns the index of a counter that has a name. -ENOENT: there was none of this name when the file was opened. */
int64_t emmap_counters_index(const emmap_counters *counters, const char *name);

/* Adds to the counter of an index, from 0; it wraps around. Returns 0. -ERANGE: there is no such counter. */
int emmap_counters_add(const emmap_counters *counters, uint64_t index, int64_t value);

/* Stores the value of a counter in `*value`. Returns 0. -ERANGE: there is no such counter. */
int emmap_counters_get(const emmap_counters *counters, uint64_t index, int64_t *value);

/* Returns 0 when everything that was added so far, by any program, is on the disk. */
int emmap_counters_sync(const emmap_counters *counters);

/* -------------------------------------------------------------------------------------------------------------- Maps */

/* A file that is mapped to be read. */
typedef struct emmap_map emmap_map;

/* Maps the file at `path`, as long as it is now. `*map` is NULL after an error. Returns 0. */
int emmap_map_open(const char *path, emmap_map **map);

/* Unmaps the file. Returns 0. */
int emmap_map_close(emmap_map *map);

/* Returns the size of the map in bytes. */
int64_t emmap_map_size(const emmap_map *map);

/*
 * Copies up to `count` bytes at `position` to `buffer`: what others have written so far.
 *
 * Returns how many bytes were copied; fewer than `count` at the end of the map, and 0 behind it. -ESTALE: the file was
 * truncated (after emmap_init()).
 */
int64_t emmap_map_pread(const emmap_map *map, uint64_t position, void *buffer, size_t count);

#ifdef __cplusplus
}
#endif

#endif
