/* The pump again, compiled: the same requests, connections and depth, to see whether the one in
 * Python was the limit. `ottla bench --check-client` compiles and runs it where there is a C
 * compiler (see compiled.py).
 *
 *     pump HOST PORT DEPTH SECONDS ANSWERS_MAX < REQUESTS
 *
 * REQUESTS are whole frames, one for each connection, each after its size as a native int. Prints
 * answers, bytes in, bytes out, seconds, CPU seconds, and p50, p99, p99.9 in seconds. Checks
 * no answer for errors: the same load has been checked from Python. Linux alone (epoll).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 256, DEPTH_MAX = 256, ROOM = 1 << 20 };

struct connection {
    int fd, request_size, unsent, armed;   /* unsent: whole requests not yet sent, the begun one too */
    int sent_of_one;                       /* bytes of the begun one that are sent */
    char *request, *out;                   /* out: DEPTH_MAX copies of a small request, or NULL */
    double sent_at[DEPTH_MAX];
    unsigned head, tail;                   /* of sent_at */
    unsigned skip, fill;                   /* bytes left of an answer; bytes of a size seen so far */
    unsigned char size[4];
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *got(void *memory) {
    if (!memory) fail("memory");
    return memory;
}

static long bytes_in, bytes_out;

/* Send what the socket takes; small requests many at a time. */
static void flush(struct connection *c) {
    while (c->unsent) {
        long left = c->out ? (long)c->unsent * c->request_size - c->sent_of_one
                           : c->request_size - c->sent_of_one;
        char *from = (c->out ? c->out : c->request) + c->sent_of_one;
        ssize_t sent = send(c->fd, from, left, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) return;
            fail("send");
        }
        bytes_out += sent;
        long done = c->sent_of_one + sent;
        c->unsent -= done / c->request_size;
        c->sent_of_one = done % c->request_size;
    }
}

static void push(struct connection *c, int count) {
    double at = now();
    for (int i = 0; i < count; i++) c->sent_at[c->head++ % DEPTH_MAX] = at;
    c->unsent += count;
    flush(c);
}

static double *latencies;
static long answers, answers_room;

static void answered(struct connection *c, double at) {
    if (answers == answers_room) {
        answers_room = answers_room ? answers_room * 2 : 1 << 16;
        latencies = got(realloc(latencies, answers_room * sizeof *latencies));
    }
    latencies[answers++] = at - c->sent_at[c->tail++ % DEPTH_MAX];
}

/* Take what has arrived; how many answers are complete now. */
static int receive(struct connection *c) {
    static unsigned char room[ROOM];
    ssize_t count = recv(c->fd, room, ROOM, 0);
    if (count < 0 && errno == EAGAIN) return 0;
    if (count <= 0) fail("recv");
    bytes_in += count;
    double at = now();
    int done = 0;
    for (ssize_t i = 0; i < count;) {
        if (c->skip) {
            ssize_t step = count - i < c->skip ? count - i : c->skip;
            i += step;
            c->skip -= step;
            if (!c->skip) { answered(c, at); done++; }
            continue;
        }
        c->size[c->fill++] = room[i++];
        if (c->fill == 4) {
            c->skip = (unsigned)c->size[0] << 24 | c->size[1] << 16 | c->size[2] << 8 | c->size[3];
            c->fill = 0;
        }
    }
    return done;
}

static int ascending(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static double quantile(double share) {
    long at = answers * share;
    return latencies[at < answers ? at : answers - 1];
}

int main(int count, char **words) {
    if (count != 6) return 2;
    int depth = atoi(words[3]), poller = epoll_create1(0), connections = 0;
    double seconds = atof(words[4]);
    long answers_max = atol(words[5]);
    struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    if (depth > DEPTH_MAX || inet_pton(AF_INET, words[1], &peer.sin_addr) != 1) return 2;
    static struct connection all[CONNECTIONS_MAX];
    int size;
    while (connections < CONNECTIONS_MAX && fread(&size, sizeof size, 1, stdin) == 1) {
        struct connection *c = &all[connections++];
        c->request_size = size;
        c->request = got(malloc(size));
        if (fread(c->request, size, 1, stdin) != 1) return 2;
        if (size < 65536) {
            c->out = got(malloc((long)size * depth));
            for (int i = 0; i < depth; i++) memcpy(c->out + (long)i * size, c->request, size);
        }
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(c->fd, (struct sockaddr *)&peer, sizeof peer)) fail("connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event);
    }
    double begun = now();
    long waiting = 0;
    for (int i = 0; i < connections; i++) { push(&all[i], depth); waiting += depth; }
    while (waiting) {
        struct epoll_event events[64];
        for (int i = 0; i < connections; i++) {
            struct connection *c = &all[i];
            if ((c->unsent > 0) == c->armed) continue;
            c->armed = c->unsent > 0;
            struct epoll_event event = {.events = EPOLLIN | (c->armed ? EPOLLOUT : 0), .data.ptr = c};
            epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
        }
        int found = epoll_wait(poller, events, 64, 30000);
        if (found == 0) { errno = ETIMEDOUT; fail("no answer"); }
        for (int i = 0; i < found; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) flush(c);
            if (!(events[i].events & ~EPOLLOUT)) continue;
            int done = receive(c);
            waiting -= done;
            if (done && now() < begun + seconds && answers < answers_max) {
                push(c, done);
                waiting += done;
            }
        }
    }
    double took = now() - begun;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    qsort(latencies, answers, sizeof *latencies, ascending);
    printf("%ld %ld %ld %.6f %.6f %.9f %.9f %.9f\n", answers, bytes_in, bytes_out, took,
           used.ru_utime.tv_sec + used.ru_utime.tv_usec / 1e6 + used.ru_stime.tv_sec
               + used.ru_stime.tv_usec / 1e6,
           quantile(0.5), quantile(0.99), quantile(0.999));
    return 0;
}
