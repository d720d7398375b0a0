// Preloaded into a VM: fsync of a directory fails with the number in EMMAP_DIRECTORY_ERROR: EINVAL on CIFS before Linux 4.17,
// vboxsf and others, and what else there is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

int fsync(int fd)
{
    struct stat s;
    if (fstat(fd, &s) == 0 && S_ISDIR(s.st_mode)) {
        errno = atoi(getenv("EMMAP_DIRECTORY_ERROR"));
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return real(fd);
}
