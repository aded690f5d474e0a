/* A wait that has a time limit is made in short slices. So it ends as soon as the clocks have moved past its end, also if they
 * move while it waits. The file lists the ends of all waits, so that whoever moves the clocks can stop at each.
 */
#include "one_clock.h"
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define IDLE_SLICE (10 * MILLISECOND)
#define MOVING_SLICE (2 * MILLISECOND)
/* A time of the monotonic clock is smaller, one of the wall clock larger: which clock a condition variable has is not known. */
#define WALL_TIMES (1000000000LL * SECOND)

struct waiting { int64_t end; struct wait *listed; };

static struct waiting begin(int64_t length) {
    struct waiting self = {now_of(CLOCK_MONOTONIC) + length, NULL};
    int32_t thread = syscall(SYS_gettid);
    for (int i = 0; clocks && length > IDLE_SLICE && i < WAITS; i++) {
        struct wait *wait = &clocks->waits[(thread + i) % WAITS];
        int32_t free = 0;
        if (__atomic_compare_exchange_n(&wait->thread, &free, thread, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            wait->process = getpid();
            wait->length = length;
            __atomic_store_n(&wait->end, self.end, __ATOMIC_RELEASE);
            self.listed = wait;
            break;
        }
    }
    return self;
}

static int64_t left(const struct waiting *self) { return self->end - now_of(CLOCK_MONOTONIC); }

static int64_t slice(const struct waiting *self) {
    int64_t rest = left(self);
    int64_t longest = clocks && __atomic_load_n(&clocks->is_moving, __ATOMIC_ACQUIRE) ? MOVING_SLICE : IDLE_SLICE;
    return rest < 0 ? 0 : rest < longest ? rest : longest;
}

static void end(const struct waiting *self) {
    if (!self->listed) return;
    __atomic_store_n(&self->listed->end, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&self->listed->thread, 0, __ATOMIC_RELEASE);
}

/* Make a wait in slices: `call` waits for `part` nanoseconds, and `again` says whether nothing has happened. */
#define IN_SLICES(length, call, again) \
    struct waiting waiting = begin(length); \
    do { \
        int64_t part = slice(&waiting); \
        result = (call); \
    } while ((again) && left(&waiting) > 0); \
    int saved = errno; \
    end(&waiting); \
    errno = saved

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *request, struct timespec *rest) {
    REAL(clock_nanosleep);
    int is_absolute = flags & TIMER_ABSTIME, result;
    if (!clocks || (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC && clock != CLOCK_BOOTTIME)
        || request->tv_nsec < 0 || request->tv_nsec >= SECOND)
        return real(clock, flags, request, rest);
    struct timespec one;
    IN_SLICES(nanoseconds(request) - (is_absolute ? now_of(clock) : 0),
              (one = timespec_of(part), real(CLOCK_MONOTONIC, 0, &one, NULL)), result == 0);
    if (result == EINTR && rest && !is_absolute) *rest = timespec_of(left(&waiting) > 0 ? left(&waiting) : 0);
    return result;
}

int nanosleep(const struct timespec *request, struct timespec *rest) {
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, request, rest);
    if (error) errno = error;
    return error ? -1 : 0;
}

int usleep(useconds_t microseconds) {
    struct timespec request = timespec_of(microseconds * 1000LL);
    return nanosleep(&request, NULL);
}

unsigned int sleep(unsigned int seconds) {
    struct timespec request = {seconds, 0}, rest = {0, 0};
    return nanosleep(&request, &rest) ? rest.tv_sec + (rest.tv_nsec > 0) : 0;
}

static int milliseconds(int64_t part) { return (part + MILLISECOND - 1) / MILLISECOND; }

int poll(struct pollfd *files, nfds_t count, int limit) {
    REAL(poll);
    int result;
    if (!clocks || limit <= 0 || waits_for_answer(files, count)) return real(files, count, limit);
    IN_SLICES(limit * MILLISECOND, real(files, count, milliseconds(part)), result == 0);
    return result;
}

int ppoll(struct pollfd *files, nfds_t count, const struct timespec *limit, const sigset_t *mask) {
    REAL(ppoll);
    int result;
    if (!clocks || !limit || nanoseconds(limit) == 0 || waits_for_answer(files, count))
        return real(files, count, limit, mask);
    struct timespec one;
    IN_SLICES(nanoseconds(limit), (one = timespec_of(part), real(files, count, &one, mask)), result == 0);
    return result;
}

static int in_slices_of_select(int count, fd_set *sets[3], int64_t length, const sigset_t *mask) {
    REAL(pselect);
    fd_set wanted[3];
    int result;
    for (int i = 0; i < 3; i++) if (sets[i]) wanted[i] = *sets[i];
    struct timespec one;
    IN_SLICES(length, ({
        for (int i = 0; i < 3; i++) if (sets[i]) *sets[i] = wanted[i];
        one = timespec_of(part);
        real(count, sets[0], sets[1], sets[2], &one, mask);
    }), result == 0);
    return result;
}

int select(int count, fd_set *restrict reads, fd_set *restrict writes, fd_set *restrict errors, struct timeval *restrict limit) {
    REAL(select);
    if (!clocks || !limit || (limit->tv_sec == 0 && limit->tv_usec == 0)) return real(count, reads, writes, errors, limit);
    fd_set *sets[3] = {reads, writes, errors};
    return in_slices_of_select(count, sets, limit->tv_sec * SECOND + limit->tv_usec * 1000LL, NULL);
}

int pselect(int count, fd_set *restrict reads, fd_set *restrict writes, fd_set *restrict errors,
            const struct timespec *restrict limit, const sigset_t *restrict mask) {
    REAL(pselect);
    if (!clocks || !limit || nanoseconds(limit) == 0) return real(count, reads, writes, errors, limit, mask);
    fd_set *sets[3] = {reads, writes, errors};
    return in_slices_of_select(count, sets, nanoseconds(limit), mask);
}

int epoll_pwait(int epoll, struct epoll_event *events, int count, int limit, const sigset_t *mask) {
    REAL(epoll_pwait);
    int result;
    if (!clocks || limit <= 0) return real(epoll, events, count, limit, mask);
    IN_SLICES(limit * MILLISECOND, real(epoll, events, count, milliseconds(part), mask), result == 0);
    return result;
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int limit) {
    return epoll_pwait(epoll, events, count, limit, NULL);
}

int epoll_pwait2(int epoll, struct epoll_event *events, int count, const struct timespec *limit, const sigset_t *mask) {
    int64_t rest = limit ? milliseconds(nanoseconds(limit)) : -1;
    return epoll_pwait(epoll, events, count, rest > INT32_MAX ? INT32_MAX : (int)rest, mask);
}

static struct timespec real_end(clockid_t clock, int64_t part) {
    struct timespec now;
    real_clock(clock, &now);
    return timespec_of(nanoseconds(&now) + part);
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, const struct timespec *restrict at) {
    static __typeof__(&pthread_cond_timedwait) real;
    if (!real) real = (__typeof__(real))dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    if (!clocks) return real(condition, mutex, at);
    clockid_t clock = nanoseconds(at) > WALL_TIMES ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    struct timespec one;
    int result;
    IN_SLICES(nanoseconds(at) - now_of(clock), (one = real_end(clock, part), real(condition, mutex, &one)), result == ETIMEDOUT);
    return result;
}

int pthread_cond_clockwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex, clockid_t clock,
                           const struct timespec *restrict at) {
    REAL(pthread_cond_clockwait);
    struct timespec one;
    int result;
    IN_SLICES(nanoseconds(at) - now_of(clock), (one = real_end(clock, part), real(condition, mutex, clock, &one)),
              result == ETIMEDOUT);
    return result;
}

int sem_clockwait(sem_t *restrict semaphore, clockid_t clock, const struct timespec *restrict at) {
    REAL(sem_clockwait);
    struct timespec one;
    int result;
    IN_SLICES(nanoseconds(at) - now_of(clock), (one = real_end(clock, part), real(semaphore, clock, &one)),
              result == -1 && errno == ETIMEDOUT);
    return result;
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict at) {
    return sem_clockwait(semaphore, CLOCK_REALTIME, at);
}

/* These count the host's time and do not end early. Runtimes set short ones for their own use; applications wait for longer ones. */

static void say_alarm(int64_t length) {
    static char said;
    if (!clocks || length < SECOND || __atomic_exchange_n(&said, 1, __ATOMIC_ACQ_REL)) return;
    int saved = errno;
    dprintf(STDERR_FILENO, "psp: process %d has set a timer of %lld s with alarm, setitimer, timer_settime or timerfd_settime. "
                           "It counts real time: an advance of the clock does not fire it.\n", getpid(), (long long)(length / SECOND));
    errno = saved;
}

/* Timers of CPU time, which does not move. */
#define CPU_TIMERS 64
static struct { char is_used; timer_t id; } cpu_timers[CPU_TIMERS];

static int is_cpu_time(clockid_t clock) {
    return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

static int place_of(timer_t timer) {
    for (int i = 0; i < CPU_TIMERS; i++) if (cpu_timers[i].is_used && cpu_timers[i].id == timer) return i;
    return -1;
}

int timer_create(clockid_t clock, struct sigevent *restrict event, timer_t *restrict timer) {
    REAL(timer_create);
    int failed = real(clock, event, timer);
    for (int i = 0; !failed && is_cpu_time(clock) && i < CPU_TIMERS; i++)
        if (!__atomic_exchange_n(&cpu_timers[i].is_used, 1, __ATOMIC_ACQ_REL)) {
            cpu_timers[i].id = *timer;
            break;
        }
    return failed;
}

int timer_delete(timer_t timer) {
    REAL(timer_delete);
    int place = place_of(timer);
    if (place >= 0) cpu_timers[place].is_used = 0;
    return real(timer);
}

/* An absolute time is one of the moved clocks; the kernel needs the host's. */
static struct itimerspec alarm_of(const struct itimerspec *set, int is_absolute) {
    struct itimerspec host = *set;
    int64_t at = nanoseconds(&set->it_value);
    clockid_t clock = at > WALL_TIMES ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    int64_t of_host = at - offset_of(clock);
    /* One from before the host's clock began is in the past. Zero would end the timer. */
    if (is_absolute && at) host.it_value = timespec_of(of_host > 0 ? of_host : 1);
    say_alarm(is_absolute && at ? at - now_of(clock) : at);
    return host;
}

unsigned int alarm(unsigned int seconds) {
    REAL(alarm);
    say_alarm(seconds * SECOND);
    return real(seconds);
}

int setitimer(__itimer_which_t which, const struct itimerval *restrict set, struct itimerval *restrict old) {
    REAL(setitimer);
    if (which == ITIMER_REAL && set) say_alarm(set->it_value.tv_sec * SECOND + set->it_value.tv_usec * 1000LL);
    return real(which, set, old);
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *restrict set, struct itimerspec *restrict old) {
    REAL(timer_settime);
    if (!set || place_of(timer) >= 0) return real(timer, flags, set, old);
    struct itimerspec host = alarm_of(set, flags & TIMER_ABSTIME);
    return real(timer, flags, &host, old);
}

int timerfd_settime(int file, int flags, const struct itimerspec *set, struct itimerspec *old) {
    REAL(timerfd_settime);
    if (!set) return real(file, flags, set, old);
    struct itimerspec host = alarm_of(set, flags & TFD_TIMER_ABSTIME);
    return real(file, flags, &host, old);
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict at) {
    REAL(pthread_mutex_timedlock);
    struct timespec host = timespec_of(nanoseconds(at) - offset_of(CLOCK_REALTIME));
    return real(mutex, &host);
}
