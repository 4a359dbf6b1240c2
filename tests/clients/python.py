"""What an application does with redis-py, or with valkey-py, which has the same interface.

`python.py redis|valkey HOST PORT [2|3]`: the last argument is the RESP version to ask for; without
it the library decides. Prints a line for each feature, and ends with 1 if one of them failed.
"""

import importlib
import os
import sys
import threading
import time

library = importlib.import_module(sys.argv[1])
address = {"host": sys.argv[2], "port": int(sys.argv[3])}
if len(sys.argv) > 4:
    address["protocol"] = int(sys.argv[4])

# For one wait, and for a failover from its traffic to its end.
SOON = 30.0
SWITCHED = 60.0


def connected(**options):
    return library.Redis(**address, **options)


def expect(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {str(got)[:200]!r}, want {str(want)[:200]!r}")


def in_time(deadline, what):
    if time.monotonic() > deadline:
        raise AssertionError(f"not in time: {what}")


def message(subscriber, kind):
    """The next message, which must be of this kind."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        found = subscriber.get_message(timeout=deadline - time.monotonic())
        if found is not None:
            expect("kind of message", found["type"], kind)
            return found
    raise AssertionError(f"no {kind} within {SOON} s")


def when_blocked(client, waiting, wake):
    """What `waiting` returns, which has to wait until `wake` is called."""
    got = []
    waiter = threading.Thread(target=lambda: got.append(waiting()))
    waiter.start()
    try:
        deadline = time.monotonic() + SOON
        while client.info("clients")["blocked_clients"] == 0:
            in_time(deadline, "a blocked client")
    finally:
        wake()
        waiter.join()
    return got[0]


def connect(client):
    expect("ping", client.ping(), True)
    info = client.execute_command("CLIENT INFO")
    # Some versions parse this reply, others do not.
    resp = info["resp"] if isinstance(info, dict) else str(info).split(" resp=")[1][0]
    return f"resp={resp}"


def client_name(client):
    named = connected(client_name="app:1")
    # Text, or with protocol=3 asked for by name bytes.
    expect("name", named.client_getname() in ("app:1", b"app:1"), True)
    named.client_setname("app:2")
    expect("new name", named.client_getname() in ("app:2", b"app:2"), True)
    named.close()
    expect("no name", client.client_getname(), None)


def select(client):
    fifth = connected(db=5)
    client.set("where", "database 0")
    fifth.set("where", "database 5")
    expect("in 0", client.get("where"), b"database 0")
    expect("in 5", fifth.get("where"), b"database 5")
    fifth.select(0)
    expect("in 0 after SELECT", fifth.get("where"), b"database 0")
    fifth.close()


def get_set(client):
    expect("set", client.set("k", "value"), True)
    expect("get", client.get("k"), b"value")
    expect("delete", client.delete("k"), 1)
    expect("get of nothing", client.get("k"), None)


def pipeline(client):
    batch = client.pipeline(transaction=False)
    for i in range(250):
        batch.set(f"p:{i}", i)
        batch.get(f"p:{i}")
    replies = batch.execute()
    want = [reply for i in range(250) for reply in (True, str(i).encode())]
    expect("500 replies", replies, want)


def transaction(client):
    client.delete("n", "l")
    block = client.pipeline()
    block.incr("n").rpush("l", "a", "b").lrange("l", 0, -1).get("n")
    expect("replies", block.execute(), [1, 2, [b"a", b"b"], b"1"])
    block = client.pipeline()
    for i in range(500):
        block.incr("n")
    expect("500 replies in a block", block.execute(), list(range(2, 502)))


def watch_conflict(client):
    other = library.Redis(connection_pool=client.connection_pool)
    client.set("w", "old")
    with client.pipeline() as block:
        block.watch("w")
        expect("watched value", block.get("w"), b"old")
        other.set("w", "other")
        block.multi()
        block.set("w", "mine")
        try:
            raise AssertionError(f"executed: {block.execute()!r}")
        except library.WatchError:
            pass
    expect("value", client.get("w"), b"other")
    with client.pipeline() as block:
        block.watch("w")
        block.multi()
        block.set("w", "mine")
        expect("without a conflict", block.execute(), [True])


def pubsub(client):
    with client.pubsub() as subscriber:
        subscriber.subscribe("c")
        expect("subscribed", message(subscriber, "subscribe")["data"], 1)
        expect("receivers", client.publish("c", "hello"), 1)
        expect("message", message(subscriber, "message")["data"], b"hello")
        subscriber.psubscribe("d*")
        expect("subscribed", message(subscriber, "psubscribe")["data"], 2)
        subscriber.unsubscribe("c")
        expect("unsubscribed", message(subscriber, "unsubscribe")["data"], 1)
        client.publish("c", "too late")
        client.publish("done", "done")
        expect("message", message(subscriber, "pmessage")["data"], b"done")
        subscriber.punsubscribe()
        expect("unsubscribed", message(subscriber, "punsubscribe")["data"], 0)


def blocking_pop(client):
    client.rpush("q", "ready")
    # A tuple, or with protocol=3 asked for by name a list.
    expect("at once", list(client.blpop("q", timeout=4)), [b"q", b"ready"])
    expect("timed out", client.blpop("q", timeout=0.1), None)
    popped = when_blocked(
        client, lambda: client.blpop("q", timeout=4), lambda: client.rpush("q", "woken")
    )
    expect("woken", list(popped), [b"q", b"woken"])


def script(client):
    lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
    ours = client.register_script(lua)
    try:
        raise AssertionError(f"found: {client.evalsha(ours.sha, 1, 's', 'v')!r}")
    except library.exceptions.NoScriptError:
        pass
    expect("loaded when missed", ours(keys=["s"], args=["one"]), b"one")
    expect("by its name", client.evalsha(ours.sha, 1, "s", "two"), b"two")
    client.script_flush()
    expect("loaded after a flush", ours(keys=["s"], args=["three"]), b"three")


def scan(client):
    keys = [f"scan:{i}" for i in range(10_000)]
    for at in range(0, len(keys), 1_000):
        client.mset({key: "v" for key in keys[at : at + 1_000]})
    found = {key.decode() for key in client.scan_iter(match="scan:*", count=500)}
    expect("keys", found, set(keys))


def entries(reply):
    """Names and fields in a reply to XREADGROUP of one stream, whichever form it has."""
    lists = list(reply.values()) if isinstance(reply, dict) else [reply[0][1]]
    # With protocol=3 asked for by name there is one more list around it.
    entries = lists[0][0] if isinstance(lists[0][0], list) else lists[0]
    return [(name, dict(fields)) for name, fields in entries]


def streams(client):
    client.xgroup_create("x", "workers", id="0", mkstream=True)
    names = [client.xadd("x", {"job": i}) for i in range(10)]
    new = {"x": ">"}
    first = entries(client.xreadgroup("workers", "a", new, count=6))
    rest = entries(client.xreadgroup("workers", "b", new))
    got = first + rest
    want = [(name, {b"job": str(i).encode()}) for i, name in enumerate(names)]
    expect("entries", got, want)
    expect("acknowledged", client.xack("x", "workers", *names[:9]), 9)
    pending = client.xpending("x", "workers")
    expect("pending", (pending["pending"], pending["min"]), (1, names[9]))
    again = entries(client.xreadgroup("workers", "b", {"x": "0"}))
    expect("still pending", [name for name, _ in again], [names[9]])
    woken = when_blocked(
        client,
        lambda: client.xreadgroup("workers", "a", new, block=4_000),
        lambda: client.xadd("x", {"job": "late"}),
    )
    expect("woken", [fields for _, fields in entries(woken)], [{b"job": b"late"}])


def big_value(client):
    value = os.urandom(1 << 20) * 32
    client.set("big", value)
    expect("size", client.strlen("big"), len(value))
    if client.get("big") != value:
        raise AssertionError("another value")
    client.delete("big")


def failover(_client):
    """Traffic until `failover:over` is there, which is set when another node is master."""
    with connected() as traffic, connected().pubsub() as subscriber:
        sha = traffic.script_load("return ARGV[1]")
        name = traffic.client_id()
        subscriber.subscribe("failover")
        message(subscriber, "subscribe")
        traffic.publish("failover", "before")
        expect("before", message(subscriber, "message")["data"], b"before")
        count, over, deadline = 0, None, time.monotonic() + SWITCHED
        while over is None:
            in_time(deadline, "a failover")
            batch = traffic.pipeline(transaction=False)
            for _ in range(10):
                batch.incr("failover:count")
            *counted, over = batch.get("failover:over").execute()
            expect("counted", counted, list(range(count + 1, count + 11)))
            block = traffic.pipeline().incr("failover:count").get("failover:count")
            count += 11
            expect("in a block", block.execute(), [count, str(count).encode()])
            traffic.set("failover:token", count)
            expect("own write", traffic.get("failover:token"), str(count).encode())
        expect("script", traffic.evalsha(sha, 0, "kept"), b"kept")
        expect("connection", traffic.client_id(), name)
        while traffic.publish("failover", "after") == 0:
            in_time(deadline, "a subscription on the new master")
        expect("after", message(subscriber, "message")["data"], b"after")


def main():
    client = connected()
    failed = False
    for feature in (
        connect,
        client_name,
        select,
        get_set,
        pipeline,
        transaction,
        watch_conflict,
        pubsub,
        blocking_pop,
        script,
        scan,
        streams,
        big_value,
        failover,
    ):
        try:
            print(f"ok {feature.__name__}", feature(client) or "", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL {feature.__name__}: {type(error).__name__}: {error}", flush=True)
    client.close()
    sys.exit(1 if failed else 0)


main()
