// What an application does with node-redis and its defaults: `node_redis.cjs HOST PORT [2|3]`. The
// last argument is the RESP version to ask for; without it the library decides.

'use strict';

const assert = require('node:assert/strict');
const { RESP_TYPES, WatchError, createClient, defineScript } = require('redis');
const { Inbox, LUA, bigValue, failover, run, waitUntilBlocked } = require('./features.cjs');

const [host, port, resp] = process.argv.slice(2);

const store = defineScript({
  SCRIPT: LUA,
  NUMBER_OF_KEYS: 1,
  parseCommand(parser, key, value) {
    parser.pushKey(key);
    parser.push(value);
  },
  transformReply: undefined,
});

async function connected(options = {}) {
  const version = resp === undefined ? {} : { RESP: Number(resp) };
  const socket = { host, port: Number(port) };
  const client = createClient({ socket, scripts: { store }, ...version, ...options });
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
    return String(await client.sendCommand(['CLIENT', 'INFO'])).match(/resp=\d/)[0];
  },

  async client_name() {
    const named = await connected({ name: 'app:1' });
    assert.equal(await named.clientGetName(), 'app:1');
    assert.equal(await named.clientSetName('app:2'), 'OK');
    assert.equal(await named.clientGetName(), 'app:2');
    assert.equal(await client.clientGetName(), null);
    await named.close();
  },

  async select() {
    const fifth = await connected({ database: 5 });
    await client.set('where', 'database 0');
    await fifth.set('where', 'database 5');
    assert.equal(await client.get('where'), 'database 0');
    assert.equal(await fifth.get('where'), 'database 5');
    await fifth.select(0);
    assert.equal(await fifth.get('where'), 'database 0');
    await fifth.close();
  },

  async get_set() {
    assert.equal(await client.set('k', 'value'), 'OK');
    assert.equal(await client.get('k'), 'value');
    assert.equal(await client.del('k'), 1);
    assert.equal(await client.get('k'), null);
  },

  async pipeline() {
    const replies = [];
    const want = [];
    for (let i = 0; i < 250; i += 1) {
      replies.push(client.set(`p:${i}`, `${i}`), client.get(`p:${i}`));
      want.push('OK', `${i}`);
    }
    assert.deepEqual(await Promise.all(replies), want);
  },

  async transaction() {
    await client.del(['n', 'l']);
    const block = client.multi().incr('n').rPush('l', ['a', 'b']);
    const replies = await block.lRange('l', 0, -1).get('n').exec();
    assert.deepEqual(replies, [1, 2, ['a', 'b'], '1']);
  },

  async watch_conflict() {
    await client.set('w', 'old');
    await client.watch('w');
    assert.equal(await client.get('w'), 'old');
    await other.set('w', 'other');
    await assert.rejects(client.multi().set('w', 'mine').exec(), WatchError);
    assert.equal(await client.get('w'), 'other');
    await client.watch('w');
    assert.deepEqual(await client.multi().set('w', 'mine').exec(), ['OK']);
  },

  async pubsub() {
    const subscriber = await connected();
    const inbox = new Inbox();
    await subscriber.subscribe('c', (message) => inbox.put(message));
    assert.equal(await client.publish('c', 'hello'), 1);
    assert.equal(await inbox.next(), 'hello');
    await subscriber.pSubscribe('d*', (message) => inbox.put(message));
    await subscriber.unsubscribe('c');
    await client.publish('c', 'too late');
    await client.publish('done', 'done');
    assert.equal(await inbox.next(), 'done');
    await subscriber.pUnsubscribe();
    // In RESP2 these are bytes.
    assert.equal(String(await subscriber.ping()), 'PONG');
    await subscriber.close();
  },

  async blocking_pop() {
    const waiter = await connected();
    await client.del('q');
    await client.rPush('q', 'ready');
    assert.deepEqual({ ...(await waiter.blPop('q', 4)) }, { key: 'q', element: 'ready' });
    assert.equal(await waiter.blPop('q', 0.1), null);
    const popped = waiter.blPop('q', 4);
    await waitUntilBlocked(() => client.info('clients'));
    await client.rPush('q', 'woken');
    assert.deepEqual({ ...(await popped) }, { key: 'q', element: 'woken' });
    await waiter.close();
  },

  async script() {
    const run = { keys: ['s'], arguments: ['two'] };
    await assert.rejects(client.evalSha(store.SHA1, run), /NOSCRIPT/);
    assert.equal(await client.store('s', 'one'), 'one');
    assert.equal(await client.evalSha(store.SHA1, run), 'two');
    await client.scriptFlush();
    assert.equal(await client.store('s', 'three'), 'three');
  },

  async scan() {
    const want = Array.from({ length: 10_000 }, (_, i) => `scan:${i}`);
    await client.mSet(want.map((key) => [key, 'v']));
    const found = new Set();
    for await (const keys of client.scanIterator({ MATCH: 'scan:*', COUNT: 500 })) {
      keys.forEach((key) => found.add(key));
    }
    assert.deepEqual([...found].sort(), want.sort());
  },

  async streams() {
    const waiter = await connected();
    const read = (who, id) => ['workers', who, { key: 'x', id }];
    const entries = (reply) => {
      assert.deepEqual(reply.map(({ name }) => name), ['x']);
      return reply[0].messages.map(({ id, message }) => [id, message.job]);
    };
    assert.equal(await client.xGroupCreate('x', 'workers', '0', { MKSTREAM: true }), 'OK');
    const want = [];
    for (let i = 0; i < 10; i += 1) {
      want.push([await client.xAdd('x', '*', { job: `${i}` }), `${i}`]);
    }
    const first = entries(await client.xReadGroup(...read('a', '>'), { COUNT: 6 }));
    const rest = entries(await client.xReadGroup(...read('b', '>')));
    assert.deepEqual([...first, ...rest], want);
    assert.equal(await client.xAck('x', 'workers', want.slice(0, 9).map(([id]) => id)), 9);
    const { pending, firstId } = await client.xPending('x', 'workers');
    assert.deepEqual([pending, firstId], [1, want[9][0]]);
    assert.deepEqual(entries(await client.xReadGroup(...read('b', '0'))), [want[9]]);
    const late = waiter.xReadGroup(...read('a', '>'), { BLOCK: 4_000 });
    await waitUntilBlocked(() => client.info('clients'));
    const id = await client.xAdd('x', '*', { job: 'late' });
    assert.deepEqual(entries(await late), [[id, 'late']]);
    await waiter.close();
  },

  async big_value() {
    const value = bigValue();
    assert.equal(await client.set('big', value), 'OK');
    assert.equal(await client.strLen('big'), value.length);
    const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
    assert.ok(value.equals(await bytes.get('big')));
    await client.del('big');
  },

  async failover() {
    const traffic = await connected();
    const subscriber = await connected();
    const inbox = new Inbox();
    await subscriber.subscribe('failover', (message) => inbox.put(message));
    const sha = await traffic.scriptLoad('return ARGV[1]');
    await failover({
      client: traffic,
      inbox,
      id: () => traffic.clientId(),
      publish: (message) => traffic.publish('failover', message),
      script: (word) => traffic.evalSha(sha, { arguments: [word] }),
      block: () => traffic.multi().incr('failover:count').get('failover:count').exec(),
      count: () => {
        const batch = Array.from({ length: 10 }, () => traffic.incr('failover:count'));
        return Promise.all([...batch, traffic.get('failover:over')]);
      },
    });
    await subscriber.close();
    await traffic.close();
  },

  async close() {
    await client.close();
    await other.close();
  },
});
