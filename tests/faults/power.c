/* Preloaded into a service: keeps, of every file below POWER_DIRECTORY, what was in it at its last fsync.
 *
 * The copy of a file is POWER_SHADOW/INODE. It is complete before the fsync returns and appears in one step, so that
 * what a caller believes durable is always there, and half a copy never is. With POWER_LIES=1 the disk lies: nothing is
 * kept, as if fsync were a promise that nobody holds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void fail(const char *what) {
    dprintf(2, "power.c: %s: %s\n", what, strerror(errno));
    abort();
}

static const char *shadow(void) { return getenv("POWER_SHADOW"); }

static int ours(int fd, struct stat *about) {
    const char *directory = getenv("POWER_DIRECTORY");
    char place[64], path[PATH_MAX];
    ssize_t length;
    if (!directory || !shadow() || fstat(fd, about) != 0 || !S_ISREG(about->st_mode))
        return 0;
    snprintf(place, sizeof place, "/proc/self/fd/%d", fd);
    length = readlink(place, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, directory, strlen(directory)) == 0;
}

static void keep(int fd) {
    static __thread char buffer[1 << 16];
    struct stat about;
    char draft[PATH_MAX], copy[PATH_MAX];
    int saved = errno, out, in = fd;
    off_t at = 0;
    ssize_t got;
    if (!ours(fd, &about))
        return;
    const char *lies = getenv("POWER_LIES");
    if (lies && *lies == '1')
        return;
    snprintf(draft, sizeof draft, "%s/%ju.%ld", shadow(), (uintmax_t)about.st_ino, syscall(SYS_gettid));
    snprintf(copy, sizeof copy, "%s/%ju", shadow(), (uintmax_t)about.st_ino);
    if ((out = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0)
        fail(draft);
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        /* Only where it must be: closing a second descriptor drops the record locks of a database. */
        snprintf(copy, sizeof copy, "/proc/self/fd/%d", fd);
        if ((in = open(copy, O_RDONLY | O_CLOEXEC)) < 0)
            fail(copy);
        snprintf(copy, sizeof copy, "%s/%ju", shadow(), (uintmax_t)about.st_ino);
    }
    while ((got = pread(in, buffer, sizeof buffer, at)) > 0) {
        if (write(out, buffer, (size_t)got) != got)
            fail("write");
        at += got;
    }
    if (got < 0)
        fail("pread");
    if (in != fd)
        close(in);
    if (close(out) != 0 || rename(draft, copy) != 0)
        fail(copy);
    errno = saved;
}

/* A file's number may serve another file once its last name is gone. */
static void forget(int at, const char *path) {
    struct stat about;
    char copy[PATH_MAX];
    int saved = errno;
    if (shadow() && fstatat(at, path, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about.st_mode) && about.st_nlink == 1) {
        snprintf(copy, sizeof copy, "%s/%ju", shadow(), (uintmax_t)about.st_ino);
        syscall(SYS_unlink, copy);
    }
    errno = saved;
}

int fsync(int fd) {
    keep(fd);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    keep(fd);
    return (int)syscall(SYS_fdatasync, fd);
}

int unlink(const char *path) {
    forget(AT_FDCWD, path);
    return (int)syscall(SYS_unlink, path);
}

int unlinkat(int at, const char *path, int flags) {
    if (!(flags & AT_REMOVEDIR))
        forget(at, path);
    return (int)syscall(SYS_unlinkat, at, path, flags);
}
