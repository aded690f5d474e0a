/* Requests: while one has no answer, the program waits for another one, which does not follow the clocks. So before they move,
 * the program finishes what it does, and reads no further requests.
 */
#include "one_clock.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* An answer may come in parts. If its end cannot be told, this is how long the next part may take. */
#define LONGEST_PAUSE (50 * MILLISECOND)
/* By file: whether it is a connection that this process has opened, or has accepted. */
static char is_client[FILES], is_served[FILES];
/* The round of the last request, and of the one that has no answer yet; 0 for none. */
static int32_t asked_in[FILES], open_in[FILES];

/* A program that waits for the answer on one connection limits real time: the other side answers in real time. */
static int is_connection(int file) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int saved = errno, found = getpeername(file, (struct sockaddr *)&peer, &size) == 0;
    errno = saved;
    return found;
}

static void count_request(int32_t round, int32_t change) {
    int64_t found = __atomic_load_n(&self->open_requests, __ATOMIC_ACQUIRE), next;
    do {
        int32_t counted = found >> 32;
        if (counted > round || (counted < round && change < 0)) return; /* the request is no longer awaited */
        next = (int64_t)round << 32 | (uint32_t)((counted == round ? (int32_t)found : 0) + change);
    } while (!__atomic_compare_exchange_n(&self->open_requests, &found, next, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

static int32_t round_now(void) { return __atomic_load_n(&clocks->round, __ATOMIC_ACQUIRE) + 1; }

/* Return whether a request begins on this connection. */
static int asks(int file) {
    if (!self || file < 0 || file >= FILES || !is_client[file]) return 0;
    int32_t none = 0, round = round_now();
    if (__atomic_load_n(&open_in[file], __ATOMIC_ACQUIRE)) return 0;
    asked_in[file] = round;
    count_request(round, 1); /* first: as soon as the file says so, another thread may count the answer */
    if (__atomic_compare_exchange_n(&open_in[file], &none, round, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return 1;
    count_request(round, -1);
    return 0;
}

static void answered(int file) {
    if (!self || file < 0 || file >= FILES) return;
    int32_t round = __atomic_exchange_n(&open_in[file], 0, __ATOMIC_ACQ_REL);
    if (round) count_request(round, -1);
}

/* Called before the data is sent, because another thread may read the answer before this one goes on. */
static int sends(int file, const char *data, size_t size) {
    if (self && file >= 0 && file < FILES && is_client[file]) begin_answer(file, data, size);
    return asks(file);
}

static void received(int file, const char *data, size_t shown, ssize_t size) {
    if (!self || file < 0 || file >= FILES || !is_client[file]) return;
    enum progress progress = size <= 0 ? COMPLETE : shown < (size_t)size ? MORE_MAY_COME : progress_of(file, data, size);
    if (progress == MORE_COMES) return;
    if (progress == MORE_MAY_COME && asked_in[file] == round_now()) {
        struct timespec now;
        real_clock(CLOCK_MONOTONIC, &now);
        __atomic_store_n(&self->answers_until, nanoseconds(&now) + LONGEST_PAUSE, __ATOMIC_RELEASE);
    }
    answered(file);
}

static int is_known(int file) { return file >= 0 && file < FILES && (is_client[file] || is_served[file]); }

/* Whether a wait is one for the answer on a connection. What came so far, such as a handshake's part, was none.
 *
 * Ruby and curl also wait for a file by which another thread can wake them. */
int waits_for_answer(const struct pollfd *files, nfds_t count) {
    if (count == 2 && is_known(files[0].fd) == is_known(files[1].fd)) return 0;
    int file = count == 2 && is_known(files[1].fd) ? files[1].fd : files[0].fd;
    if (count == 0 || count > 2 || !is_connection(file)) return 0;
    asks(file);
    return 1;
}

static void forget_requests(void) {
    for (int i = 0; i < FILES; i++) open_in[i] = 0;
}

__attribute__((constructor)) static void start(void) {
    pthread_atfork(NULL, NULL, forget_requests); /* they are the parent's */
}

static void forget(int file) {
    if (file < 0 || file >= FILES || (self && self->id != getpid())) return; /* a child of vfork closes its own, and shares this memory */
    answered(file);
    is_client[file] = is_served[file] = 0;
    forget_answer(file);
}

int connect(int file, const struct sockaddr *peer, socklen_t size) {
    REAL(connect);
    int result = real(file, peer, size), saved = errno, type = 0;
    socklen_t length = sizeof type;
    if (file >= 0 && file < FILES && (result == 0 || saved == EINPROGRESS)
        && getsockopt(file, SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM) {
        if (!is_client[file]) forget(file); /* it may be another's that was closed in a way that is not seen here */
        is_client[file] = 1;
        if (result) asks(file); /* for the peer to accept it */
    }
    errno = saved;
    return result;
}

int close(int file) {
    REAL(close);
    forget(file);
    return real(file);
}

/* libuv closes connections so. */
long syscall(long number, ...) {
    REAL(syscall);
    long values[6];
    va_list given;
    va_start(given, number);
    for (int i = 0; i < 6; i++) values[i] = va_arg(given, long);
    va_end(given);
    if (number == SYS_close) forget(values[0]);
    return real(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

static int served(int file) {
    forget(file);
    if (file >= 0 && file < FILES) is_served[file] = 1;
    return file;
}

int accept(int file, struct sockaddr *restrict peer, socklen_t *restrict size) {
    REAL(accept);
    return served(real(file, peer, size));
}

int accept4(int file, struct sockaddr *restrict peer, socklen_t *restrict size, int flags) {
    REAL(accept4);
    return served(real(file, peer, size, flags));
}

/* Whether a read must fail with EAGAIN, because the clocks are about to move. A read that blocks waits here instead. */
static int is_held(int file, int flags) {
    struct timespec now, pause = {0, MILLISECOND / 4};
    if (!clocks || file < 0 || file >= FILES || !is_served[file]) return 0;
    for (;;) {
        int64_t until = __atomic_load_n(&clocks->held_until, __ATOMIC_ACQUIRE);
        if (!until || real_clock(CLOCK_MONOTONIC, &now) || nanoseconds(&now) >= until) return 0;
        syscall(SYS_nanosleep, &pause, NULL); /* in real time; the caller asks again at once */
        if ((flags & MSG_DONTWAIT) || (fcntl(file, F_GETFL) & O_NONBLOCK)) {
            errno = EAGAIN;
            return 1;
        }
    }
}

#define SENDS(name, parameters, arguments, data, size) \
    ssize_t name parameters { \
        REAL(name); \
        int begins = sends(file, data, size); \
        ssize_t count = real arguments; \
        if (count <= 0 && begins) answered(file); \
        return count; \
    }
#define RECEIVES(name, parameters, arguments, data, size, flags) \
    ssize_t name parameters { \
        REAL(name); \
        if (is_held(file, flags)) return -1; \
        ssize_t count = real arguments; \
        if (!((flags) & MSG_PEEK) && (count >= 0 || (errno != EAGAIN && errno != EINTR))) received(file, data, size, count); \
        return count; \
    }
SENDS(send, (int file, const void *data, size_t size, int flags), (file, data, size, flags), data, size)
SENDS(sendmsg, (int file, const struct msghdr *message, int flags), (file, message, flags),
      message->msg_iovlen ? message->msg_iov->iov_base : NULL, message->msg_iovlen ? message->msg_iov->iov_len : 0)
SENDS(write, (int file, const void *data, size_t size), (file, data, size), data, size)
SENDS(writev, (int file, const struct iovec *parts, int length), (file, parts, length), length > 0 ? parts->iov_base : NULL,
      length > 0 ? parts->iov_len : 0)
SENDS(sendto, (int file, const void *data, size_t size, int flags, const struct sockaddr *peer, socklen_t length),
      (file, data, size, flags, peer, length), data, size)
RECEIVES(recv, (int file, void *data, size_t size, int flags), (file, data, size, flags), data, size, flags)
RECEIVES(recvmsg, (int file, struct msghdr *message, int flags), (file, message, flags),
         message->msg_iovlen ? message->msg_iov->iov_base : NULL, message->msg_iovlen ? message->msg_iov->iov_len : 0, flags)
RECEIVES(read, (int file, void *data, size_t size), (file, data, size), data, size, 0)
RECEIVES(readv, (int file, const struct iovec *parts, int length), (file, parts, length), length > 0 ? parts->iov_base : NULL,
         length > 0 ? parts->iov_len : 0, 0)
RECEIVES(recvfrom,
         (int file, void *restrict data, size_t size, int flags, struct sockaddr *restrict peer, socklen_t *restrict length),
         (file, data, size, flags, peer, length), data, size, flags)
