# What an application does with redis-rb and its defaults: `redis_rb.rb HOST PORT`.
#
# Prints a line for each feature, and ends with 1 if one of them failed.

require 'redis'
require 'timeout'

ADDRESS = { host: ARGV[0], port: Integer(ARGV[1]) }.freeze

# For one feature, and for a failover from its traffic to its end.
SOON = 30
SWITCHED = 60

def connected(**options)
  Redis.new(**ADDRESS, **options)
end

def expect(what, got, want)
  return if got == want

  raise "#{what}: got #{got.inspect[0, 200]}, want #{want.inspect[0, 200]}"
end

# What the block returns, run beside `wake`, which is called once a client is blocked.
def when_blocked(client, wake, &waiting)
  waiter = Thread.new(&waiting)
  nil until client.info('clients')['blocked_clients'] != '0'
  wake.call
  waiter.value
ensure
  waiter.kill
end

# Lets the block work with what a subscriber of `channel` hears. At "more" it subscribes to `d*` until
# it hears something there, at "end" it ends; its connection is its own while it listens.
def subscribed(channel)
  heard = Queue.new
  subscriber = connected
  listener = Thread.new do
    subscriber.subscribe(channel) do |on|
      confirm = ->(_, count) { heard << count }
      on.subscribe(&confirm)
      on.psubscribe(&confirm)
      on.unsubscribe(&confirm)
      on.punsubscribe(&confirm)
      on.pmessage do |pattern, _, message|
        heard << message
        subscriber.punsubscribe(pattern)
      end
      on.message do |_, message|
        heard << message
        subscriber.psubscribe('d*') if message == 'more'
        subscriber.unsubscribe(channel) if message == 'end'
      end
    end
  end
  expect('subscribed', heard.pop, 1)
  yield heard
  listener.join
ensure
  listener&.kill
  subscriber&.close
end

class Features
  def initialize
    @client = connected
  end

  def connect
    expect('ping', @client.ping, 'PONG')
    @client.call('CLIENT', 'INFO')[/resp=\d/]
  end

  def client_name
    named = connected(id: 'app:1')
    expect('name', named.client(:getname), 'app:1')
    named.client(:setname, 'app:2')
    expect('new name', named.client(:getname), 'app:2')
    expect('no name', @client.client(:getname), nil)
    named.close
  end

  def select
    fifth = connected(db: 5)
    @client.set('where', 'database 0')
    fifth.set('where', 'database 5')
    expect('in 0', @client.get('where'), 'database 0')
    expect('in 5', fifth.get('where'), 'database 5')
    fifth.select(0)
    expect('in 0 after SELECT', fifth.get('where'), 'database 0')
    fifth.close
  end

  def get_set
    expect('set', @client.set('k', 'value'), 'OK')
    expect('get', @client.get('k'), 'value')
    expect('delete', @client.del('k'), 1)
    expect('get of nothing', @client.get('k'), nil)
  end

  def pipeline
    replies = @client.pipelined do |batch|
      250.times do |i|
        batch.set("p:#{i}", i)
        batch.get("p:#{i}")
      end
    end
    expect('500 replies', replies, (0...250).flat_map { |i| ['OK', i.to_s] })
  end

  def transaction
    replies = @client.multi do |block|
      block.incr('n')
      block.rpush('l', %w[a b])
      block.lrange('l', 0, -1)
      block.get('n')
    end
    expect('replies', replies, [1, 2, %w[a b], '1'])
    replies = @client.multi { |block| 500.times { block.incr('n') } }
    expect('500 replies in a block', replies, (2...502).to_a)
  end

  def watch_conflict
    other = connected
    @client.set('w', 'old')
    refused = @client.watch('w') do
      expect('watched value', @client.get('w'), 'old')
      other.set('w', 'other')
      @client.multi { |block| block.set('w', 'mine') }
    end
    expect('with a conflict', refused, nil)
    expect('value', @client.get('w'), 'other')
    done = @client.watch('w') { @client.multi { |block| block.set('w', 'mine') } }
    expect('without a conflict', done, ['OK'])
    other.close
  end

  def pubsub
    subscribed('c') do |heard|
      expect('receivers', @client.publish('c', 'hello'), 1)
      expect('message', heard.pop, 'hello')
      @client.publish('c', 'more')
      expect('message', heard.pop, 'more')
      expect('subscribed', heard.pop, 2)
      @client.publish('done', 'done')
      expect('message by pattern', heard.pop, 'done')
      expect('unsubscribed', heard.pop, 1)
      @client.publish('c', 'end')
      expect('last message', heard.pop, 'end')
      expect('unsubscribed', heard.pop, 0)
    end
    expect('to nobody', @client.publish('c', 'too late'), 0)
  end

  def blocking_pop
    waiter = connected
    @client.rpush('q', 'ready')
    expect('at once', waiter.blpop('q', timeout: 4), %w[q ready])
    expect('timed out', waiter.blpop('q', timeout: 0.1), nil)
    wake = -> { @client.rpush('q', 'woken') }
    popped = when_blocked(@client, wake) { waiter.blpop('q', timeout: 4) }
    expect('woken', popped, %w[q woken])
    waiter.close
  end

  def script
    lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
    sha = Digest::SHA1.hexdigest(lua)
    missed = 0
    store = lambda do |value|
      @client.evalsha(sha, ['s'], [value])
    rescue Redis::CommandError => e
      raise unless e.message.start_with?('NOSCRIPT')

      missed += 1
      @client.eval(lua, ['s'], [value])
    end
    expect('loaded when missed', store.call('one'), 'one')
    expect('by its name', store.call('two'), 'two')
    expect('misses', missed, 1)
    @client.script(:flush)
    expect('loaded after a flush', store.call('three'), 'three')
    expect('misses', missed, 2)
  end

  def scan
    keys = (0...10_000).map { |i| "scan:#{i}" }
    keys.each_slice(1_000) { |some| @client.mapped_mset(some.to_h { |key| [key, 'v'] }) }
    found = @client.scan_each(match: 'scan:*', count: 500).to_a.uniq
    expect('keys', found.sort, keys.sort)
  end

  def streams
    @client.xgroup(:create, 'x', 'workers', '0', mkstream: true)
    read = ->(client, who, from, **options) do
      client.xreadgroup('workers', who, 'x', from, **options).fetch('x')
    end
    want = (0...10).map { |i| [@client.xadd('x', { job: i }), { 'job' => i.to_s }] }
    first = read.call(@client, 'a', '>', count: 6)
    expect('entries', first + read.call(@client, 'b', '>'), want)
    expect('acknowledged', @client.xack('x', 'workers', want[0...9].map(&:first)), 9)
    pending = @client.xpending('x', 'workers')
    expect('pending', pending.values_at('size', 'min_entry_id'), [1, want[9].first])
    expect('still pending', read.call(@client, 'b', '0'), [want[9]])
    waiter = connected
    added = nil
    wake = -> { added = @client.xadd('x', { job: 'late' }) }
    woken = when_blocked(@client, wake) { read.call(waiter, 'a', '>', block: 4_000) }
    expect('woken', woken, [[added, { 'job' => 'late' }]])
    waiter.close
  end

  def big_value
    value = Random.bytes(1 << 20) * 32
    expect('set', @client.set('big', value), 'OK')
    expect('size', @client.strlen('big'), value.bytesize)
    raise 'another value' unless @client.get('big').b == value

    @client.del('big')
  end

  # Traffic until `failover:over` is there, which is set when another node is master.
  def failover
    sha = @client.script(:load, 'return ARGV[1]')
    id = @client.call('CLIENT', 'ID')
    subscribed('failover') do |heard|
      expect('receivers', @client.publish('failover', 'before'), 1)
      expect('before', heard.pop, 'before')
      last = 0
      last += 11 until traffic(last)
      expect('script', @client.evalsha(sha, [], ['kept']), 'kept')
      expect('connection', @client.call('CLIENT', 'ID'), id)
      nil while @client.publish('failover', 'end').zero?
      expect('after', heard.pop, 'end')
    end
  end

  private

  # One round of it, which counts to `last + 11`; says whether it was the last one.
  def traffic(last)
    *counted, over = @client.pipelined do |batch|
      10.times { batch.incr('failover:count') }
      batch.get('failover:over')
    end
    expect('counted', counted, (last + 1..last + 10).to_a)
    block = @client.multi do |transaction|
      transaction.incr('failover:count')
      transaction.get('failover:count')
    end
    expect('in a block', block, [last + 11, (last + 11).to_s])
    @client.set('failover:token', last)
    expect('own write', @client.get('failover:token'), last.to_s)
    over
  end
end

features = Features.new
failed = Features.public_instance_methods(false).count do |name|
  more = Timeout.timeout(name == :failover ? SWITCHED : SOON) { features.public_send(name) }
  puts "ok #{name} #{more if name == :connect}"
  false
rescue StandardError => e
  puts "FAIL #{name}: #{e.class}: #{e.message.lines.first}"
  true
ensure
  $stdout.flush
end
exit(failed.zero?)
