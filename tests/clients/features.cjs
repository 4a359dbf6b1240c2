// What the JavaScript clients' scripts share: running features, and saying how they went.

'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');

// For one feature, and for a failover from its traffic to its end.
const SOON = 30_000;
const SWITCHED = 60_000;

/** The promise's value, or an error if it takes longer than `limit`. */
function within(limit, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${limit} ms`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until a client is blocked at the server, which `info` describes. */
async function waitUntilBlocked(info) {
  const deadline = Date.now() + SOON;
  while (/blocked_clients:0\r/.test(await info())) {
    assert.ok(Date.now() < deadline, `nobody blocked within ${SOON} ms`);
  }
}

/** Messages in the order of their arrival, for whoever asks next. */
class Inbox {
  #arrived = [];
  #asked = [];

  put(message) {
    const ask = this.#asked.shift();
    ask ? ask(message) : this.#arrived.push(message);
  }

  next() {
    const arrived = this.#arrived.shift();
    const message = arrived ?? new Promise((resolve) => this.#asked.push(resolve));
    return within(SOON, Promise.resolve(message), 'message');
  }
}

/**
 * Traffic of one connection until `failover:over` is there, which is set when another node is
 * master. `count` adds ten times one to `failover:count`, in one go with a look at the other key;
 * `block` adds one more in a transaction, and reads it there.
 */
async function failover({ id, count, block, client, publish, inbox, script }) {
  const name = await id();
  assert.equal(await publish('before'), 1);
  assert.equal(await inbox.next(), 'before');
  for (let last = 0, over = null; over === null; last += 11) {
    const replies = await count();
    over = replies.pop();
    assert.deepEqual(replies, Array.from({ length: 10 }, (_, i) => last + 1 + i));
    assert.deepEqual(await block(), [last + 11, `${last + 11}`]);
    await client.set('failover:token', `${last}`);
    assert.equal(await client.get('failover:token'), `${last}`);
  }
  assert.equal(await script('kept'), 'kept');
  assert.equal(await id(), name);
  while ((await publish('after')) === 0);
  assert.equal(await inbox.next(), 'after');
}

/** Runs the features in order, prints a line for each, and ends the process. */
async function run(features) {
  let failed = false;
  for (const [name, feature] of Object.entries(features)) {
    try {
      const more = await within(name === 'failover' ? SWITCHED : SOON, feature(), 'end');
      console.log(`ok ${name} ${more ?? ''}`);
    } catch (error) {
      failed = true;
      console.log(`FAIL ${name}: ${String(error.stack ?? error).replaceAll('\n', ' | ')}`);
    }
  }
  process.exit(failed ? 1 : 0);
}

/** 32 MiB that no compression and no mistake in a place would leave as they are. */
const bigValue = () => Buffer.concat(Array(32).fill(randomBytes(1 << 20)));

const LUA = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";

module.exports = { Inbox, LUA, bigValue, failover, run, waitUntilBlocked };
