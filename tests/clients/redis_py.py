"""What an application does with redis-py and its defaults: `redis_py.py HOST PORT [2|3]`.

The third argument is the RESP version to ask for; without it redis-py decides. Prints a line for
each feature, and ends with 1 if one of them failed.
"""

import sys
import threading
import time

import redis

SOON = 5.0


def expect(what, got, want):
    if got != want:
        raise AssertionError(f"{what}: got {got!r}, want {want!r}")


def message(subscriber, kind):
    """The next message, which must be of this kind."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        found = subscriber.get_message(timeout=deadline - time.monotonic())
        if found is not None:
            expect("kind of message", found["type"], kind)
            return found
    raise AssertionError(f"no {kind} within {SOON} s")


def wait_until_blocked(client):
    deadline = time.monotonic() + SOON
    while client.info("clients")["blocked_clients"] == 0:
        if time.monotonic() > deadline:
            raise AssertionError(f"nobody blocked within {SOON} s")


def connect(client):
    expect("ping", client.ping(), True)


def get_set(client):
    expect("set", client.set("py:k", "value"), True)
    expect("get", client.get("py:k"), b"value")
    expect("delete", client.delete("py:k"), 1)
    expect("get of nothing", client.get("py:k"), None)


def pipeline(client):
    batch = client.pipeline(transaction=False)
    for i in range(250):
        batch.set(f"py:p:{i}", i)
        batch.get(f"py:p:{i}")
    replies = batch.execute()
    want = [reply for i in range(250) for reply in (True, str(i).encode())]
    expect("500 replies", replies, want)


def transaction(client):
    client.delete("py:n", "py:l")
    block = client.pipeline()
    block.incr("py:n").rpush("py:l", "a", "b").lrange("py:l", 0, -1).get("py:n")
    expect("replies", block.execute(), [1, 2, [b"a", b"b"], b"1"])
    block = client.pipeline()
    for i in range(500):
        block.incr("py:n")
    expect("500 replies in a block", block.execute(), list(range(2, 502)))


def watch_conflict(client):
    other = redis.Redis(connection_pool=client.connection_pool)
    client.set("py:w", "old")
    with client.pipeline() as block:
        block.watch("py:w")
        expect("watched value", block.get("py:w"), b"old")
        other.set("py:w", "other")
        block.multi()
        block.set("py:w", "mine")
        try:
            raise AssertionError(f"executed: {block.execute()!r}")
        except redis.WatchError:
            pass
    expect("value", client.get("py:w"), b"other")
    with client.pipeline() as block:
        block.watch("py:w")
        block.multi()
        block.set("py:w", "mine")
        expect("without a conflict", block.execute(), [True])


def pubsub(client):
    with client.pubsub() as subscriber:
        subscriber.subscribe("py:c")
        expect("subscribed", message(subscriber, "subscribe")["data"], 1)
        expect("receivers", client.publish("py:c", "hello"), 1)
        expect("message", message(subscriber, "message")["data"], b"hello")
        subscriber.psubscribe("py:d*")
        expect("subscribed", message(subscriber, "psubscribe")["data"], 2)
        subscriber.unsubscribe("py:c")
        expect("unsubscribed", message(subscriber, "unsubscribe")["data"], 1)
        client.publish("py:c", "too late")
        client.publish("py:done", "done")
        expect("message", message(subscriber, "pmessage")["data"], b"done")
        subscriber.punsubscribe()
        expect("unsubscribed", message(subscriber, "punsubscribe")["data"], 0)


def blpop(client):
    client.delete("py:q")
    client.rpush("py:q", "ready")
    # A tuple, or with protocol=3 asked for by name a list.
    expect("at once", list(client.blpop("py:q", timeout=4)), [b"py:q", b"ready"])
    expect("timed out", client.blpop("py:q", timeout=0.1), None)

    popped = []
    waiter = threading.Thread(target=lambda: popped.append(client.blpop("py:q", timeout=4)))
    waiter.start()
    try:
        wait_until_blocked(client)
    finally:
        client.rpush("py:q", "woken")
        waiter.join()
    expect("woken", [list(reply) for reply in popped], [[b"py:q", b"woken"]])


def main():
    options = {"protocol": int(sys.argv[3])} if len(sys.argv) > 3 else {}
    client = redis.Redis(host=sys.argv[1], port=int(sys.argv[2]), **options)
    failed = False
    for feature in (connect, get_set, pipeline, transaction, watch_conflict, pubsub, blpop):
        try:
            feature(client)
            print(f"ok {feature.__name__}", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL {feature.__name__}: {type(error).__name__}: {error}", flush=True)
    client.close()
    sys.exit(1 if failed else 0)


main()
