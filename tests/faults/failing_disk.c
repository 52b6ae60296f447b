/* A disk that fails on demand, for LD_PRELOAD: every call that changes something below a folder is logged, and one of them meets a fault.

   arm(folder, log, at, fault) starts; the first such call is number 1. The log gets a line for each: the call and its path. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, FULL, IO, READ_ONLY, SHORT, KILL, POWER_CUT };
enum { SHORTLY = -1 }; /* the answer for a write that happens, but only by half */
typedef enum { FREES, CHANGES, WRITES } Kind;

static char folder[PATH_MAX];
static int log_file = -1, at, fault;
static int calls; /* so far */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* What a power cut leaves of files: their length at the last fsync. */
static struct { dev_t device; ino_t number; int file; off_t synced; } opened[4096];
static int count_opened;

static int find_opened(int file, struct stat *found) {
    if (fstat(file, found)) return -1;
    for (int i = 0; i < count_opened; i++)
        if (opened[i].device == found->st_dev && opened[i].number == found->st_ino) return i;
    return -1;
}

/* And of names: the old ones, where their folder was not synced after a rename. What it replaced has a second name until then. */
static struct { char *from, *to, *replaced; } renamed[256];
static int count_renamed, count_replaced;

static void note_rename(const char *from, const char *to) {
    char replaced[PATH_MAX + 32];
    snprintf(replaced, sizeof replaced, "%s.replaced.%d.%d", folder, getpid(), count_replaced++);
    int is_kept = !REAL(linkat)(AT_FDCWD, to, AT_FDCWD, replaced, 0); /* not where nothing or a folder was */
    if (count_renamed == 256) abort();
    renamed[count_renamed].from = strdup(from), renamed[count_renamed].to = strdup(to);
    renamed[count_renamed++].replaced = is_kept ? strdup(replaced) : NULL;
}

/* The renames in a folder are now durable. */
static void keep_renames(const char *path) {
    size_t length = strlen(path);
    int kept = 0;
    for (int i = 0; i < count_renamed; i++) {
        int is_here = !strncmp(renamed[i].to, path, length) && renamed[i].to[length] == '/' && !strchr(renamed[i].to + length + 1, '/');
        if (!is_here) renamed[kept++] = renamed[i];
        else if (renamed[i].replaced) REAL(unlink)(renamed[i].replaced);
    }
    count_renamed = kept;
}

static void lose_what_was_not_synced(void) {
    struct stat now;
    for (; count_renamed; count_renamed--) {
        __typeof__(*renamed) *last = &renamed[count_renamed - 1];
        REAL(rename)(last->to, last->from);
        if (last->replaced) REAL(rename)(last->replaced, last->to);
    }
    for (int i = 0; i < count_opened; i++)
        if (!fstat(opened[i].file, &now) && now.st_size > opened[i].synced) (void)!REAL(ftruncate)(opened[i].file, opened[i].synced);
}

/* A power cut just after the process has done its work. */
void finish(void) {
    if (fault == POWER_CUT) lose_what_was_not_synced();
}

static void end(void) {
    finish();
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* What becomes of a call: 0, it happens; SHORTLY; or the errno with which it fails. */
static int decide(const char *name, const char *path, Kind kind) {
    char line[PATH_MAX + 32];
    int length = snprintf(line, sizeof line, "%s %s\n", name, path);
    int number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    (void)!REAL(write)(log_file, line, length);
    switch (fault) {
    case FULL:
        if (kind == FREES || number < at) return 0;
        return kind == WRITES && number == at ? SHORTLY : ENOSPC;
    case IO:
        return number == at ? EIO : 0;
    case READ_ONLY:
        return number >= at ? EROFS : 0;
    case SHORT:
        return number == at && kind == WRITES ? SHORTLY : 0;
    case KILL:
    case POWER_CUT:
        if (number != at) return 0;
        if (kind != WRITES) end();
        return SHORTLY;
    }
    return 0;
}

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return length && !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

/* The path of a file descriptor, if it is below the folder. */
static int locate(int file, char *path) {
    char link[64];
    if (!*folder || file == log_file) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* The same of a path, which may be relative to an open folder. */
static int locate_at(int base, const char *name, char *path) {
    if (!*folder || !name) return 0;
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        char start[PATH_MAX];
        if (base == AT_FDCWD ? !getcwd(start, sizeof start) : !locate(base, start)) return 0;
        snprintf(path, PATH_MAX, "%.2000s/%.2000s", start, name);
    }
    return is_below(path);
}

#define CHANGE(base, name, kind, call)                          \
    char path[PATH_MAX];                                        \
    if (locate_at(base, name, path)) {                          \
        int refused = decide(call, path, kind);                 \
        if (refused > 0) return errno = refused, -1;            \
    }
#define CHANGE_OPEN(file, kind, call)                           \
    char path[PATH_MAX];                                        \
    if (locate(file, path)) {                                   \
        int refused = decide(call, path, kind);                 \
        if (refused > 0) return errno = refused, -1;            \
    }
/* A write of `size` bytes: by half where it is short, and then perhaps the end. */
#define WRITE(file, size, call, whole, half)                    \
    char path[PATH_MAX];                                        \
    if (locate(file, path)) {                                   \
        int refused = decide(call, path, WRITES);               \
        if (refused == SHORTLY && fault == FULL && (size) < 2) refused = ENOSPC; \
        if (refused > 0) return errno = refused, -1;            \
        if (refused == SHORTLY && (fault != SHORT || (size) > 1)) { \
            ssize_t written = half;                             \
            if (fault >= KILL) end();                           \
            return written;                                     \
        }                                                       \
    }                                                           \
    return whole;

static int open_file(int base, const char *name, int flags, mode_t mode) {
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT;
    if (writes) {
        CHANGE(base, name, CHANGES, "open")
    }
    int file = REAL(openat64)(base, name, flags, mode);
    char path[PATH_MAX], link[64];
    struct stat found;
    if (file >= 0 && writes && fault == POWER_CUT && locate(file, path)) {
        int i = find_opened(file, &found);
        if (i < 0 && count_opened < 4096) {
            i = count_opened++;
            snprintf(link, sizeof link, "/proc/self/fd/%d", file); /* not dup: a lock of the file must end with it */
            opened[i].device = found.st_dev, opened[i].number = found.st_ino, opened[i].synced = found.st_size;
            opened[i].file = REAL(openat64)(AT_FDCWD, link, O_WRONLY | O_CLOEXEC, 0);
        }
        if (i >= 0 && found.st_size < opened[i].synced) opened[i].synced = found.st_size;
    }
    return file;
}

#define MODE(flags)                                             \
    mode_t mode = 0;                                            \
    if (flags & (O_CREAT | __O_TMPFILE)) {                      \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode = va_arg(rest, mode_t);                            \
        va_end(rest);                                           \
    }
int open(const char *name, int flags, ...) { MODE(flags) return open_file(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return open_file(AT_FDCWD, name, flags, mode); }
int openat(int base, const char *name, int flags, ...) { MODE(flags) return open_file(base, name, flags, mode); }
int openat64(int base, const char *name, int flags, ...) { MODE(flags) return open_file(base, name, flags, mode); }

ssize_t write(int file, const void *data, size_t size) {
    WRITE(file, size, "write", REAL(write)(file, data, size), REAL(write)(file, data, size / 2))
}
ssize_t pwrite(int file, const void *data, size_t size, off_t start) {
    WRITE(file, size, "pwrite", REAL(pwrite)(file, data, size, start), REAL(pwrite)(file, data, size / 2, start))
}
ssize_t pwrite64(int file, const void *data, size_t size, off_t start) { return pwrite(file, data, size, start); }
ssize_t writev(int file, const struct iovec *parts, int count) {
    size_t first = count ? parts[0].iov_len : 0;
    WRITE(file, first, "writev", REAL(writev)(file, parts, count), REAL(write)(file, parts[0].iov_base, first / 2))
}
ssize_t sendfile(int file, int from, off_t *start, size_t size) {
    WRITE(file, size, "sendfile", REAL(sendfile)(file, from, start, size), REAL(sendfile)(file, from, start, size > 64 ? 64 : size / 2))
}
ssize_t sendfile64(int file, int from, off_t *start, size_t size) { return sendfile(file, from, start, size); }
ssize_t copy_file_range(int from, off_t *start, int file, off_t *to, size_t size, unsigned flags) {
    WRITE(file, size, "copy_file_range", REAL(copy_file_range)(from, start, file, to, size, flags),
          REAL(copy_file_range)(from, start, file, to, size > 64 ? 64 : size / 2, flags))
}

static int synced(int file, int result) {
    struct stat found;
    char path[PATH_MAX];
    int i = result ? -1 : find_opened(file, &found);
    if (i >= 0) opened[i].synced = found.st_size;
    if (!result && locate(file, path) && !fstat(file, &found) && S_ISDIR(found.st_mode)) keep_renames(path);
    return result;
}
int fsync(int file) { CHANGE_OPEN(file, CHANGES, "fsync") return synced(file, REAL(fsync)(file)); }
int fdatasync(int file) { CHANGE_OPEN(file, CHANGES, "fdatasync") return synced(file, REAL(fdatasync)(file)); }
int ftruncate(int file, off_t size) { CHANGE_OPEN(file, FREES, "ftruncate") return REAL(ftruncate)(file, size); }
int ftruncate64(int file, off_t size) { return ftruncate(file, size); }
int fallocate(int file, int mode, off_t start, off_t size) { CHANGE_OPEN(file, CHANGES, "fallocate") return REAL(fallocate)(file, mode, start, size); }
static int rename_at(int base, const char *from, int place, const char *to) {
    char old[PATH_MAX];
    CHANGE(place, to, CHANGES, "rename")
    int is_noted = fault == POWER_CUT && locate_at(place, to, path) && locate_at(base, from, old);
    if (is_noted) note_rename(old, path);
    int result = REAL(renameat)(base, from, place, to);
    if (result && is_noted && renamed[--count_renamed].replaced) REAL(unlink)(renamed[count_renamed].replaced);
    return result;
}
int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to); }
int renameat(int base, const char *from, int place, const char *to) { return rename_at(base, from, place, to); }
int mkdir(const char *name, mode_t mode) { CHANGE(AT_FDCWD, name, CHANGES, "mkdir") return REAL(mkdir)(name, mode); }
int mkdirat(int base, const char *name, mode_t mode) { CHANGE(base, name, CHANGES, "mkdir") return REAL(mkdirat)(base, name, mode); }
int link(const char *from, const char *to) { CHANGE(AT_FDCWD, to, CHANGES, "link") return REAL(link)(from, to); }
int linkat(int base, const char *from, int place, const char *to, int flags) {
    CHANGE(place, to, CHANGES, "link") return REAL(linkat)(base, from, place, to, flags);
}
int chmod(const char *name, mode_t mode) { CHANGE(AT_FDCWD, name, FREES, "chmod") return REAL(chmod)(name, mode); }
int fchmodat(int base, const char *name, mode_t mode, int flags) { CHANGE(base, name, FREES, "chmod") return REAL(fchmodat)(base, name, mode, flags); }
int unlink(const char *name) { CHANGE(AT_FDCWD, name, FREES, "unlink") return REAL(unlink)(name); }
int unlinkat(int base, const char *name, int flags) { CHANGE(base, name, FREES, "unlink") return REAL(unlinkat)(base, name, flags); }
int rmdir(const char *name) { CHANGE(AT_FDCWD, name, FREES, "rmdir") return REAL(rmdir)(name); }

void arm(const char *below, int log, int number, int what) {
    log_file = log, at = number, fault = what, calls = 0;
    snprintf(folder, sizeof folder, "%s", below);
}
