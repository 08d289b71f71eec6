/* Stands between a program and its C library, and makes the n-th file operation below a folder fail, or the process die there.
 *
 * strace can inject faults too, but it counts calls by thread: the n-th rename of a program with many threads can't be named.
 * Here one counter serves all threads, so every step of a run can be met. Loaded by LD_PRELOAD, told by the environment:
 *
 *   FAULT_UNDER  absolute folder: only paths below it count
 *   FAULT_KINDS  the kinds that count, joined by commas: create,open,read,write,sync,rename,link,unlink,mkdir,truncate,chmod,list
 *   FAULT_AT     the call to meet, from 1; 0 for none
 *   FAULT_DO     kill (before the call), kill-after, torn (half of a write, then kill), short (half of a write, then ENOSPC),
 *                or the number of an error
 *   FAULT_ON     1: every later call fails as well, as on a disk that stays full
 *   FAULT_LOG    file that gets a line for every call that counts: number, kind, path
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long counter, at;
static int on, log_fd = -1;
static char under[PATH_MAX], kinds[256], what[32];

__attribute__((constructor)) static void begin(void) {
    const char *value;
    if ((value = getenv("FAULT_UNDER"))) snprintf(under, sizeof under, "%s", value);
    if ((value = getenv("FAULT_KINDS"))) snprintf(kinds, sizeof kinds, ",%s,", value);
    if ((value = getenv("FAULT_DO"))) snprintf(what, sizeof what, "%s", value);
    if ((value = getenv("FAULT_AT"))) at = atol(value);
    on = (value = getenv("FAULT_ON")) && *value == '1';
    if ((value = getenv("FAULT_LOG"))) log_fd = syscall(SYS_openat, AT_FDCWD, value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    char whole[PATH_MAX * 2];
    if (path[0] != '/') {
        if (!getcwd(whole, PATH_MAX)) return 0;
        size_t n = strlen(whole);
        snprintf(whole + n, sizeof whole - n, "/%s", path);
        path = whole;
    }
    size_t n = strlen(under);
    return strncmp(path, under, n) == 0 && (path[n] == '/' || path[n] == 0);
}

enum verdict { PASS, FAIL, AFTER, TORN, SHORT };

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Counts a call on a path, and says what becomes of it. Sets errno where it fails. */
static enum verdict meet(const char *kind, const char *path) {
    char named[64];
    if (!under[0] || !path) return PASS;
    snprintf(named, sizeof named, ",%s,", kind);
    if (!strstr(kinds, named) || !below(path)) return PASS;
    long n = __atomic_add_fetch(&counter, 1, __ATOMIC_SEQ_CST);
    if (log_fd >= 0) {
        char line[PATH_MAX + 64];
        int length = snprintf(line, sizeof line, "%ld %s %s\n", n, kind, path);
        if (syscall(SYS_write, log_fd, line, length) < 0) return PASS;
    }
    if (!at || (n != at && !(on && n > at))) return PASS;
    if (!strcmp(what, "kill")) die();
    if (!strcmp(what, "kill-after")) return AFTER;
    if (!strcmp(what, "torn")) {
        if (strcmp(kind, "write")) die();
        return TORN;
    }
    if (!strcmp(what, "short")) {
        errno = ENOSPC;
        return strcmp(kind, "write") || n != at ? FAIL : SHORT;
    }
    errno = atoi(what);
    return FAIL;
}

static enum verdict meet_fd(const char *kind, int fd) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (n <= 0 || path[0] != '/') return PASS;
    path[n] = 0;
    return meet(kind, path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define PASS_ON(type, failed, met, call) \
    enum verdict v = met; \
    if (v == FAIL) return failed; \
    type result = call; \
    if (v == AFTER) die(); \
    return result

#define OPENS(function, name) \
    int function(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(int, name, const char *, int, ...); \
        PASS_ON(int, -1, meet(flags & O_CREAT ? "create" : "open", path), real(path, flags, mode)); \
    }
OPENS(open, "open")
OPENS(open64, "open64")

ssize_t read(int fd, void *bytes, size_t n) {
    REAL(ssize_t, "read", int, void *, size_t);
    PASS_ON(ssize_t, -1, meet_fd("read", fd), real(fd, bytes, n));
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t from) {
    REAL(ssize_t, "pread64", int, void *, size_t, off64_t);
    PASS_ON(ssize_t, -1, meet_fd("read", fd), real(fd, bytes, n, from));
}

ssize_t write(int fd, const void *bytes, size_t n) {
    REAL(ssize_t, "write", int, const void *, size_t);
    enum verdict v = meet_fd("write", fd);
    if (v == TORN) {
        if (n > 1) real(fd, bytes, n / 2);
        die();
    }
    if (v == SHORT && n > 1) return real(fd, bytes, n / 2);
    if (v == FAIL || v == SHORT) return -1;
    ssize_t result = real(fd, bytes, n);
    if (v == AFTER) die();
    return result;
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    PASS_ON(ssize_t, -1, meet_fd("write", fd), real(fd, parts, n));
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t from) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    PASS_ON(ssize_t, -1, meet_fd("write", fd), real(fd, bytes, n, from));
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    PASS_ON(int, -1, meet_fd("sync", fd), real(fd));
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    PASS_ON(int, -1, meet_fd("sync", fd), real(fd));
}

int ftruncate64(int fd, off64_t length) {
    REAL(int, "ftruncate64", int, off64_t);
    PASS_ON(int, -1, meet_fd("truncate", fd), real(fd, length));
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    PASS_ON(int, -1, meet("rename", to), real(from, to));
}

int link(const char *from, const char *to) {
    REAL(int, "link", const char *, const char *);
    PASS_ON(int, -1, meet("link", to), real(from, to));
}

int linkat(int one, const char *from, int other, const char *to, int flags) {
    REAL(int, "linkat", int, const char *, int, const char *, int);
    PASS_ON(int, -1, meet("link", to), real(one, from, other, to, flags));
}

int symlink(const char *target, const char *path) {
    REAL(int, "symlink", const char *, const char *);
    PASS_ON(int, -1, meet("link", path), real(target, path));
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    PASS_ON(int, -1, meet("unlink", path), real(path));
}

/* How a folder is removed with all that is in it. */
int unlinkat(int folder, const char *name, int flags) {
    char link[64], path[PATH_MAX * 2];
    REAL(int, "unlinkat", int, const char *, int);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = name[0] == '/' || folder == AT_FDCWD ? 0 : readlink(link, path, PATH_MAX);
    if (n < 0) return real(folder, name, flags);
    snprintf(path + n, sizeof path - n, n ? "/%s" : "%s", name);
    PASS_ON(int, -1, meet("unlink", path), real(folder, name, flags));
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    PASS_ON(int, -1, meet("mkdir", path), real(path, mode));
}

int chmod(const char *path, mode_t mode) {
    REAL(int, "chmod", const char *, mode_t);
    PASS_ON(int, -1, meet("chmod", path), real(path, mode));
}

DIR *opendir(const char *path) {
    REAL(DIR *, "opendir", const char *);
    PASS_ON(DIR *, NULL, meet("list", path), real(path));
}
