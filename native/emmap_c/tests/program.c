/* Uses every function of emmap.h, in the directory of its argument, and checks what each returns. */
#include "emmap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAME(actual, expected)                                                                             \
    do {                                                                                                   \
        long long a = (long long)(actual), e = (long long)(expected);                                      \
        if (a != e) {                                                                                      \
            fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #actual, a, e);           \
            exit(1);                                                                                       \
        }                                                                                                  \
    } while (0)
#define TRUE(condition) SAME(!!(condition), 1)

/* As src/queue.rs has them. */
_Static_assert(sizeof(emmap_item) == 32, "item");
_Static_assert(offsetof(emmap_item, length) == 0 && offsetof(emmap_item, sequence) == 8, "item");
_Static_assert(offsetof(emmap_item, position) == 16 && offsetof(emmap_item, flags) == 24, "item");
_Static_assert(offsetof(emmap_item, attempts) == 28, "item");
_Static_assert(sizeof(emmap_receipt) == 16, "receipt");
_Static_assert(offsetof(emmap_receipt, claim) == 8 && offsetof(emmap_receipt, attempts) == 12, "receipt");
_Static_assert(offsetof(emmap_receipt, reader) == 14, "receipt");
_Static_assert(sizeof(emmap_push_options) == 40, "options");
_Static_assert(offsetof(emmap_push_options, timeout_ms) == 4, "options");
_Static_assert(offsetof(emmap_push_options, max_bytes) == 8, "options");
_Static_assert(offsetof(emmap_push_options, number) == 16, "options");
_Static_assert(offsetof(emmap_push_options, producer) == 24, "options");

static const char *directory;

static const char *in_directory(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static emmap_queue *open_queue(const char *name) {
    emmap_queue *queue = NULL;
    SAME(emmap_queue_open(in_directory(name), 0, 65536, &queue), 0);
    TRUE(queue != NULL);
    return queue;
}

static void push(emmap_queue *queue, const char *text) {
    SAME(emmap_queue_push(queue, text, strlen(text), NULL), 0);
}

/* Pops, and compares. */
static void expect(emmap_queue *queue, uint32_t reader, const char *text) {
    char buffer[64];
    emmap_item item;
    SAME(emmap_queue_pop(queue, reader, buffer, sizeof buffer, &item), EMMAP_TAKEN);
    SAME(item.length, strlen(text));
    SAME(memcmp(buffer, text, item.length), 0);
}

static void opening(void) {
    emmap_queue *queue = (emmap_queue *)&queue;
    SAME(emmap_queue_open(in_directory("none"), EMMAP_EXISTING, 0, &queue), -ENOENT);
    TRUE(queue == NULL);
    SAME(emmap_queue_open(in_directory("none"), 2, 0, &queue), -EINVAL);
    SAME(emmap_queue_open(in_directory("none"), 0, 12345, &queue), -EINVAL);
    SAME(emmap_queue_open(NULL, 0, 0, &queue), -EINVAL);
    SAME(emmap_queue_open(in_directory("none"), 0, 0, NULL), -EINVAL);
    FILE *file = fopen(in_directory("text"), "w");
    fputs("This is no queue.", file);
    fclose(file);
    SAME(emmap_queue_open(in_directory("text"), 0, 0, &queue), -EPROTO);
    SAME(emmap_queue_close(NULL), -EINVAL);
    SAME(emmap_queue_length(NULL, 0), -EINVAL);
}

static void taking(void) {
    emmap_queue *queue = open_queue("taking");
    char buffer[64];
    emmap_item item;
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, sizeof buffer, &item), EMMAP_EMPTY);
    SAME(emmap_queue_bytes(queue), 0);

    emmap_push_options options;
    memset(&options, 0, sizeof options);
    options.flags = EMMAP_TERM;
    SAME(emmap_queue_push(queue, "\x83\x61\x07", 3, &options), 0);
    push(queue, "second");
    SAME(emmap_queue_push(queue, NULL, 0, NULL), 0);
    SAME(emmap_queue_push(queue, NULL, 1, NULL), -EINVAL);
    options.flags = 4;
    SAME(emmap_queue_push(queue, "x", 1, &options), -EINVAL);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 3);
    TRUE(emmap_queue_bytes(queue) > 0);

    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, sizeof buffer, &item), EMMAP_TAKEN);
    SAME(item.flags, EMMAP_TERM);
    SAME(item.length, 3);
    SAME(item.sequence, 0);
    SAME(item.attempts, 0);

    /* Too small: the length, and nothing taken. */
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, 5, &item), -EMSGSIZE);
    SAME(item.length, 6);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, NULL, 0, &item), -EMSGSIZE);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 2);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, 6, &item), EMMAP_TAKEN);
    SAME(item.flags, 0);
    SAME(item.sequence, 1);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, NULL, 0, &item), EMMAP_TAKEN);
    SAME(item.length, 0);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, NULL, 1, &item), -EINVAL);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, 1, NULL), -EINVAL);
    SAME(emmap_queue_pop(queue, 99, buffer, 1, &item), -EINVAL);
    SAME(emmap_queue_pop(queue, 5, buffer, 1, &item), -ENOENT);

    /* Longer than a segment, and than what is copied under the lock. */
    size_t length = 3 << 20;
    char *large = malloc(length), *copy = malloc(length);
    for (size_t i = 0; i < length; i++) large[i] = (char)(i * 7 + i / 251);
    SAME(emmap_queue_push(queue, large, length, NULL), 0);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, copy, length - 1, &item), -EMSGSIZE);
    SAME(item.length, length);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, copy, length, &item), EMMAP_TAKEN);
    SAME(memcmp(large, copy, length), 0);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 0);
    SAME(emmap_queue_checked_out(queue, EMMAP_QUEUE), 0);
    free(large);
    free(copy);

    SAME(emmap_queue_sync(queue), 0);
    SAME(emmap_queue_close(queue), 0);
}

static void limits(void) {
    emmap_queue *queue = open_queue("limits");
    char text[100] = {0};
    emmap_push_options options;
    memset(&options, 0, sizeof options);
    options.max_bytes = 1000;
    int pushed = 0, result;
    while ((result = emmap_queue_push(queue, text, sizeof text, &options)) == 0) pushed++;
    SAME(result, -ENOBUFS);
    TRUE(pushed >= 5 && pushed < 10);
    /* A wait that ends. */
    options.timeout_ms = 30;
    double start = now();
    SAME(emmap_queue_push(queue, text, sizeof text, &options), -ENOBUFS);
    TRUE(now() - start >= 0.03);
    options.flags = EMMAP_DROP_OLDEST;
    SAME(emmap_queue_push(queue, text, sizeof text, &options), 0);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), pushed);

    memset(&options, 0, sizeof options);
    options.flags = EMMAP_IDENTITY;
    memcpy(options.producer, "sixteen bytes...", 16);
    options.number = 7;
    SAME(emmap_queue_push(queue, text, 1, &options), 0);
    SAME(emmap_queue_push(queue, text, 1, &options), EMMAP_DUPLICATE);
    options.number = 6;
    SAME(emmap_queue_push(queue, text, 1, &options), EMMAP_DUPLICATE);
    options.number = 8;
    SAME(emmap_queue_push(queue, text, 1, &options), 0);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), pushed + 2);
    SAME(emmap_queue_close(queue), 0);
}

static void acknowledging(void) {
    emmap_queue *queue = open_queue("acknowledging"), *other = open_queue("acknowledging");
    char buffer[64];
    emmap_item item;
    emmap_receipt first, second;
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &first), EMMAP_EMPTY);
    push(queue, "one");
    push(queue, "two");
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, 2, &item, &first), -EMSGSIZE);
    SAME(item.length, 3);
    SAME(emmap_queue_checked_out(queue, EMMAP_QUEUE), 0);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &first), EMMAP_TAKEN);
    SAME(memcmp(buffer, "one", 3), 0);
    SAME(item.attempts, 1);
    SAME(emmap_queue_checked_out(queue, EMMAP_QUEUE), 1);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 1);
    SAME(emmap_queue_checkout(other, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &second), EMMAP_TAKEN);
    SAME(memcmp(buffer, "two", 3), 0);

    SAME(emmap_queue_nack(queue, &first), 0);
    SAME(emmap_queue_nack(queue, &first), -ENOENT);
    SAME(emmap_queue_ack(queue, &first), -ENOENT);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &first), EMMAP_TAKEN);
    SAME(memcmp(buffer, "one", 3), 0);
    SAME(item.attempts, 2);
    SAME(emmap_queue_ack(queue, &first), 0);
    SAME(emmap_queue_ack(queue, &first), -ENOENT);
    SAME(emmap_queue_ack(queue, NULL), -EINVAL);

    /* A closed handle has nothing checked out, though its program goes on. */
    SAME(emmap_queue_close(other), 0);
    SAME(emmap_queue_ack(queue, &second), -ENOENT);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &second), EMMAP_TAKEN);
    SAME(item.attempts, 2);
    SAME(emmap_queue_nack(queue, &second), 0);
    /* Set aside. */
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 2, buffer, sizeof buffer, &item, &second), EMMAP_EMPTY);
    SAME(emmap_queue_length(queue, EMMAP_DEAD_LETTERS), 1);
    SAME(emmap_queue_pop(queue, EMMAP_DEAD_LETTERS, buffer, sizeof buffer, &item), EMMAP_TAKEN);
    SAME(item.flags, EMMAP_DEAD_LETTER);
    SAME(item.attempts, 2);
    SAME(memcmp(buffer, "two", 3), 0);

    push(queue, "three");
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &first), EMMAP_TAKEN);
    SAME(emmap_queue_ack_durable(queue, &first), 0);
    SAME(emmap_queue_ack_durable(queue, &first), -ENOENT);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 0);
    SAME(emmap_queue_close(queue), 0);
}

static void readers(void) {
    emmap_queue *queue = open_queue("readers");
    uint32_t reader = 0, same = 0;
    push(queue, "before");
    SAME(emmap_queue_reader(queue, "audit", 0, &reader), 0);
    TRUE(reader > 0 && reader < EMMAP_DEAD_LETTERS);
    SAME(emmap_queue_reader(queue, "audit", 1 << 20, &same), 0);
    SAME(reader, same);
    SAME(emmap_queue_reader(queue, "", 0, &same), -EINVAL);
    SAME(emmap_queue_reader(queue, NULL, 0, &same), -EINVAL);
    SAME(emmap_queue_reader(queue, "audit", 0, NULL), -EINVAL);
    push(queue, "after");
    expect(queue, reader, "after");
    expect(queue, EMMAP_QUEUE, "before");
    expect(queue, EMMAP_QUEUE, "after");
    SAME(emmap_queue_length(queue, reader), 0);
    SAME(emmap_queue_delete_reader(queue, "audit"), 0);
    SAME(emmap_queue_delete_reader(queue, "audit"), -ENOENT);
    SAME(emmap_queue_length(queue, reader), -ENOENT);
    SAME(emmap_queue_close(queue), 0);
}

static void *push_later(void *queue) {
    usleep(50000);
    push(queue, "late");
    return NULL;
}

static void *pop_later(void *queue) {
    usleep(50000);
    expect(queue, EMMAP_QUEUE, "late");
    return NULL;
}

static void on_alarm(int number) { (void)number; }

static void waiting(void) {
    emmap_queue *queue = open_queue("waiting"), *other = open_queue("waiting");
    pthread_t thread;
    SAME(emmap_queue_wait(queue, EMMAP_QUEUE, 0), EMMAP_EMPTY);
    double start = now();
    SAME(emmap_queue_wait(queue, EMMAP_QUEUE, 30), EMMAP_EMPTY);
    TRUE(now() - start >= 0.03);
    pthread_create(&thread, NULL, push_later, other);
    SAME(emmap_queue_wait(queue, EMMAP_QUEUE, -1), EMMAP_TAKEN);
    pthread_join(thread, NULL);
    SAME(emmap_queue_wait(queue, EMMAP_QUEUE, 0), EMMAP_TAKEN);

    /* For space: until the other handle pops. */
    pthread_create(&thread, NULL, pop_later, other);
    emmap_push_options options;
    memset(&options, 0, sizeof options);
    options.max_bytes = emmap_queue_bytes(queue);
    options.timeout_ms = -1;
    SAME(emmap_queue_push(queue, "more", 4, &options), 0);
    pthread_join(thread, NULL);
    expect(queue, EMMAP_QUEUE, "more");

    /* A signal ends a wait; one that comes just while it looks around does not, and is followed by another. */
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 50000}, {0, 50000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    SAME(emmap_queue_wait(queue, EMMAP_QUEUE, -1), -EINTR);
    setitimer(ITIMER_REAL, &never, NULL);
    SAME(emmap_queue_wait(queue, EMMAP_DEAD_LETTERS + 1, 0), -EINVAL);
    SAME(emmap_queue_close(queue), 0);
    SAME(emmap_queue_close(other), 0);
}

/* A child has the handles of its parent, and they are of no use; it does not keep what its parent had. */
static void forking(void) {
    char buffer[64];
    emmap_item item;
    emmap_receipt receipt;
    emmap_queue *queue = open_queue("forking");
    push(queue, "one");
    push(queue, "two");
    int ready[2], done[2];
    TRUE(pipe(ready) == 0 && pipe(done) == 0);
    pid_t parent = fork();
    if (parent == 0) {
        /* Opens the queue, checks an item out, forks a child that stays, and is killed. */
        SAME(emmap_queue_length(queue, EMMAP_QUEUE), -EBADF);
        SAME(emmap_queue_close(queue), -EBADF);
        emmap_queue *mine = open_queue("forking");
        SAME(emmap_queue_checkout(mine, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &receipt), EMMAP_TAKEN);
        SAME(memcmp(buffer, "one", 3), 0);
        if (fork() == 0) {
            SAME(emmap_queue_ack(mine, &receipt), -EBADF);
            emmap_queue *again = open_queue("forking");
            /* What the parent has is the parent's. */
            SAME(emmap_queue_ack(again, &receipt), -ENOENT);
            SAME(emmap_queue_checked_out(again, EMMAP_QUEUE), 1);
            SAME(write(ready[1], "x", 1), 1);
            /* Until the first process ends. */
            close(done[1]);
            (void)!read(done[0], buffer, 1);
            _exit(0);
        }
        close(done[1]);
        pause();
    }
    SAME(read(ready[0], buffer, 1), 1);
    SAME(emmap_queue_length(queue, EMMAP_QUEUE), 1);
    kill(parent, SIGKILL);
    SAME(waitpid(parent, NULL, 0), parent);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &receipt), EMMAP_TAKEN);
    if (memcmp(buffer, "one", 3) != 0) {
        /* Checkouts look for the dead now and then, and when there is nothing else. */
        SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &receipt), EMMAP_TAKEN);
    }
    SAME(memcmp(buffer, "one", 3), 0);
    SAME(item.attempts, 2);
    SAME(emmap_queue_close(queue), 0);
    close(done[1]);
}

/* A damaged item is told with its position, and skipped. */
static void damage(void) {
    emmap_queue *queue = open_queue("damage");
    char buffer[64];
    emmap_item item;
    emmap_receipt receipt;
    for (int i = 0; i < 6; i++) push(queue, "an item, and what is in it");
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, sizeof buffer, &item), EMMAP_TAKEN);
    uint64_t each = (24 + item.length + 7) / 8 * 8;
    /* The last byte of the second item, and of the fourth: the first segment begins at 262,144, and its position is 0. */
    FILE *file = fopen(in_directory("damage"), "r+");
    for (int i = 1; i <= 3; i += 2) {
        fseek(file, (long)(262144 + item.position + i * each + 24 + item.length - 1), SEEK_SET);
        fputc('?', file);
    }
    fclose(file);
    uint64_t first = item.position;
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, sizeof buffer, &item), -EBADMSG);
    SAME(item.position, first + each);
    SAME(emmap_queue_pop(queue, EMMAP_QUEUE, buffer, sizeof buffer, &item), EMMAP_TAKEN);
    SAME(item.sequence, 2);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &receipt), -EBADMSG);
    SAME(item.position, first + 3 * each);
    SAME(emmap_queue_checked_out(queue, EMMAP_QUEUE), 0);
    SAME(emmap_queue_checkout(queue, EMMAP_QUEUE, 0, buffer, sizeof buffer, &item, &receipt), EMMAP_TAKEN);
    SAME(item.sequence, 4);
    SAME(emmap_queue_ack(queue, &receipt), 0);
    expect(queue, EMMAP_QUEUE, "an item, and what is in it");
    SAME(emmap_queue_close(queue), 0);
}

static void storing(void) {
    emmap_blocks *blocks = NULL, *other = NULL;
    char block[64], read[64];
    memset(block, 'a', sizeof block);
    SAME(emmap_blocks_open(in_directory("blocks"), 0, 0, &blocks), -ENOENT);
    SAME(emmap_blocks_open(in_directory("blocks"), EMMAP_EXISTING, 64, &blocks), -ENOENT);
    SAME(emmap_blocks_open(in_directory("blocks"), 2, 64, &blocks), -EINVAL);
    TRUE(blocks == NULL);
    SAME(emmap_blocks_open(in_directory("blocks"), 0, 64, &blocks), 0);
    SAME(emmap_blocks_size(blocks), 64);
    SAME(emmap_blocks_next(blocks, 0), -ENOENT);
    for (int i = 0; i < 1000; i++) {
        block[0] = (char)i;
        SAME(emmap_blocks_store(blocks, block), i);
    }
    SAME(emmap_blocks_count(blocks), 1000);
    SAME(emmap_blocks_free(blocks, 7), 0);
    SAME(emmap_blocks_free(blocks, 7), -ENOENT);
    SAME(emmap_blocks_read(blocks, 7, read), -ENOENT);
    SAME(emmap_blocks_read(blocks, UINT64_MAX, read), -ENOENT);
    SAME(emmap_blocks_next(blocks, 7), 8);
    SAME(emmap_blocks_store(blocks, block), 7);
    SAME(emmap_blocks_sync(blocks), 0);
    block[0] = '!';
    SAME(emmap_blocks_write(blocks, 8, block), 0);
    SAME(emmap_blocks_write(blocks, 1000, block), -ENOENT);
    /* Another handle, which another program could have. */
    SAME(emmap_blocks_open(in_directory("blocks"), 0, 100, &other), -EINVAL);
    SAME(emmap_blocks_open(in_directory("blocks"), 0, 0, &other), 0);
    SAME(emmap_blocks_read(other, 8, read), 0);
    SAME(memcmp(block, read, sizeof block), 0);
    SAME(emmap_blocks_close(other), 0);
    SAME(emmap_blocks_store(blocks, NULL), -EINVAL);
    SAME(emmap_blocks_read(blocks, 0, NULL), -EINVAL);
    SAME(emmap_blocks_write(blocks, 0, NULL), -EINVAL);
    SAME(emmap_blocks_count(NULL), -EINVAL);
    pid_t child = fork();
    if (child == 0) _exit(emmap_blocks_count(blocks) == -EBADF ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    SAME(status, 0);
    SAME(emmap_blocks_close(blocks), 0);
    SAME(emmap_blocks_close(NULL), -EINVAL);
    SAME(emmap_blocks_open(in_directory("damage"), 0, 64, &blocks), -EPROTO);
}

static void counting(void) {
    emmap_counters *counters = NULL;
    int64_t value = 0;
    SAME(emmap_counters_open(in_directory("counters"), 0, &counters), -ENOENT);
    SAME(emmap_counters_open(in_directory("counters"), 3, &counters), 0);
    SAME(emmap_counters_count(counters), 3);
    SAME(emmap_counters_add(counters, 2, 40), 0);
    SAME(emmap_counters_add(counters, 2, -50), 0);
    SAME(emmap_counters_get(counters, 2, &value), 0);
    SAME(value, -10);
    SAME(emmap_counters_add(counters, 3, 1), -ERANGE);
    SAME(emmap_counters_get(counters, 3, &value), -ERANGE);
    SAME(emmap_counters_get(counters, 0, NULL), -EINVAL);
    SAME(emmap_counters_index(counters, "hits"), -ENOENT);
    SAME(emmap_counters_sync(counters), 0);
    SAME(emmap_counters_close(counters), 0);
    SAME(emmap_counters_open(in_directory("counters"), 0, &counters), 0);
    SAME(emmap_counters_get(counters, 2, &value), 0);
    SAME(value, -10);
    SAME(emmap_counters_close(counters), 0);
    SAME(emmap_counters_close(NULL), -EINVAL);
    /* A golden file, with names. */
    const char *named = getenv("EMMAP_NAMED_COUNTERS");
    SAME(emmap_counters_open(named, 0, &counters), 0);
    TRUE(emmap_counters_index(counters, getenv("EMMAP_NAME")) >= 0);
    SAME(emmap_counters_close(counters), 0);
}

static void counting_by_name(void) {
    emmap_dynamic *dynamic = NULL;
    int64_t value = 0;
    char name[EMMAP_NAME_BYTES];
    SAME(emmap_dynamic_open(in_directory("dynamic"), EMMAP_EXISTING, 0, &dynamic), -ENOENT);
    SAME(emmap_dynamic_open(in_directory("dynamic"), 8, 0, &dynamic), -EINVAL);
    SAME(emmap_dynamic_open(in_directory("counters"), 0, 0, &dynamic), -EPROTO);
    SAME(emmap_dynamic_open(in_directory("dynamic"), 0, 3, &dynamic), 0);
    SAME(emmap_dynamic_count(dynamic), 0);
    SAME(emmap_dynamic_get(dynamic, "GET /users", &value), -ENOENT);
    SAME(emmap_dynamic_add(dynamic, "GET /users", 40), 0);
    SAME(emmap_dynamic_add(dynamic, "GET /users", 2), 0);
    SAME(emmap_dynamic_add(dynamic, "", -1), 0);
    SAME(emmap_dynamic_add(dynamic, "\xff", 1), -EILSEQ);
    memset(name, 'x', sizeof name);
    name[sizeof name - 1] = 0;
    SAME(emmap_dynamic_add(dynamic, name, 7), 0);
    SAME(emmap_dynamic_add(dynamic, "a fourth", 1), -EDQUOT);
    SAME(emmap_dynamic_add(dynamic, NULL, 1), -EINVAL);
    SAME(emmap_dynamic_get(dynamic, "GET /users", NULL), -EINVAL);
    SAME(emmap_dynamic_get(dynamic, "GET /users", &value), 0);
    SAME(value, 42);
    SAME(emmap_dynamic_sync(dynamic), 0);
    SAME(emmap_dynamic_close(dynamic), 0);
    SAME(emmap_dynamic_open(in_directory("dynamic"), EMMAP_EXISTING, 0, &dynamic), 0);
    SAME(emmap_dynamic_count(dynamic), 3);
    uint64_t place = 0;
    SAME(emmap_dynamic_next(dynamic, &place, name, &value), 1);
    SAME(strcmp(name, "GET /users"), 0);
    SAME(value, 42);
    SAME(emmap_dynamic_next(dynamic, &place, name, &value), 1);
    SAME(strlen(name), 0);
    SAME(emmap_dynamic_next(dynamic, &place, name, &value), 1);
    SAME(strlen(name), EMMAP_NAME_BYTES - 1);
    SAME(value, 7);
    SAME(emmap_dynamic_next(dynamic, &place, name, &value), 0);
    SAME(emmap_dynamic_next(dynamic, &place, name, &value), 0);
    SAME(emmap_dynamic_next(dynamic, NULL, name, &value), -EINVAL);
    pid_t child = fork();
    if (child == 0) _exit(emmap_dynamic_add(dynamic, "a child", 1) == -EBADF ? 0 : 1);
    int status = 0;
    SAME(waitpid(child, &status, 0), child);
    SAME(status, 0);
    SAME(emmap_dynamic_close(dynamic), 0);
    SAME(emmap_dynamic_close(NULL), -EINVAL);
}

static void mapping(void) {
    FILE *file = fopen(in_directory("file"), "w");
    for (int i = 0; i < 3000; i++) fputs("0123456789", file);
    fclose(file);
    emmap_map *map = NULL;
    char buffer[16];
    SAME(emmap_map_open(in_directory("none"), &map), -ENOENT);
    SAME(emmap_map_open(in_directory("file"), &map), 0);
    SAME(emmap_map_size(map), 30000);
    SAME(emmap_map_pread(map, 13, buffer, 5), 5);
    SAME(memcmp(buffer, "34567", 5), 0);
    SAME(emmap_map_pread(map, 29997, buffer, 16), 3);
    SAME(emmap_map_pread(map, 30000, buffer, 16), 0);
    SAME(emmap_map_pread(map, UINT64_MAX, buffer, 16), 0);
    SAME(emmap_map_pread(map, 0, NULL, 1), -EINVAL);
    int64_t word = 1;
    SAME(emmap_map_wait(map, 24, 1, -1, &word), 0);
    SAME(memcmp(&word, "45678901", 8), 0);
    SAME(emmap_map_wait(map, 24, 1, 0, NULL), 0);
    SAME(emmap_map_wait(map, 24, word, 10, NULL), -ETIMEDOUT);
    SAME(emmap_map_wait(map, 25, 0, 10, &word), -EINVAL);
    SAME(emmap_map_wait(map, 29996, 0, 10, &word), -EINVAL);
    SAME(emmap_map_notify(map, 24), 0);
    SAME(emmap_map_notify(map, 30000), -EINVAL);
    /* The guard: this would be SIGBUS. */
    SAME(truncate(in_directory("file"), 0), 0);
    SAME(emmap_map_pread(map, 13, buffer, 5), -ESTALE);
    SAME(emmap_map_close(map), 0);
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    directory = arguments[1];
    struct sigaction action;
    sigaction(SIGBUS, NULL, &action);
    opening();
    taking();
    limits();
    acknowledging();
    readers();
    waiting();
    forking();
    damage();
    storing();
    counting();
    counting_by_name();
    /* Nothing above takes a signal. */
    struct sigaction same;
    sigaction(SIGBUS, NULL, &same);
    TRUE(action.sa_handler == same.sa_handler && same.sa_handler == SIG_DFL);
    SAME(emmap_init(), 0);
    SAME(emmap_init(), 0);
    mapping();
    puts(emmap_version());
    return 0;
}
