/* Whether what a connection has received completes the answer to its request. Its first bytes need not: the head of an answer may
 * come before its body, and a server of TLS 1.3 sends tickets before it answers.
 */
#include "one_clock.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CHANGE_CIPHER_SPEC = 20, HANDSHAKE = 22, APPLICATION_DATA = 23, RECORD_HEADER = 5 };
/* How far TLS is. In TLS 1.3, the server's part of the handshake is encrypted, and its tickets come when the client's has ended. */
enum { NO_HANDSHAKE, HELLO, HELLO_OF_TLS13, TICKETS };
/* Bytes of an HTTP answer that are still to come, if their number is not known. */
enum { UNKNOWN = 0, UNTIL_LAST_CHUNK = -1, UNTIL_CLOSE = -2, ANOTHER_HEAD = -3 };
#define LAST_CHUNK "0\r\n\r\n"
#define TAIL (sizeof LAST_CHUNK - 1)
#define LONGEST_BODY (1L << 40)

struct answer {
    int64_t rest;
    int32_t record_rest, ticket; /* lengths: what is left of a TLS record, and a ticket's */
    char handshake, is_to_head, header_size, tail[TAIL];
    unsigned char header[RECORD_HEADER];
};
static struct answer answers[FILES];

static int next_of(int handshake, const char *sent, size_t size) {
    if (size > 1 && sent[0] == HANDSHAKE && sent[1] == 3) return HELLO;
    if (size && handshake == HELLO_OF_TLS13 && (*sent == CHANGE_CIPHER_SPEC || *sent == APPLICATION_DATA)) return TICKETS;
    return size && handshake == HELLO && *sent != APPLICATION_DATA ? HELLO : handshake == TICKETS ? TICKETS : NO_HANDSHAKE;
}

void begin_answer(int file, const char *request, size_t size) {
    struct answer *answer = &answers[file];
    answer->rest = UNKNOWN;
    answer->is_to_head = size >= 5 && !memcmp(request, "HEAD ", 5);
    answer->handshake = next_of(answer->handshake, request, size);
}

void forget_answer(int file) { answers[file] = (struct answer){0}; }

/* Tickets are the first records after the handshake. All that a server sends have the same length. */
static void begin_record(struct answer *answer, int type, int length) {
    answer->record_rest = length;
    if (answer->handshake == HELLO && type == APPLICATION_DATA) answer->handshake = HELLO_OF_TLS13;
    if (answer->handshake != TICKETS) return;
    if (type != APPLICATION_DATA || (answer->ticket && answer->ticket != length)) answer->handshake = NO_HANDSHAKE;
    answer->ticket = length;
}

/* Return whether the data is nothing but tickets. */
static int are_tickets(struct answer *answer, const char *data, size_t size) {
    while (answer->handshake && size) {
        size_t part = size < (size_t)answer->record_rest ? size : (size_t)answer->record_rest;
        answer->record_rest -= part;
        for (data += part, size -= part; size && answer->header_size < RECORD_HEADER; size--)
            answer->header[(int)answer->header_size++] = *data++;
        if (answer->header_size < RECORD_HEADER) break;
        answer->header_size = 0;
        begin_record(answer, answer->header[0], answer->header[3] << 8 | answer->header[4]);
    }
    return answer->handshake == TICKETS;
}

/* Return what follows the name of a header in the head of an HTTP answer, or NULL. The head ends with an empty line. */
static const char *header_of(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = head; line < end; line = (const char *)memchr(line, '\n', end + 2 - line) + 1)
        if (line + length < end && !strncasecmp(line, name, length)) return line + length;
    return NULL;
}

static void read_head(struct answer *answer, const char *head, const char *end) {
    const char *length = header_of(head, end, "content-length:"), *status = head + sizeof "HTTP/1.1";
    int has_no_body = answer->is_to_head || !memcmp(status, "204", 3) || !memcmp(status, "304", 3);
    long body = length ? strtol(length, NULL, 10) : 0;
    if (!memcmp(status, "101", 3) || body < 0 || body > LONGEST_BODY) return; /* another protocol follows, or nonsense */
    if (*status == '1') answer->rest = ANOTHER_HEAD;
    else if (has_no_body) answer->rest = end + 4 - head;
    else if (length) answer->rest = end + 4 - head + body;
    else answer->rest = header_of(head, end, "transfer-encoding:") ? UNTIL_LAST_CHUNK : UNTIL_CLOSE;
}

static void keep_tail(struct answer *answer, const char *data, size_t size) {
    size_t added = size < TAIL ? size : TAIL;
    memmove(answer->tail, answer->tail + added, TAIL - added);
    memcpy(answer->tail + TAIL - added, data + size - added, added);
}

enum progress progress_of(int file, const char *data, size_t size) {
    struct answer *answer = &answers[file];
    if (are_tickets(answer, data, size)) return MORE_COMES;
    if ((answer->rest == UNKNOWN || answer->rest == ANOTHER_HEAD) && size > sizeof "HTTP/1.1 200" && !memcmp(data, "HTTP/1.", 7)) {
        const char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end) read_head(answer, data, end);
    }
    keep_tail(answer, data, size);
    if (answer->rest == UNTIL_CLOSE || answer->rest == ANOTHER_HEAD) return MORE_COMES;
    if (answer->rest == UNTIL_LAST_CHUNK) return memcmp(answer->tail, LAST_CHUNK, TAIL) ? MORE_COMES : COMPLETE;
    if (answer->rest > 0) {
        answer->rest = answer->rest > (int64_t)size ? answer->rest - (int64_t)size : UNKNOWN;
        return answer->rest ? MORE_COMES : COMPLETE;
    }
    /* PostgreSQL is ready for the next query. */
    return size > 5 && !memcmp(data + size - 6, "Z\0\0\0\5", 5) ? COMPLETE : MORE_MAY_COME;
}
