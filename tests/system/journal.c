/* Appends to a journal what is done to files, so that the disk as of a loss of power can be worked out. Load it with LD_PRELOAD.

   JOURNAL names the journal, and JOURNALED the directory whose entries are recorded. A record is a line of text and, for a
   write, the bytes written. Changes are recorded when they are done and syncs when they begin and end, so a write that is
   recorded before the beginning of a sync was done before it. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int journal = -1;
static const char *directory;

__attribute__((constructor)) static void begin(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* the loss of power ends every process */
    directory = getenv("JOURNALED");
    const char *path = getenv("JOURNAL");
    if (directory && path) journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void record(const void *bytes, size_t size, const char *format, ...) {
    char head[2 * PATH_MAX];
    int error = errno;
    va_list values;
    va_start(values, format);
    int length = vsnprintf(head, sizeof head, format, values);
    va_end(values);
    struct iovec parts[2] = {{head, length}, {(void *)bytes, size}};
    if (journal >= 0 && syscall(SYS_writev, journal, parts, size ? 2 : 1) != (ssize_t)(length + size)) abort();
    errno = error;
}

/* Return the inode of an open file or directory; 0 for anything else. */
static unsigned long inode(int fd) {
    struct stat status;
    int error = errno, failed = journal < 0 || fstat(fd, &status);
    errno = error;
    return !failed && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)) ? status.st_ino : 0;
}

/* Return the name of an entry of the directory; NULL for any other path. */
static const char *entry(const char *path) {
    size_t length = directory ? strlen(directory) : 0;
    if (journal < 0 || strncmp(path, directory, length) || path[length] != '/' || strchr(path + length + 1, '/')) return NULL;
    return path + length + 1;
}

static void wrote(int fd, const void *bytes, ssize_t size, off_t at) {
    unsigned long file = size > 0 ? inode(fd) : 0;
    if (file) record(bytes, size, "write %lu %ld %ld\n", file, (long)at, (long)size);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    ssize_t written = REAL(pwrite64)(fd, bytes, size, at);
    wrote(fd, bytes, written, at);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    ssize_t written = REAL(pwrite)(fd, bytes, size, at);
    wrote(fd, bytes, written, at);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    ssize_t written = REAL(write)(fd, bytes, size);
    if (written > 0 && inode(fd)) wrote(fd, bytes, written, lseek(fd, 0, SEEK_CUR) - written);
    return written;
}

static int truncated(int fd, off_t size, int failed) {
    unsigned long file = failed ? 0 : inode(fd);
    if (file) record(NULL, 0, "truncate %lu %ld\n", file, (long)size);
    return failed;
}

int ftruncate64(int fd, off64_t size) { return truncated(fd, size, REAL(ftruncate64)(fd, size)); }
int ftruncate(int fd, off_t size) { return truncated(fd, size, REAL(ftruncate)(fd, size)); }

static int synced(int fd, int (*sync)(int)) {
    unsigned long file = inode(fd), thread = syscall(SYS_gettid);
    if (file) record(NULL, 0, "sync %lu %lu\n", file, thread);
    int failed = sync(fd);
    if (file && !failed) record(NULL, 0, "synced %lu %lu\n", file, thread);
    return failed;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = flags & O_CREAT ? entry(path) : NULL;
    int fd = name ? syscall(SYS_openat, AT_FDCWD, path, flags | O_EXCL, mode) : -1;
    if (fd >= 0) record(NULL, 0, "create %lu %s\n", inode(fd), name);
    if (!name || (fd < 0 && errno == EEXIST && !(flags & O_EXCL))) fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && flags & O_TRUNC) truncated(fd, 0, 0);
    return fd;
}
#define MODE(flags) va_list more; va_start(more, flags); mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; va_end(more)
int open(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags); return opened(path, flags, mode); }

int symlink(const char *target, const char *path) {
    int failed = REAL(symlink)(target, path);
    if (!failed && entry(path)) record(NULL, 0, "symlink %s %s\n", target, entry(path));
    return failed;
}

int rename(const char *from, const char *to) {
    int failed = REAL(rename)(from, to);
    if (!failed && entry(from) && entry(to)) record(NULL, 0, "rename %s %s\n", entry(from), entry(to));
    return failed;
}

int unlink(const char *path) {
    int failed = REAL(unlink)(path);
    if (!failed && entry(path)) record(NULL, 0, "unlink %s\n", entry(path));
    return failed;
}
