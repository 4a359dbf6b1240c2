// What an application does with node-redis and its defaults: `node_redis.cjs HOST PORT`.

'use strict';

const assert = require('node:assert/strict');
const { createClient, WatchError } = require('redis');
const { Inbox, run, waitUntilBlocked } = require('./features.cjs');

const [host, port] = process.argv.slice(2);

async function connected() {
  const client = createClient({ socket: { host, port: Number(port) } });
  client.on('error', (error) => console.log(`error event: ${error}`));
  return client.connect();
}

let client;
let other;

run({
  async connect() {
    client = await connected();
    other = await connected();
    assert.equal(await client.ping(), 'PONG');
  },

  async get_set() {
    assert.equal(await client.set('node:k', 'value'), 'OK');
    assert.equal(await client.get('node:k'), 'value');
    assert.equal(await client.del('node:k'), 1);
    assert.equal(await client.get('node:k'), null);
  },

  async pipeline() {
    const replies = [];
    const want = [];
    for (let i = 0; i < 250; i += 1) {
      replies.push(client.set(`node:p:${i}`, `${i}`), client.get(`node:p:${i}`));
      want.push('OK', `${i}`);
    }
    assert.deepEqual(await Promise.all(replies), want);
  },

  async transaction() {
    await client.del(['node:n', 'node:l']);
    const block = client.multi().incr('node:n').rPush('node:l', ['a', 'b']);
    const replies = await block.lRange('node:l', 0, -1).get('node:n').exec();
    assert.deepEqual(replies, [1, 2, ['a', 'b'], '1']);
  },

  async watch_conflict() {
    await client.set('node:w', 'old');
    await client.watch('node:w');
    assert.equal(await client.get('node:w'), 'old');
    await other.set('node:w', 'other');
    await assert.rejects(client.multi().set('node:w', 'mine').exec(), WatchError);
    assert.equal(await client.get('node:w'), 'other');
    await client.watch('node:w');
    assert.deepEqual(await client.multi().set('node:w', 'mine').exec(), ['OK']);
  },

  async pubsub() {
    const subscriber = await connected();
    const inbox = new Inbox();
    await subscriber.subscribe('node:c', (message) => inbox.put(message));
    assert.equal(await client.publish('node:c', 'hello'), 1);
    assert.equal(await inbox.next(), 'hello');
    await subscriber.pSubscribe('node:d*', (message) => inbox.put(message));
    await subscriber.unsubscribe('node:c');
    await client.publish('node:c', 'too late');
    await client.publish('node:done', 'done');
    assert.equal(await inbox.next(), 'done');
    await subscriber.pUnsubscribe();
    assert.equal(await subscriber.ping(), 'PONG');
    await subscriber.close();
  },

  async blpop() {
    const waiter = await connected();
    await client.del('node:q');
    await client.rPush('node:q', 'ready');
    assert.deepEqual({ ...(await waiter.blPop('node:q', 4)) }, { key: 'node:q', element: 'ready' });
    assert.equal(await waiter.blPop('node:q', 0.1), null);
    const popped = waiter.blPop('node:q', 4);
    await waitUntilBlocked(() => client.info('clients'));
    await client.rPush('node:q', 'woken');
    assert.deepEqual({ ...(await popped) }, { key: 'node:q', element: 'woken' });
    await waiter.close();
  },

  async close() {
    await client.close();
    await other.close();
  },
});
