/* Makes calls on chosen files fail, as a broken disk does. Load it with LD_PRELOAD.

   While the file named by FAILING_DISK exists, it contains "CALLS ERRNO PART", such as "write,fsync 5 events.db":
   these calls fail with this error on files whose path contains PART. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int fails(const char *call, int fd, const char *path) {
    char calls[200], part[200], link[64], target[4096];
    int error, scanned;
    const char *control = getenv("FAILING_DISK");
    FILE *file = control ? fopen(control, "re") : NULL;
    if (!file) return 0;
    scanned = fscanf(file, "%199s %d %199s", calls, &error, part);
    fclose(file);
    if (scanned != 3 || !strstr(calls, call)) return 0;
    if (!path) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length < 0) return 0;
        target[length] = 0;
        path = target;
    }
    if (!strstr(path, part)) return 0;
    errno = error;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) { return fails("write", fd, NULL) ? -1 : REAL(pwrite64)(fd, b, n, at); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t at) { return fails("write", fd, NULL) ? -1 : REAL(pwrite)(fd, b, n, at); }
ssize_t pread64(int fd, void *b, size_t n, off64_t at) { return fails("read", fd, NULL) ? -1 : REAL(pread64)(fd, b, n, at); }
ssize_t pread(int fd, void *b, size_t n, off_t at) { return fails("read", fd, NULL) ? -1 : REAL(pread)(fd, b, n, at); }
int fsync(int fd) { return fails("fsync", fd, NULL) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails("fsync", fd, NULL) ? -1 : REAL(fdatasync)(fd); }

static int opened(const char *path, int flags, mode_t mode, int is64) {
    if ((flags & (O_WRONLY | O_RDWR)) && fails("open", -1, path)) return -1;
    return is64 ? REAL(open64)(path, flags, mode) : REAL(open)(path, flags, mode);
}
#define MODE(flags) va_list more; va_start(more, flags); mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; va_end(more)
int open(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode, 0); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode, 1); }
