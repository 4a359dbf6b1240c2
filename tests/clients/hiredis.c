/* What an application does with hiredis and its defaults: `hiredis HOST PORT`.
 *
 * Prints a line for each feature, and ends with 1 at the first that failed. */

#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

/* Seconds for one reply, and for a failover from its traffic to its end. */
enum { SOON = 30, SWITCHED = 60 };

enum { KEYS = 10000, BIG = 32 << 20 };

static const char *feature, *host;
static int port;

static void fail(const char *what, const char *got) {
    printf("FAIL %s: %s: %.200s\n", feature, what, got);
    exit(1);
}

static redisContext *connected(void) {
    redisContext *c = redisConnect(host, port);
    if (c == NULL || c->err) fail("connect", c ? c->errstr : "no memory");
    redisSetTimeout(c, (struct timeval){SOON, 0});
    return c;
}

/* The reply that is due, which must not be an error. */
static redisReply *due(redisContext *c) {
    void *reply = NULL;
    if (redisGetReply(c, &reply) != REDIS_OK) fail("no reply", c->errstr);
    redisReply *r = reply;
    if (r->type == REDIS_REPLY_ERROR) fail("error", r->str);
    return r;
}

static redisReply *say(redisContext *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    redisvAppendCommand(c, format, args);
    va_end(args);
    return due(c);
}

/* A reply as one line: items in brackets, strings and numbers as they are, nil as a minus. */
static void describe(const redisReply *r, char *to, size_t size) {
    size_t at;
    switch (r->type) {
    case REDIS_REPLY_INTEGER:
        snprintf(to, size, "%lld", r->integer);
        break;
    case REDIS_REPLY_NIL:
        snprintf(to, size, "-");
        break;
    case REDIS_REPLY_ARRAY:
        at = (size_t)snprintf(to, size, "[");
        for (size_t i = 0; i < r->elements && at + 1 < size; i++) {
            if (i > 0) at += (size_t)snprintf(to + at, size - at, " ");
            describe(r->element[i], to + at, size - at);
            at += strlen(to + at);
        }
        snprintf(to + at, size - at, "]");
        break;
    default:
        snprintf(to, size, "%s", r->str);
    }
}

/* Frees `r`, which must read like this. */
static void expect(redisReply *r, const char *format, ...) {
    char want[512], got[512];
    va_list args;
    va_start(args, format);
    vsnprintf(want, sizeof want, format, args);
    va_end(args);
    describe(r, got, sizeof got);
    if (strcmp(got, want) != 0) {
        char both[1200];
        snprintf(both, sizeof both, "got %s, want %s", got, want);
        fail("reply", both);
    }
    freeReplyObject(r);
}

/* Sends what `c` has been given to say. */
static void flush(redisContext *c) {
    for (int done = 0; !done;)
        if (redisBufferWrite(c, &done) != REDIS_OK) fail("write", c->errstr);
}

static void wait_until_blocked(redisContext *c) {
    for (time_t deadline = time(NULL) + SOON; time(NULL) < deadline;) {
        redisReply *info = say(c, "INFO clients");
        int blocked = strstr(info->str, "blocked_clients:0\r") == NULL;
        freeReplyObject(info);
        if (blocked) return;
    }
    fail("nobody blocked", "in time");
}

static redisContext *client, *other;

static void connecting(void) {
    client = connected();
    other = connected();
    expect(say(client, "PING"), "PONG");
    redisReply *info = say(client, "CLIENT INFO");
    const char *resp = strstr(info->str, "resp=");
    printf("ok connect %.6s\n", resp ? resp : "");
    freeReplyObject(info);
}

static void client_name(void) {
    expect(say(other, "CLIENT GETNAME"), "-");
    expect(say(other, "CLIENT SETNAME app:1"), "OK");
    expect(say(other, "CLIENT GETNAME"), "app:1");
    expect(say(client, "CLIENT GETNAME"), "-");
}

static void select_database(void) {
    expect(say(other, "SELECT 5"), "OK");
    expect(say(client, "SET where %s", "database 0"), "OK");
    expect(say(other, "SET where %s", "database 5"), "OK");
    expect(say(client, "GET where"), "database 0");
    expect(say(other, "GET where"), "database 5");
    expect(say(other, "SELECT 0"), "OK");
    expect(say(other, "GET where"), "database 0");
}

static void get_set(void) {
    expect(say(client, "SET k value"), "OK");
    expect(say(client, "GET k"), "value");
    expect(say(client, "DEL k"), "1");
    expect(say(client, "GET k"), "-");
}

static void pipeline(void) {
    for (int i = 0; i < 250; i++) {
        redisAppendCommand(client, "SET p:%d %d", i, i);
        redisAppendCommand(client, "GET p:%d", i);
    }
    for (int i = 0; i < 250; i++) {
        expect(due(client), "OK");
        expect(due(client), "%d", i);
    }
}

static void transaction(void) {
    expect(say(client, "MULTI"), "OK");
    expect(say(client, "INCR n"), "QUEUED");
    expect(say(client, "RPUSH l a b"), "QUEUED");
    expect(say(client, "LRANGE l 0 -1"), "QUEUED");
    expect(say(client, "EXEC"), "[1 2 [a b]]");
}

static void watch_conflict(void) {
    expect(say(client, "SET w old"), "OK");
    for (int conflict = 1; conflict >= 0; conflict--) {
        expect(say(client, "WATCH w"), "OK");
        if (conflict) expect(say(other, "SET w other"), "OK");
        expect(say(client, "MULTI"), "OK");
        expect(say(client, "SET w mine"), "QUEUED");
        expect(say(client, "EXEC"), conflict ? "-" : "[OK]");
        expect(say(other, "GET w"), conflict ? "other" : "mine");
    }
}

static void pubsub(void) {
    redisContext *subscriber = connected();
    expect(say(subscriber, "SUBSCRIBE c"), "[subscribe c 1]");
    expect(say(client, "PUBLISH c hello"), "1");
    expect(due(subscriber), "[message c hello]");
    expect(say(subscriber, "PSUBSCRIBE d*"), "[psubscribe d* 2]");
    expect(say(subscriber, "UNSUBSCRIBE c"), "[unsubscribe c 1]");
    expect(say(client, "PUBLISH c late"), "0");
    expect(say(client, "PUBLISH done done"), "1");
    expect(due(subscriber), "[pmessage d* done done]");
    expect(say(subscriber, "PUNSUBSCRIBE d*"), "[punsubscribe d* 0]");
    expect(say(subscriber, "GET w"), "mine");
    redisFree(subscriber);
}

static void blocking_pop(void) {
    expect(say(client, "RPUSH q ready"), "1");
    expect(say(other, "BLPOP q 4"), "[q ready]");
    expect(say(other, "BLPOP q 0.1"), "-");
    redisAppendCommand(other, "BLPOP q 4");
    flush(other);
    wait_until_blocked(client);
    expect(say(client, "RPUSH q woken"), "1");
    expect(due(other), "[q woken]");
}

/* Runs the script by its name, and by its text if the server does not know it. */
static void store(const char *value, int known) {
    static const char lua[] =
        "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
    static const char sha[] = "2b20e84ba26251fc86a627f03be6dd614b31bac8";
    redisReply *r = redisCommand(client, "EVALSHA %s 1 s %s", sha, value);
    if (r == NULL) fail("no reply", client->errstr);
    int missed = r->type == REDIS_REPLY_ERROR && strncmp(r->str, "NOSCRIPT", 8) == 0;
    if (missed == known) fail(known ? "not known" : "known", value);
    if (missed) {
        freeReplyObject(r);
        r = say(client, "EVAL %s 1 s %s", lua, value);
    }
    expect(r, "%s", value);
}

static void script(void) {
    store("one", 0);
    store("two", 1);
    expect(say(client, "SCRIPT FLUSH"), "OK");
    store("three", 0);
}

static void scan(void) {
    static unsigned char seen[KEYS];
    char cursor[32] = "0";
    int found = 0;
    for (int i = 0; i < KEYS; i++) redisAppendCommand(client, "SET scan:%d v", i);
    for (int i = 0; i < KEYS; i++) expect(due(client), "OK");
    do {
        redisReply *r = say(client, "SCAN %s MATCH scan:* COUNT 500", cursor);
        snprintf(cursor, sizeof cursor, "%s", r->element[0]->str);
        for (size_t i = 0; i < r->element[1]->elements; i++) {
            int key = atoi(r->element[1]->element[i]->str + strlen("scan:"));
            if (key < 0 || key >= KEYS) fail("stranger", r->element[1]->element[i]->str);
            found += !seen[key];
            seen[key] = 1;
        }
        freeReplyObject(r);
    } while (strcmp(cursor, "0") != 0);
    if (found != KEYS) fail("keys", "some are missing");
}

static void streams(void) {
    char names[11][64];
    expect(say(client, "XGROUP CREATE x workers 0 MKSTREAM"), "OK");
    for (int i = 0; i < 10; i++) {
        redisReply *r = say(client, "XADD x * job %d", i);
        snprintf(names[i], sizeof names[i], "%s", r->str);
        freeReplyObject(r);
    }
    expect(say(client, "XREADGROUP GROUP workers a COUNT 2 STREAMS x >"),
           "[[x [[%s [job 0]] [%s [job 1]]]]]", names[0], names[1]);
    redisReply *rest = say(client, "XREADGROUP GROUP workers b STREAMS x >");
    if (rest->element[0]->element[1]->elements != 8) fail("entries", "not the rest");
    freeReplyObject(rest);
    for (int i = 0; i < 9; i++) expect(say(client, "XACK x workers %s", names[i]), "1");
    expect(say(client, "XPENDING x workers"), "[1 %s %s [[b 1]]]", names[9], names[9]);
    expect(say(client, "XREADGROUP GROUP workers b STREAMS x 0"), "[[x [[%s [job 9]]]]]", names[9]);
    redisAppendCommand(other, "XREADGROUP GROUP workers a BLOCK 4000 STREAMS x >");
    flush(other);
    wait_until_blocked(client);
    redisReply *late = say(client, "XADD x * job late");
    expect(due(other), "[[x [[%s [job late]]]]]", late->str);
    freeReplyObject(late);
}

static void big_value(void) {
    char *value = malloc(BIG);
    unsigned int dice = 1;
    if (value == NULL) fail("no memory", "for a big value");
    for (size_t i = 0; i < BIG; i++) {
        dice = dice * 1103515245 + 12345;
        value[i] = (char)(dice >> 16);
    }
    expect(say(client, "SET big %b", value, (size_t)BIG), "OK");
    expect(say(client, "STRLEN big"), "%d", (int)BIG);
    redisReply *r = say(client, "GET big");
    if (r->len != BIG || memcmp(r->str, value, BIG) != 0) fail("another value", "came back");
    freeReplyObject(r);
    expect(say(client, "DEL big"), "1");
    free(value);
}

/* Traffic until `failover:over` is there, which is set when another node is master. */
static void failover(void) {
    time_t deadline = time(NULL) + SWITCHED;
    redisContext *subscriber = connected();
    redisReply *sha = say(client, "SCRIPT LOAD %s", "return ARGV[1]");
    redisReply *id = say(client, "CLIENT ID");
    expect(say(subscriber, "SUBSCRIBE failover"), "[subscribe failover 1]");
    expect(say(client, "PUBLISH failover before"), "1");
    expect(due(subscriber), "[message failover before]");
    for (int over = 0, last = 0; !over; last += 11) {
        if (time(NULL) > deadline) fail("no failover", "in time");
        for (int i = 0; i < 10; i++) redisAppendCommand(client, "INCR failover:count");
        redisAppendCommand(client, "GET failover:over");
        for (int i = 1; i <= 10; i++) expect(due(client), "%d", last + i);
        redisReply *r = due(client);
        over = r->type != REDIS_REPLY_NIL;
        freeReplyObject(r);
        expect(say(client, "MULTI"), "OK");
        expect(say(client, "INCR failover:count"), "QUEUED");
        expect(say(client, "GET failover:count"), "QUEUED");
        expect(say(client, "EXEC"), "[%d %d]", last + 11, last + 11);
        expect(say(client, "SET failover:token %d", last), "OK");
        expect(say(client, "GET failover:token"), "%d", last);
    }
    expect(say(client, "EVALSHA %s 0 kept", sha->str), "kept");
    expect(say(client, "CLIENT ID"), "%lld", id->integer);
    for (int heard = 0; !heard;) {
        if (time(NULL) > deadline) fail("no subscription", "on the new master");
        redisReply *r = say(client, "PUBLISH failover after");
        heard = r->integer == 1;
        freeReplyObject(r);
    }
    expect(due(subscriber), "[message failover after]");
    redisFree(subscriber);
}

int main(int count, char **args) {
    static const struct {
        const char *name;
        void (*run)(void);
    } features[] = {
        {"client_name", client_name}, {"select", select_database},
        {"get_set", get_set},         {"pipeline", pipeline},
        {"transaction", transaction}, {"watch_conflict", watch_conflict},
        {"pubsub", pubsub},           {"blocking_pop", blocking_pop},
        {"script", script},           {"scan", scan},
        {"streams", streams},         {"big_value", big_value},
        {"failover", failover},
    };
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count < 3) return 64;
    host = args[1];
    port = atoi(args[2]);
    feature = "connect";
    connecting();
    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        feature = features[i].name;
        features[i].run();
        printf("ok %s\n", feature);
    }
    redisFree(client);
    redisFree(other);
    return 0;
}
