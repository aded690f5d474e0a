/* What is in the shared file, and what the library's parts have in common. `clock_file.py` has the same layout. */
#ifndef ONE_CLOCK_H
#define ONE_CLOCK_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <time.h>

#define SECOND 1000000000LL
#define MILLISECOND 1000000LL
#define PROCESSES 1024
#define WAITS 1024
#define FILES 65536

struct wait { int32_t thread, process; int64_t end, length; };
struct process {
    int32_t id, padding;
    int64_t open_requests; /* the round in the upper half, how many in the lower one */
    int64_t answers_until; /* of the host's monotonic clock: until then, more of an answer may come */
};
struct clocks {
    int64_t wall, monotonic; /* offsets, in nanoseconds */
    int32_t is_moving, round; /* of requests: a new one begins when those so far are no longer awaited */
    char key_digest[32];
    int64_t held_until; /* of the host's monotonic clock: until then, nothing that others ask of this application is read */
    struct process processes[PROCESSES];
    struct wait waits[WAITS];
};

#pragma GCC visibility push(hidden) /* the application may have the same names */
extern struct clocks *clocks; /* NULL if this process does not follow */
extern struct process *self;
int real_clock(clockid_t clock, struct timespec *now);
int64_t offset_of(clockid_t clock);
int64_t now_of(clockid_t clock);
int waits_for_answer(const struct pollfd *files, nfds_t count);
enum progress { MORE_COMES, MORE_MAY_COME, COMPLETE };
/* A request begins, or goes on. */
void begin_answer(int file, const char *request, size_t size);
/* What came on a connection since its last request, up to this data. */
enum progress progress_of(int file, const char *data, size_t size);
void forget_answer(int file);
#pragma GCC visibility pop

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static inline int64_t nanoseconds(const struct timespec *at) { return at->tv_sec * SECOND + at->tv_nsec; }
static inline struct timespec timespec_of(int64_t at) { return (struct timespec){at / SECOND, at % SECOND}; }

#endif
