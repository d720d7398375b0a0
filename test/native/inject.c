// Preloaded into a VM: makes the n-th system call of one kind fail, if it comes from the library
// between two addresses. All is controlled through a shared file, named by EMMAP_INJECT, of 64-bit words:
//
//   0 first address, 1 last address, 2 which call (0: none), 3 which of them (1: the first),
//   4 errno, 5 how many failed, 6 counting since; from 16 on: how many there were of each.
//
// Nothing here allocates or locks: the library calls some of these in a signal handler.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum call {
    OPEN = 1, FSTAT, FTRUNCATE, FALLOCATE, MMAP, MPROTECT, MSYNC, FDATASYNC, FSYNC, FCNTL, CLOSE,
    FSTATVFS, LINKAT, RENAME, MADVISE, MLOCK, SYNC_FILE_RANGE, PWRITE, PREAD, DUP,
    MREMAP, FCHMOD, FCHOWN, UNLINK, WRITE, READ, READLINK, REALPATH, LSEEK, MINCORE, MUNLOCK,
    FSTATFS, IOCTL, FADVISE, GETRLIMIT, GETCWD, FACCESSAT, DUP3, OPENDIR, READDIR, FSTATAT, FLOCK
};

struct control {
    uint64_t first, last, call, which, error, failed, unused[10];
    uint64_t seen[48];
};

static struct control *control;

static int fails(enum call call, void *caller)
{
    struct control *c = control;
    if (!c || (uint64_t)caller < c->first || (uint64_t)caller >= c->last)
        return 0;
    uint64_t seen = __atomic_add_fetch(&c->seen[call], 1, __ATOMIC_SEQ_CST);
    if (c->call != call || c->which != seen)
        return 0;
    __atomic_add_fetch(&c->failed, 1, __ATOMIC_SEQ_CST);
    errno = (int)c->error;
    return 1;
}

#define CALLER __builtin_return_address(0)

#define REAL(name) real_##name
#define DECLARE(type, name, ...) static type (*real_##name)(__VA_ARGS__);

DECLARE(int, open, const char *, int, ...)
DECLARE(int, open64, const char *, int, ...)
DECLARE(int, fstat, int, struct stat *)
DECLARE(int, fstat64, int, struct stat64 *)
DECLARE(int, statx, int, const char *, int, unsigned, struct statx *)
DECLARE(int, ftruncate, int, off_t)
DECLARE(int, fallocate, int, int, off_t, off_t)
DECLARE(void *, mmap, void *, size_t, int, int, int, off_t)
DECLARE(void *, mremap, void *, size_t, size_t, int, ...)
DECLARE(int, mprotect, void *, size_t, int)
DECLARE(int, msync, void *, size_t, int)
DECLARE(int, fdatasync, int)
DECLARE(int, fsync, int)
DECLARE(int, fcntl, int, int, ...)
DECLARE(int, close, int)
DECLARE(int, fstatvfs, int, struct statvfs *)
DECLARE(int, linkat, int, const char *, int, const char *, int)
DECLARE(int, rename, const char *, const char *)
DECLARE(int, madvise, void *, size_t, int)
DECLARE(int, mlock, const void *, size_t)
DECLARE(int, sync_file_range, int, off64_t, off64_t, unsigned)
DECLARE(ssize_t, pwrite, int, const void *, size_t, off_t)
DECLARE(ssize_t, pwrite64, int, const void *, size_t, off64_t)
DECLARE(ssize_t, pread, int, void *, size_t, off_t)
DECLARE(ssize_t, pread64, int, void *, size_t, off64_t)
DECLARE(int, stat64, const char *, struct stat64 *)
DECLARE(int, lstat64, const char *, struct stat64 *)
DECLARE(int, fchmod, int, mode_t)
DECLARE(DIR *, opendir, const char *)
DECLARE(struct dirent64 *, readdir64, DIR *)
DECLARE(int, fstatat64, int, const char *, struct stat64 *, int)
DECLARE(int, flock, int, int)
DECLARE(int, fchown, int, uid_t, gid_t)
DECLARE(int, unlink, const char *)
DECLARE(ssize_t, write, int, const void *, size_t)
DECLARE(ssize_t, read, int, void *, size_t)
DECLARE(ssize_t, readlink, const char *, char *, size_t)
DECLARE(char *, realpath, const char *, char *)
DECLARE(off_t, lseek, int, off_t, int)
DECLARE(off64_t, lseek64, int, off64_t, int)
DECLARE(int, mincore, void *, size_t, unsigned char *)
DECLARE(int, munlock, const void *, size_t)
DECLARE(int, fstatfs, int, struct statfs *)
DECLARE(int, ioctl, int, unsigned long, ...)
DECLARE(int, posix_fadvise, int, off_t, off_t, int)
DECLARE(int, getrlimit, int, struct rlimit *)
DECLARE(char *, getcwd, char *, size_t)
DECLARE(int, faccessat, int, const char *, int, int)
DECLARE(int, dup3, int, int, int)

#define FIND(name) real_##name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void load(void)
{
    FIND(open); FIND(open64); FIND(fstat); FIND(fstat64); FIND(statx); FIND(ftruncate); FIND(fallocate);
    FIND(mmap); FIND(mremap); FIND(mprotect); FIND(msync); FIND(fdatasync); FIND(fsync); FIND(fcntl); FIND(close);
    FIND(fstatvfs); FIND(linkat); FIND(rename); FIND(madvise); FIND(mlock); FIND(sync_file_range);
    FIND(pwrite); FIND(pwrite64); FIND(pread); FIND(pread64); FIND(stat64); FIND(lstat64); FIND(fchmod); FIND(fchown);
    FIND(opendir); FIND(readdir64); FIND(fstatat64); FIND(flock);
    FIND(unlink); FIND(write); FIND(read); FIND(readlink); FIND(realpath); FIND(lseek); FIND(lseek64); FIND(mincore);
    FIND(munlock); FIND(fstatfs); FIND(ioctl); FIND(posix_fadvise); FIND(getrlimit); FIND(getcwd); FIND(faccessat); FIND(dup3);
    const char *path = getenv("EMMAP_INJECT");
    if (!path)
        return;
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at = real_mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
    if (at != MAP_FAILED)
        control = at;
}

static int mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    int mode = mode_of(flags, arguments);
    va_end(arguments);
    return fails(OPEN, CALLER) ? -1 : real_open(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    int mode = mode_of(flags, arguments);
    va_end(arguments);
    return fails(OPEN, CALLER) ? -1 : real_open64(path, flags, mode);
}

int fcntl(int fd, int command, ...)
{
    va_list arguments;
    va_start(arguments, command);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    // No system lets an unlock fail.
    int unlocks = command == F_OFD_SETLK && ((struct flock *)argument)->l_type == F_UNLCK;
    enum call call = command == F_DUPFD_CLOEXEC ? DUP : FCNTL;
    return !unlocks && fails(call, CALLER) ? -1 : real_fcntl(fd, command, argument);
}

int close(int fd)
{
    if (!fails(CLOSE, CALLER))
        return real_close(fd);
    int error = errno;
    // Linux closes the descriptor regardless of the result.
    real_close(fd);
    errno = error;
    return -1;
}

// As the kernel: with MAP_FIXED the old pages are gone before the file system is asked.
static int mmap_fails(void *caller, void *at, size_t length, int flags, int fd)
{
    if (!fails(MMAP, caller))
        return 0;
    int error = errno;
    if (fd >= 0 && flags & MAP_FIXED)
        munmap(at, length);
    errno = error;
    return 1;
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
{
    return mmap_fails(CALLER, at, length, flags, fd) ? MAP_FAILED : real_mmap(at, length, protection, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset)
{
    return mmap_fails(CALLER, at, length, flags, fd) ? MAP_FAILED : real_mmap(at, length, protection, flags, fd, offset);
}

void *mremap(void *from, size_t before, size_t after, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    if (!fails(MREMAP, CALLER))
        return real_mremap(from, before, after, flags, to);
    int error = errno;
    if (to)
        munmap(to, after);
    errno = error;
    return MAP_FAILED;
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    return fails(IOCTL, CALLER) ? -1 : real_ioctl(fd, request, argument);
}

// It returns the error itself.
int posix_fadvise(int fd, off_t from, off_t count, int advice)
{
    return fails(FADVISE, CALLER) ? errno : real_posix_fadvise(fd, from, count, advice);
}

char *realpath(const char *path, char *resolved)
{
    return fails(REALPATH, CALLER) ? NULL : real_realpath(path, resolved);
}

char *getcwd(char *out, size_t size)
{
    return fails(GETCWD, CALLER) ? NULL : real_getcwd(out, size);
}

DIR *opendir(const char *path)
{
    return fails(OPENDIR, CALLER) ? NULL : real_opendir(path);
}

struct dirent64 *readdir64(DIR *directory)
{
    return fails(READDIR, CALLER) ? NULL : real_readdir64(directory);
}

#define WRAP(call, type, name, parameters, arguments) \
    type name parameters { return fails(call, CALLER) ? -1 : real_##name arguments; }

WRAP(FSTAT, int, fstat, (int fd, struct stat *s), (fd, s))
WRAP(FSTAT, int, fstat64, (int fd, struct stat64 *s), (fd, s))
WRAP(FSTAT, int, statx, (int fd, const char *path, int flags, unsigned mask, struct statx *s), (fd, path, flags, mask, s))
WRAP(FTRUNCATE, int, ftruncate, (int fd, off_t size), (fd, size))
WRAP(FALLOCATE, int, fallocate, (int fd, int mode, off_t from, off_t count), (fd, mode, from, count))
WRAP(MPROTECT, int, mprotect, (void *at, size_t length, int protection), (at, length, protection))
WRAP(MSYNC, int, msync, (void *at, size_t length, int flags), (at, length, flags))
WRAP(FDATASYNC, int, fdatasync, (int fd), (fd))
WRAP(FSYNC, int, fsync, (int fd), (fd))
WRAP(FSTATVFS, int, fstatvfs, (int fd, struct statvfs *s), (fd, s))
WRAP(LINKAT, int, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
WRAP(RENAME, int, rename, (const char *from, const char *to), (from, to))
WRAP(MADVISE, int, madvise, (void *at, size_t length, int advice), (at, length, advice))
WRAP(MLOCK, int, mlock, (const void *at, size_t length), (at, length))
WRAP(SYNC_FILE_RANGE, int, sync_file_range, (int fd, off64_t from, off64_t count, unsigned flags), (fd, from, count, flags))
WRAP(PWRITE, ssize_t, pwrite64, (int fd, const void *data, size_t count, off64_t at), (fd, data, count, at))
WRAP(PREAD, ssize_t, pread64, (int fd, void *data, size_t count, off64_t at), (fd, data, count, at))
WRAP(PWRITE, ssize_t, pwrite, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at))
WRAP(PREAD, ssize_t, pread, (int fd, void *data, size_t count, off_t at), (fd, data, count, at))
WRAP(FSTAT, int, stat64, (const char *path, struct stat64 *s), (path, s))
WRAP(FSTAT, int, lstat64, (const char *path, struct stat64 *s), (path, s))
WRAP(FCHMOD, int, fchmod, (int fd, mode_t mode), (fd, mode))
WRAP(FCHOWN, int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group))
WRAP(UNLINK, int, unlink, (const char *path), (path))
WRAP(WRITE, ssize_t, write, (int fd, const void *data, size_t count), (fd, data, count))
WRAP(READ, ssize_t, read, (int fd, void *data, size_t count), (fd, data, count))
WRAP(READLINK, ssize_t, readlink, (const char *path, char *out, size_t size), (path, out, size))
WRAP(LSEEK, off_t, lseek, (int fd, off_t at, int whence), (fd, at, whence))
WRAP(LSEEK, off64_t, lseek64, (int fd, off64_t at, int whence), (fd, at, whence))
WRAP(MINCORE, int, mincore, (void *at, size_t length, unsigned char *out), (at, length, out))
WRAP(MUNLOCK, int, munlock, (const void *at, size_t length), (at, length))
WRAP(FSTATFS, int, fstatfs, (int fd, struct statfs *s), (fd, s))
WRAP(GETRLIMIT, int, getrlimit, (__rlimit_resource_t resource, struct rlimit *limit), (resource, limit))
WRAP(DUP3, int, dup3, (int from, int to, int flags), (from, to, flags))
WRAP(FACCESSAT, int, faccessat, (int fd, const char *path, int mode, int flags), (fd, path, mode, flags))
WRAP(FSTATAT, int, fstatat64, (int fd, const char *path, struct stat64 *s, int flags), (fd, path, s, flags))
WRAP(FLOCK, int, flock, (int fd, int operation), (fd, operation))
