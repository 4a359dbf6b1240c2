// What an application does with ioredis and its defaults: `ioredis.cjs HOST PORT [2|3]`. The last
// argument is the RESP version to ask for; without it the library decides.

'use strict';

const assert = require('node:assert/strict');
const Redis = require('ioredis');
const { Inbox, LUA, bigValue, failover, run, waitUntilBlocked } = require('./features.cjs');

const [host, port, protocol] = process.argv.slice(2);

function connected(options = {}) {
  const version = protocol === undefined ? {} : { protocol: Number(protocol) };
  const client = new Redis(Number(port), host, { ...version, ...options });
  client.on('error', (error) => console.log(`error event: ${error}`));
  return client;
}

const client = connected();
const other = connected();

run({
  async connect() {
    assert.equal(await client.ping(), 'PONG');
    assert.equal(await other.ping(), 'PONG');
    return (await client.client('INFO')).match(/resp=\d/)[0];
  },

  async client_name() {
    const named = connected({ connectionName: 'app:1' });
    assert.equal(await named.client('GETNAME'), 'app:1');
    assert.equal(await named.client('SETNAME', 'app:2'), 'OK');
    assert.equal(await named.client('GETNAME'), 'app:2');
    assert.equal(await client.client('GETNAME'), null);
    await named.quit();
  },

  async select() {
    const fifth = connected({ db: 5 });
    await client.set('where', 'database 0');
    await fifth.set('where', 'database 5');
    assert.equal(await client.get('where'), 'database 0');
    assert.equal(await fifth.get('where'), 'database 5');
    await fifth.select(0);
    assert.equal(await fifth.get('where'), 'database 0');
    await fifth.quit();
  },

  async get_set() {
    assert.equal(await client.set('k', 'value'), 'OK');
    assert.equal(await client.get('k'), 'value');
    assert.equal(await client.del('k'), 1);
    assert.equal(await client.get('k'), null);
  },

  async pipeline() {
    const batch = client.pipeline();
    const want = [];
    for (let i = 0; i < 250; i += 1) {
      batch.set(`p:${i}`, i).get(`p:${i}`);
      want.push([null, 'OK'], [null, `${i}`]);
    }
    assert.deepEqual(await batch.exec(), want);
  },

  async transaction() {
    await client.del('n', 'l');
    const block = client.multi().incr('n').rpush('l', 'a', 'b');
    const replies = await block.lrange('l', 0, -1).get('n').exec();
    assert.deepEqual(replies, [[null, 1], [null, 2], [null, ['a', 'b']], [null, '1']]);
    await client.multi({ pipeline: false });
    assert.equal(await client.incr('n'), 'QUEUED');
    assert.deepEqual(await client.exec(), [[null, 2]]);
  },

  async watch_conflict() {
    await client.set('w', 'old');
    await client.watch('w');
    assert.equal(await client.get('w'), 'old');
    await other.set('w', 'other');
    assert.equal(await client.multi().set('w', 'mine').exec(), null);
    assert.equal(await client.get('w'), 'other');
    await client.watch('w');
    assert.deepEqual(await client.multi().set('w', 'mine').exec(), [[null, 'OK']]);
  },

  async pubsub() {
    const subscriber = connected();
    const inbox = new Inbox();
    subscriber.on('message', (_channel, message) => inbox.put(message));
    subscriber.on('pmessage', (_pattern, _channel, message) => inbox.put(message));
    assert.equal(await subscriber.subscribe('c'), 1);
    assert.equal(await client.publish('c', 'hello'), 1);
    assert.equal(await inbox.next(), 'hello');
    assert.equal(await subscriber.psubscribe('d*'), 2);
    assert.equal(await subscriber.unsubscribe('c'), 1);
    await client.publish('c', 'too late');
    await client.publish('done', 'done');
    assert.equal(await inbox.next(), 'done');
    assert.equal(await subscriber.punsubscribe('d*'), 0);
    assert.equal(await subscriber.get('k'), null);
    await subscriber.quit();
  },

  async blocking_pop() {
    const waiter = connected();
    await client.del('q');
    await client.rpush('q', 'ready');
    assert.deepEqual(await waiter.blpop('q', 4), ['q', 'ready']);
    assert.equal(await waiter.blpop('q', 0.1), null);
    const popped = waiter.blpop('q', 4);
    await waitUntilBlocked(() => client.info('clients'));
    await client.rpush('q', 'woken');
    assert.deepEqual(await popped, ['q', 'woken']);
    await waiter.quit();
  },

  async script() {
    client.defineCommand('store', { numberOfKeys: 1, lua: LUA });
    const sha = require('node:crypto').createHash('sha1').update(LUA).digest('hex');
    await assert.rejects(client.evalsha(sha, 1, 's', 'v'), /NOSCRIPT/);
    assert.equal(await client.store('s', 'one'), 'one');
    assert.equal(await client.evalsha(sha, 1, 's', 'two'), 'two');
    await client.script('FLUSH');
    assert.equal(await client.store('s', 'three'), 'three');
  },

  async scan() {
    const want = Array.from({ length: 10_000 }, (_, i) => `scan:${i}`);
    await client.mset(want.flatMap((key) => [key, 'v']));
    const found = new Set();
    for await (const keys of client.scanStream({ match: 'scan:*', count: 500 })) {
      keys.forEach((key) => found.add(key));
    }
    assert.deepEqual([...found].sort(), want.sort());
  },

  async streams() {
    const waiter = connected();
    const read = (who, from, ...options) =>
      ['GROUP', 'workers', who, ...options, 'STREAMS', 'x', from];
    const entries = (reply) => {
      assert.deepEqual(reply.map(([name]) => name), ['x']);
      return reply[0][1];
    };
    assert.equal(await client.xgroup('CREATE', 'x', 'workers', '0', 'MKSTREAM'), 'OK');
    const want = [];
    for (let i = 0; i < 10; i += 1) {
      want.push([await client.xadd('x', '*', 'job', `${i}`), ['job', `${i}`]]);
    }
    const first = entries(await client.xreadgroup(...read('a', '>', 'COUNT', 6)));
    const rest = entries(await client.xreadgroup(...read('b', '>')));
    assert.deepEqual([...first, ...rest], want);
    const done = want.slice(0, 9).map(([name]) => name);
    assert.equal(await client.xack('x', 'workers', ...done), 9);
    const left = want[9][0];
    assert.deepEqual(await client.xpending('x', 'workers'), [1, left, left, [['b', '1']]]);
    assert.deepEqual(entries(await client.xreadgroup(...read('b', '0'))), [want[9]]);
    const late = waiter.xreadgroup(...read('a', '>', 'BLOCK', 4_000));
    await waitUntilBlocked(() => client.info('clients'));
    const name = await client.xadd('x', '*', 'job', 'late');
    assert.deepEqual(entries(await late), [[name, ['job', 'late']]]);
    await waiter.quit();
  },

  async big_value() {
    const value = bigValue();
    assert.equal(await client.set('big', value), 'OK');
    assert.equal(await client.strlen('big'), value.length);
    assert.ok(value.equals(await client.getBuffer('big')));
    await client.del('big');
  },

  async failover() {
    const traffic = connected();
    const subscriber = connected();
    const inbox = new Inbox();
    subscriber.on('message', (_channel, message) => inbox.put(message));
    await subscriber.subscribe('failover');
    const sha = await traffic.script('LOAD', 'return ARGV[1]');
    const values = async (batch) =>
      (await batch.exec()).map(([error, reply]) => {
        if (error) throw error;
        return reply;
      });
    await failover({
      client: traffic,
      inbox,
      id: () => traffic.client('ID'),
      publish: (message) => traffic.publish('failover', message),
      script: (word) => traffic.evalsha(sha, 0, word),
      block: () => values(traffic.multi().incr('failover:count').get('failover:count')),
      count: () => {
        const batch = traffic.pipeline();
        for (let i = 0; i < 10; i += 1) batch.incr('failover:count');
        return values(batch.get('failover:over'));
      },
    });
    await subscriber.quit();
    await traffic.quit();
  },

  async close() {
    assert.equal(await client.quit(), 'OK');
    assert.equal(await other.quit(), 'OK');
  },
});
