// The floor: what a bare C NIF costs at the boundary to the BEAM. It does the same memory work as Emmap, and nothing else:
// no locks, no close, no growth, no guard, no checks beyond bounds. It is there to divide by, and is not a library.
#include <erl_nif.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct map {
    unsigned char *base;
    size_t length;
};

static ErlNifResourceType *MAP;
static ERL_NIF_TERM OK;

static void unmap(ErlNifEnv *env, void *resource)
{
    (void)env;
    struct map *map = resource;
    munmap(map->base, map->length);
}

static int load(ErlNifEnv *env, void **private, ERL_NIF_TERM info)
{
    (void)private;
    (void)info;
    MAP = enif_open_resource_type(env, NULL, "floor", unmap, ERL_NIF_RT_CREATE, NULL);
    OK = enif_make_atom(env, "ok");
    return MAP == NULL;
}

#define NIF(name) static ERL_NIF_TERM name(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
#define BADARG_UNLESS(condition)            \
    do {                                    \
        if (!(condition))                   \
            return enif_make_badarg(env);   \
    } while (0)
#define GET_MAP(map)    \
    struct map *map;    \
    (void)argc;         \
    BADARG_UNLESS(enif_get_resource(env, argv[0], MAP, (void **)&map))
#define GET_NUMBER(number, argument)    \
    ErlNifUInt64 number;                \
    BADARG_UNLESS(enif_get_uint64(env, argv[argument], &number))
#define CHECK_RANGE(map, offset, count) \
    BADARG_UNLESS((offset) <= (map)->length && (count) <= (map)->length - (offset))

// At least one word, so that `add` need not ask.
NIF(open_map)
{
    (void)argc;
    char path[4096];
    BADARG_UNLESS(enif_get_string(env, argv[0], path, sizeof path, ERL_NIF_LATIN1) > 0);
    GET_NUMBER(length, 1);
    BADARG_UNLESS(length >= sizeof(int64_t));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    BADARG_UNLESS(fd >= 0);
    void *base = MAP_FAILED;
    if (ftruncate(fd, (off_t)length) == 0)
        base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    BADARG_UNLESS(base != MAP_FAILED);
    struct map *map = enif_alloc_resource(MAP, sizeof *map);
    map->base = base;
    map->length = length;
    ERL_NIF_TERM term = enif_make_resource(env, map);
    enif_release_resource(map);
    return term;
}

// The system calls of an open and a close, no others: of a file whose map can grow into addresses set aside for it.
#define RESERVED ((size_t)1 << 30)

static unsigned char *map_small(const char *path, int *fd)
{
    struct stat stat;
    unsigned char *base = MAP_FAILED;
    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd >= 0 && fstat(*fd, &stat) == 0)
        base = mmap(NULL, RESERVED, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base != MAP_FAILED)
        mmap(base, (size_t)stat.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, *fd, 0);
    return base;
}

NIF(open_small)
{
    (void)argc;
    char path[4096];
    int fd;
    BADARG_UNLESS(enif_get_string(env, argv[0], path, sizeof path, ERL_NIF_LATIN1) > 0);
    unsigned char *base = map_small(path, &fd);
    return enif_make_tuple2(env, enif_make_int(env, fd), enif_make_uint64(env, (ErlNifUInt64)base));
}

NIF(close_small)
{
    (void)argc;
    GET_NUMBER(fd, 0);
    GET_NUMBER(base, 1);
    munmap((void *)base, RESERVED);
    close((int)fd);
    return OK;
}

NIF(nop)
{
    (void)env;
    (void)argc;
    (void)argv;
    return OK;
}

NIF(add)
{
    GET_MAP(map);
    GET_NUMBER(offset, 1);
    ErlNifSInt64 value;
    BADARG_UNLESS(enif_get_int64(env, argv[2], &value) && offset <= map->length - sizeof(int64_t));
    int64_t before = atomic_fetch_add((_Atomic int64_t *)(map->base + offset), value);
    return enif_make_tuple2(env, OK, enif_make_int64(env, before));
}

NIF(copy_out)
{
    GET_MAP(map);
    GET_NUMBER(offset, 1);
    GET_NUMBER(count, 2);
    CHECK_RANGE(map, offset, count);
    ERL_NIF_TERM binary;
    memcpy(enif_make_new_binary(env, count, &binary), map->base + offset, count);
    return enif_make_tuple2(env, OK, binary);
}

NIF(view)
{
    GET_MAP(map);
    GET_NUMBER(offset, 1);
    GET_NUMBER(count, 2);
    CHECK_RANGE(map, offset, count);
    return enif_make_tuple2(env, OK, enif_make_resource_binary(env, map, map->base + offset, count));
}

NIF(copy_in)
{
    GET_MAP(map);
    GET_NUMBER(offset, 1);
    ErlNifBinary data;
    BADARG_UNLESS(enif_inspect_binary(env, argv[2], &data));
    CHECK_RANGE(map, offset, data.size);
    memcpy(map->base + offset, data.data, data.size);
    return OK;
}

static ErlNifFunc functions[] = {
    {"nop", 0, nop, 0},
    {"open", 2, open_map, 0},
    {"open_small", 1, open_small, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"close_small", 2, close_small, ERL_NIF_DIRTY_JOB_IO_BOUND},
    {"open_on_scheduler", 1, open_small, 0},
    {"close_on_scheduler", 2, close_small, 0},
    {"add", 3, add, 0},
    {"copy_out", 3, copy_out, 0},
    {"view", 3, view, 0},
    {"copy_in", 3, copy_in, 0},
};

ERL_NIF_INIT(floor_nif, functions, load, NULL, NULL, NULL)
