/* A server that only counts bytes: the other end of benchmarks/upload.py.
 *
 * One port, three protocols, told apart by the first bytes of a connection:
 *   "PRI "  HTTP/2: one gRPC upload stream at a time; counts the content of its parts, answers each
 *           with the bytes that are missing, and the last one with the final status; a config
 *           with a version id goes on counting where the stream before ended
 *   "PUT "  HTTP/1.1: counts the body, answers 200
 *   else    plain TCP: counts until the peer shuts down, answers with the count (8 bytes)
 *
 * counting_server [CERTIFICATE KEY]: with them, every connection is TLS (when built with -DTLS, which
 * needs OpenSSL). Only loopback, only what the benchmark sends: no HPACK decoding, no CONTINUATION.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef TLS
#include <openssl/ssl.h>
#endif

enum { BUFFER = 1 << 18, WINDOW_STEP = 1 << 26, HEAD = 256 };

struct stream {
    uint32_t id;
    uint64_t total, received;
    uint32_t unacknowledged; /* of flow control */
    /* the gRPC message that is being read */
    uint8_t prefix[5], head[HEAD];
    uint32_t prefix_have, head_have, length, have;
    int headers_sent, done;
};

struct connection {
    int fd;
#ifdef TLS
    SSL *tls; /* NULL: none */
#endif
    uint8_t buffer[BUFFER];
    size_t start, end;
    uint32_t unacknowledged;
    struct stream stream;
    uint64_t before; /* content that earlier streams of the version brought */
};

static ssize_t sent_of(struct connection *c, const void *data, size_t size) {
#ifdef TLS
    if (c->tls) return SSL_write(c->tls, data, (int)size);
#endif
    return send(c->fd, data, size, MSG_NOSIGNAL);
}

static ssize_t received(struct connection *c) {
#ifdef TLS
    /* A record at a time: OpenSSL hands out no more. */
    if (c->tls) return SSL_read(c->tls, c->buffer, BUFFER);
#endif
    return recv(c->fd, c->buffer, BUFFER, 0);
}

static int send_all(struct connection *c, const void *data, size_t size) {
    const char *at = data;
    while (size) {
        ssize_t sent = sent_of(c, at, size);
        if (sent <= 0) return -1;
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

/* At least one unread byte in the buffer; 0 at the end of the connection. */
static size_t fill(struct connection *c) {
    if (c->start < c->end) return c->end - c->start;
    ssize_t got = received(c);
    if (got <= 0) return 0;
    c->start = 0;
    c->end = (size_t)got;
    return c->end;
}

static int take(struct connection *c, void *to, size_t size) {
    uint8_t *at = to;
    while (size) {
        size_t there = fill(c);
        if (!there) return -1;
        if (there > size) there = size;
        if (at) {
            memcpy(at, c->buffer + c->start, there);
            at += there;
        }
        c->start += there;
        size -= there;
    }
    return 0;
}

static int frame(struct connection *c, uint8_t type, uint8_t flags, uint32_t id, const void *body,
                 uint32_t size) {
    uint8_t out[9 + 512] = {size >> 16, size >> 8, size,    type,   flags,
                            id >> 24,   id >> 16,  id >> 8, id};
    memcpy(out + 9, body, size);
    return send_all(c, out, 9 + size);
}

static int window_update(struct connection *c, uint32_t id, uint32_t by) {
    uint8_t body[4] = {by >> 24, by >> 16, by >> 8, by};
    return frame(c, 8, 0, id, body, 4);
}

static uint64_t varint(const uint8_t **at, const uint8_t *end) {
    uint64_t value = 0;
    for (int shift = 0; *at < end; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) break;
    }
    return value;
}

static size_t put_varint(uint8_t *to, uint64_t value) {
    size_t size = 0;
    for (; value > 0x7f; value >>= 7) to[size++] = (uint8_t)(value | 0x80);
    to[size++] = (uint8_t)value;
    return size;
}

/* The fields that matter of PostModelVersionsUploadRequest: total_size, or the size of the data. */
static void message(struct stream *s, uint64_t before) {
    const uint8_t *at = s->head, *end = s->head + s->head_have;
    uint64_t tag = varint(&at, end);
    varint(&at, end);
    int config = tag >> 3 == 1;
    while (at < end) {
        tag = varint(&at, end);
        uint64_t value = varint(&at, end);
        if (config && tag >> 3 == 4) s->total = value;
        if (config && tag >> 3 == 3 && value && *at == 0x0a) s->received = before;
        if (!config && tag >> 3 == 3) {
            s->received += value;
            return;
        }
        if ((tag & 7) == 2) at += value;
    }
}

static int trailers(struct connection *c) {
    static const uint8_t ok[] = "\x00\x0bgrpc-status\x01" "0";
    c->stream.done = 1;
    return frame(c, 1, 5, c->stream.id, ok, sizeof ok - 1);
}

static int answer(struct connection *c) {
    struct stream *s = &c->stream;
    static const uint8_t headers[] = "\x88\x0f\x10\x10" "application/grpc";
    if (!s->headers_sent && frame(c, 1, 4, s->id, headers, sizeof headers - 1)) return -1;
    s->headers_sent = 1;
    uint64_t missing = s->total > s->received ? s->total - s->received : 0;
    uint8_t body[64], status[16];
    size_t size = 0, inner = 0;
    status[inner++] = 8;
    inner += put_varint(status + inner, missing ? 68000 : 21107);
    body[size++] = 0x0a;
    body[size++] = (uint8_t)inner;
    memcpy(body + size, status, inner);
    size += inner;
    if (missing) {
        body[size++] = 0x10;
        size += put_varint(body + size, missing);
    }
    memcpy(body + size, "\x1a\x01v", 3);
    size += 3;
    uint8_t out[69] = {0, 0, 0, 0, (uint8_t)size};
    memcpy(out + 5, body, size);
    if (frame(c, 0, 0, s->id, out, (uint32_t)size + 5)) return -1;
    return missing ? 0 : trailers(c);
}

static int data(struct connection *c, uint32_t id, uint32_t size) {
    struct stream *s = &c->stream;
    c->unacknowledged += size;
    if (c->unacknowledged >= WINDOW_STEP) {
        if (window_update(c, 0, c->unacknowledged)) return -1;
        c->unacknowledged = 0;
    }
    if (id != s->id || s->done) return take(c, NULL, size);
    s->unacknowledged += size;
    if (s->unacknowledged >= WINDOW_STEP) {
        if (window_update(c, id, s->unacknowledged)) return -1;
        s->unacknowledged = 0;
    }
    while (size) {
        if (s->prefix_have < 5) {
            if (take(c, s->prefix + s->prefix_have, 1)) return -1;
            s->prefix_have++;
            size--;
            if (s->prefix_have == 5) {
                const uint8_t *p = s->prefix;
                s->length = (uint32_t)p[1] << 24 | p[2] << 16 | p[3] << 8 | p[4];
                s->head_have = s->have = 0;
            }
            continue;
        }
        uint32_t part = s->length - s->have;
        if (part > size) part = size;
        uint32_t head = HEAD - s->head_have;
        if (head > part) head = part;
        if (head && take(c, s->head + s->head_have, head)) return -1;
        s->head_have += head;
        if (take(c, NULL, part - head)) return -1;
        s->have += part;
        size -= part;
        if (s->have == s->length) {
            s->prefix_have = 0;
            message(s, c->before);
            c->before = s->received;
            if (answer(c)) return -1;
        }
    }
    return 0;
}

static void http2(struct connection *c) {
    /* INITIAL_WINDOW_SIZE 2^31-1, MAX_FRAME_SIZE 2^24-1 */
    static const uint8_t settings[] = {0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 5, 0, 0xff, 0xff, 0xff};
    if (take(c, NULL, 24) || frame(c, 4, 0, 0, settings, sizeof settings) ||
        window_update(c, 0, 0x7fffffff - 65535))
        return;
    uint8_t h[9];
    while (!take(c, h, 9)) {
        uint32_t size = h[0] << 16 | h[1] << 8 | h[2];
        uint32_t id = (uint32_t)(h[5] & 0x7f) << 24 | h[6] << 16 | h[7] << 8 | h[8];
        if (h[3] == 0) {
            if (data(c, id, size)) return;
            if (h[4] & 1 && id == c->stream.id && !c->stream.done && trailers(c)) return;
            continue;
        }
        if (h[3] == 6 && !(h[4] & 1)) {
            uint8_t ping[8];
            if (take(c, ping, 8) || frame(c, 6, 1, 0, ping, 8)) return;
            continue;
        }
        if (take(c, NULL, size)) return;
        if (h[3] == 1) {
            memset(&c->stream, 0, sizeof c->stream);
            c->stream.id = id;
        }
        if (h[3] == 4 && !(h[4] & 1) && frame(c, 4, 1, 0, NULL, 0)) return;
    }
}

static void http1(struct connection *c) {
    char line[8192];
    size_t have = 0;
    while (!(have >= 4 && !memcmp(line + have - 4, "\r\n\r\n", 4))) {
        if (have == sizeof line - 1 || take(c, line + have, 1)) return;
        have++;
    }
    line[have] = 0;
    char *length = strcasestr(line, "content-length:");
    if (!length || take(c, NULL, strtoull(length + 15, NULL, 10))) return;
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    send_all(c, ok, sizeof ok - 1);
}

static void plain(struct connection *c) {
    uint64_t count = 0;
    size_t there;
    while ((there = fill(c))) {
        count += there;
        c->start = c->end;
    }
    send_all(c, &count, sizeof count);
}

static void *serve(void *argument) {
    struct connection *c = argument;
    int on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef TLS
    if (c->tls && (SSL_set_fd(c->tls, c->fd) != 1 || SSL_accept(c->tls) != 1)) goto end;
#endif
    if (fill(c) >= 4) {
        if (!memcmp(c->buffer, "PRI ", 4)) http2(c);
        else if (!memcmp(c->buffer, "PUT ", 4)) http1(c);
        else plain(c);
    }
#ifdef TLS
end:
    SSL_free(c->tls);
#endif
    close(c->fd);
    free(c);
    return NULL;
}

#ifdef TLS
/* HTTP/2 where the client offers it. */
static int choose(SSL *tls, const unsigned char **out, unsigned char *size, const unsigned char *in,
                  unsigned int in_size, void *argument) {
    static const unsigned char known[] = "\x02h2\x08http/1.1";
    (void)tls, (void)argument;
    return SSL_select_next_proto((unsigned char **)out, size, known, sizeof known - 1, in, in_size) ==
                   OPENSSL_NPN_NEGOTIATED
               ? SSL_TLSEXT_ERR_OK
               : SSL_TLSEXT_ERR_NOACK;
}

static SSL_CTX *context_of(char **files) {
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, files[0]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, files[1], SSL_FILETYPE_PEM) != 1) {
        fprintf(stderr, "counting_server: cannot use the certificate\n");
        exit(1);
    }
    SSL_CTX_set_alpn_select_cb(context, choose, NULL);
    return context;
}
#endif

int main(int argc, char **argv) {
    signal(SIGPIPE, SIG_IGN);
#ifdef TLS
    SSL_CTX *context = argc > 2 ? context_of(argv + 1) : NULL;
#else
    (void)argc, (void)argv;
#endif
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&address, &size)) {
        perror("counting_server");
        return 1;
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        struct connection *c = calloc(1, sizeof *c);
        c->fd = fd;
#ifdef TLS
        c->tls = context ? SSL_new(context) : NULL;
#endif
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, c)) return 1;
        pthread_detach(thread);
    }
}
