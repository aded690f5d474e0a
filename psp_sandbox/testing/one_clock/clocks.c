/* Preloaded into the application: its clocks are the host's plus two offsets, which are in a shared file. */
#include "one_clock.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

struct clocks *clocks;
struct process *self;

int real_clock(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    return real(clock, now);
}

int64_t offset_of(clockid_t clock) {
    if (!clocks) return 0;
    switch (clock) {
    case CLOCK_REALTIME: case CLOCK_REALTIME_COARSE: case CLOCK_TAI:
        return __atomic_load_n(&clocks->wall, __ATOMIC_ACQUIRE);
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_RAW: case CLOCK_MONOTONIC_COARSE: case CLOCK_BOOTTIME:
        return __atomic_load_n(&clocks->monotonic, __ATOMIC_ACQUIRE);
    default: return 0; /* CPU time */
    }
}

int64_t now_of(clockid_t clock) {
    struct timespec now;
    real_clock(clock, &now);
    return nanoseconds(&now) + offset_of(clock);
}

static void add_process(void) {
    int32_t process = getpid();
    self = NULL;
    for (int i = 0; clocks && i < PROCESSES; i++) {
        int32_t free = 0;
        if (__atomic_compare_exchange_n(&clocks->processes[i].id, &free, process, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            self = &clocks->processes[i];
            self->open_requests = self->answers_until = 0;
            return;
        }
    }
}

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("PSP_CLOCK_FILE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof *clocks, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return;
    clocks = shared;
    add_process();
    pthread_atfork(NULL, NULL, add_process);
}

/* Extensions of PHP, such as curl, are loaded so that they prefer the C library's functions to those of a preloaded library.
 *
 * The C library searches where its caller's own file says. So this must end in a jump, which keeps the caller's address: the
 * compiler makes one when it optimizes. */
void *dlopen(const char *path, int flags) {
    REAL(dlopen);
    return real(path, flags & ~RTLD_DEEPBIND);
}

/* Reading the clocks. */

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = real_clock(clock, now);
    if (!failed) *now = timespec_of(nanoseconds(now) + offset_of(clock));
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    int64_t at = now_of(CLOCK_REALTIME);
    *now = (struct timeval){at / SECOND, at % SECOND / 1000};
    return 0;
}

time_t time(time_t *now) {
    time_t at = now_of(CLOCK_REALTIME) / SECOND;
    if (now) *now = at;
    return at;
}

int timespec_get(struct timespec *now, int base) {
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, now) ? base : 0;
}
