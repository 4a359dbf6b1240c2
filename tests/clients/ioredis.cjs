// What an application does with ioredis and its defaults: `ioredis.cjs HOST PORT`.

'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { Inbox, run, waitUntilBlocked } = require('./features.cjs');

const [host, port] = process.argv.slice(2);

function connected() {
  const client = new Redis(Number(port), host);
  client.on('error', (error) => console.log(`error event: ${error}`));
  return client;
}

const client = connected();
const other = connected();

run({
  async connect() {
    assert.equal(await client.ping(), 'PONG');
    assert.equal(await other.ping(), 'PONG');
  },

  async get_set() {
    assert.equal(await client.set('io:k', 'value'), 'OK');
    assert.equal(await client.get('io:k'), 'value');
    assert.equal(await client.del('io:k'), 1);
    assert.equal(await client.get('io:k'), null);
  },

  async pipeline() {
    const batch = client.pipeline();
    const want = [];
    for (let i = 0; i < 250; i += 1) {
      batch.set(`io:p:${i}`, i).get(`io:p:${i}`);
      want.push([null, 'OK'], [null, `${i}`]);
    }
    assert.deepEqual(await batch.exec(), want);
  },

  async transaction() {
    await client.del('io:n', 'io:l');
    const block = client.multi().incr('io:n').rpush('io:l', 'a', 'b');
    const replies = await block.lrange('io:l', 0, -1).get('io:n').exec();
    assert.deepEqual(replies, [[null, 1], [null, 2], [null, ['a', 'b']], [null, '1']]);
    await client.multi({ pipeline: false });
    assert.equal(await client.incr('io:n'), 'QUEUED');
    assert.deepEqual(await client.exec(), [[null, 2]]);
  },

  async watch_conflict() {
    await client.set('io:w', 'old');
    await client.watch('io:w');
    assert.equal(await client.get('io:w'), 'old');
    await other.set('io:w', 'other');
    assert.equal(await client.multi().set('io:w', 'mine').exec(), null);
    assert.equal(await client.get('io:w'), 'other');
    await client.watch('io:w');
    assert.deepEqual(await client.multi().set('io:w', 'mine').exec(), [[null, 'OK']]);
  },

  async pubsub() {
    const subscriber = connected();
    const inbox = new Inbox();
    subscriber.on('message', (_channel, message) => inbox.put(message));
    subscriber.on('pmessage', (_pattern, _channel, message) => inbox.put(message));
    assert.equal(await subscriber.subscribe('io:c'), 1);
    assert.equal(await client.publish('io:c', 'hello'), 1);
    assert.equal(await inbox.next(), 'hello');
    assert.equal(await subscriber.psubscribe('io:d*'), 2);
    assert.equal(await subscriber.unsubscribe('io:c'), 1);
    await client.publish('io:c', 'too late');
    await client.publish('io:done', 'done');
    assert.equal(await inbox.next(), 'done');
    assert.equal(await subscriber.punsubscribe('io:d*'), 0);
    assert.equal(await subscriber.get('io:k'), null);
    await subscriber.quit();
  },

  async blpop() {
    const waiter = connected();
    await client.del('io:q');
    await client.rpush('io:q', 'ready');
    assert.deepEqual(await waiter.blpop('io:q', 4), ['io:q', 'ready']);
    assert.equal(await waiter.blpop('io:q', 0.1), null);
    const popped = waiter.blpop('io:q', 4);
    await waitUntilBlocked(() => client.info('clients'));
    await client.rpush('io:q', 'woken');
    assert.deepEqual(await popped, ['io:q', 'woken']);
    await waiter.quit();
  },

  async close() {
    assert.equal(await client.quit(), 'OK');
    assert.equal(await other.quit(), 'OK');
  },
});
