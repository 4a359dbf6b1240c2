<?php
// What an application does with phpredis and its defaults: `phpredis.php HOST PORT`.
//
// Prints a line for each feature, and ends with 1 if one of them failed.

declare(strict_types=1);

/** Seconds for one wait, and for a failover from its traffic to its end. */
const SOON = 30;
const SWITCHED = 60;

function connected(): Redis
{
    global $argv;
    $client = new Redis();
    $client->connect($argv[1], (int) $argv[2]);
    return $client;
}

function expect(string $what, mixed $got, mixed $want): void
{
    if ($got !== $want) {
        $shown = array_map(fn ($value) => substr(json_encode($value) ?: '?', 0, 200), [$got, $want]);
        throw new RuntimeException("$what: got $shown[0], want $shown[1]");
    }
}

/** Lets a child process `work`; returns the end of a pipe at which it hears what the child says. */
function child(callable $work): mixed
{
    [$ours, $theirs] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    if (pcntl_fork() === 0) {
        fclose($ours);
        // Nobody may be listening any more.
        $say = fn (string $line) => @fwrite($theirs, "$line\n");
        try {
            $work($say);
        } catch (Throwable $error) {
            $say($error->getMessage());
        }
        exit(0);
    }
    fclose($theirs);
    stream_set_timeout($ours, SOON);
    return $ours;
}

/** The next thing that a child says. */
function said(mixed $pipe): string
{
    $line = fgets($pipe);
    if ($line === false) {
        throw new RuntimeException('a child says nothing');
    }
    return rtrim($line);
}

/** What `waiting` returns, which has to wait until a child calls `wake` with a client of its own. */
function when_blocked(callable $waiting, callable $wake): mixed
{
    $waker = child(function (callable $say) use ($wake): void {
        $client = connected();
        $deadline = time() + SOON;
        while ((int) $client->info('clients')['blocked_clients'] === 0 && time() < $deadline);
        $wake($client);
        $say('awake');
    });
    $got = $waiting();
    expect('woken by', said($waker), 'awake');
    return $got;
}

/** A child that says what it hears on `channel` until that is "end", and what the end gave. */
function subscriber(string $channel): mixed
{
    return child(function (callable $say) use ($channel): void {
        $hear = function (Redis $redis, string $channel, string $message) use ($say): void {
            $say($message);
            if ($message === 'end') {
                $say(json_encode($redis->unsubscribe([$channel])));
                // Else it would go on listening.
                $redis->close();
            }
        };
        connected()->subscribe([$channel], $hear);
    });
}

/** The same for all channels that match `pattern`. */
function pattern_subscriber(string $pattern): mixed
{
    return child(function (callable $say) use ($pattern): void {
        $hear = function (Redis $redis, string $by, string $on, string $message) use ($say): void {
            $say("$by $on $message");
            $say(json_encode($redis->punsubscribe([$by])));
            $redis->close();
        };
        connected()->psubscribe([$pattern], $hear);
    });
}

/** Publishes until somebody receives it. */
function publish(Redis $client, string $channel, string $message): void
{
    $deadline = time() + SOON;
    do {
        $receivers = $client->publish($channel, $message);
        if (time() > $deadline) {
            throw new RuntimeException("no subscriber of $channel");
        }
    } while ($receivers === 0);
    expect('receivers', $receivers, 1);
}

function connect(Redis $client): string
{
    expect('ping', $client->ping(), true);
    preg_match('/resp=\d/', $client->rawCommand('CLIENT', 'INFO'), $found);
    return $found[0];
}

function client_name(Redis $client): void
{
    $named = connected();
    expect('no name', (bool) $named->client('getname'), false);
    expect('set', $named->client('setname', 'app:1'), true);
    expect('name', $named->client('getname'), 'app:1');
    expect('no name', (bool) $client->client('getname'), false);
}

function select(Redis $client): void
{
    $fifth = connected();
    expect('select', $fifth->select(5), true);
    $client->set('where', 'database 0');
    $fifth->set('where', 'database 5');
    expect('in 0', $client->get('where'), 'database 0');
    expect('in 5', $fifth->get('where'), 'database 5');
    $fifth->select(0);
    expect('in 0 after SELECT', $fifth->get('where'), 'database 0');
}

function get_set(Redis $client): void
{
    expect('set', $client->set('k', 'value'), true);
    expect('get', $client->get('k'), 'value');
    expect('delete', $client->del('k'), 1);
    expect('get of nothing', $client->get('k'), false);
}

function pipeline(Redis $client): void
{
    $batch = $client->pipeline();
    $want = [];
    for ($i = 0; $i < 250; $i++) {
        $batch->set("p:$i", (string) $i)->get("p:$i");
        array_push($want, true, (string) $i);
    }
    expect('500 replies', $batch->exec(), $want);
}

function transaction(Redis $client): void
{
    $block = $client->multi()->incr('n')->rPush('l', 'a', 'b')->lRange('l', 0, -1)->get('n');
    expect('replies', $block->exec(), [1, 2, ['a', 'b'], '1']);
}

function watch_conflict(Redis $client): void
{
    $other = connected();
    $client->set('w', 'old');
    $client->watch('w');
    expect('watched value', $client->get('w'), 'old');
    $other->set('w', 'other');
    expect('with a conflict', $client->multi()->set('w', 'mine')->exec(), false);
    expect('value', $client->get('w'), 'other');
    $client->watch('w');
    expect('without a conflict', $client->multi()->set('w', 'mine')->exec(), [true]);
}

function pubsub(Redis $client): void
{
    $heard = subscriber('c');
    publish($client, 'c', 'hello');
    expect('message', said($heard), 'hello');
    expect('to nobody', $client->publish('d', 'lost'), 0);
    publish($client, 'c', 'end');
    expect('message', said($heard), 'end');
    expect('unsubscribed', said($heard), '{"c":true}');
    $heard = pattern_subscriber('d*');
    publish($client, 'done', 'done');
    expect('message', said($heard), 'd* done done');
    expect('unsubscribed', said($heard), '{"d*":true}');
}

function blocking_pop(Redis $client): void
{
    $client->rPush('q', 'ready');
    expect('at once', $client->blPop(['q'], 4), ['q', 'ready']);
    expect('timed out', $client->blPop(['q'], 1), []);
    $popped = when_blocked(fn () => $client->blPop(['q'], 4), fn ($own) => $own->rPush('q', 'woken'));
    expect('woken', $popped, ['q', 'woken']);
}

function script(Redis $client): void
{
    $lua = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";
    $missed = 0;
    $store = function (string $value) use ($client, $lua, &$missed): mixed {
        $client->clearLastError();
        $reply = $client->evalSha(sha1($lua), ['s', $value], 1);
        if ($reply === false && str_starts_with($client->getLastError() ?? '', 'NOSCRIPT')) {
            $missed++;
            $reply = $client->eval($lua, ['s', $value], 1);
        }
        return $reply;
    };
    expect('loaded when missed', $store('one'), 'one');
    expect('by its name', $store('two'), 'two');
    expect('misses', $missed, 1);
    $client->script('flush');
    expect('loaded after a flush', $store('three'), 'three');
    expect('misses', $missed, 2);
}

function scan(Redis $client): void
{
    $want = array_map(fn ($i) => "scan:$i", range(0, 9_999));
    foreach (array_chunk($want, 1_000) as $some) {
        $client->mSet(array_fill_keys($some, 'v'));
    }
    $found = [];
    $cursor = null;
    while (($keys = $client->scan($cursor, 'scan:*', 500)) !== false) {
        array_push($found, ...$keys);
    }
    $found = array_values(array_unique($found));
    sort($found);
    sort($want);
    expect('keys', $found, $want);
}

function streams(Redis $client): void
{
    expect('group', $client->xGroup('CREATE', 'x', 'workers', '0', true), true);
    $want = [];
    for ($i = 0; $i < 10; $i++) {
        $want[$client->xAdd('x', '*', ['job' => (string) $i])] = ['job' => (string) $i];
    }
    $first = $client->xReadGroup('workers', 'a', ['x' => '>'], 6)['x'];
    $rest = $client->xReadGroup('workers', 'b', ['x' => '>'])['x'];
    expect('entries', $first + $rest, $want);
    $names = array_keys($want);
    expect('acknowledged', $client->xAck('x', 'workers', array_slice($names, 0, 9)), 9);
    $pending = $client->xPending('x', 'workers');
    expect('pending', array_slice($pending, 0, 2), [1, $names[9]]);
    $again = $client->xReadGroup('workers', 'b', ['x' => '0'])['x'];
    expect('still pending', $again, [$names[9] => ['job' => '9']]);
    $woken = when_blocked(
        fn () => $client->xReadGroup('workers', 'a', ['x' => '>'], 1, 4_000),
        fn ($own) => $own->xAdd('x', '*', ['job' => 'late']),
    );
    expect('woken', array_values($woken['x']), [['job' => 'late']]);
}

function big_value(Redis $client): void
{
    $value = str_repeat(random_bytes(1 << 20), 32);
    expect('set', $client->set('big', $value), true);
    expect('size', $client->strlen('big'), strlen($value));
    expect('the same', $client->get('big') === $value, true);
    $client->del('big');
}

/** Traffic until `failover:over` is there, which is set when another node is master. */
function failover(Redis $client): void
{
    $sha = $client->script('load', 'return ARGV[1]');
    $id = $client->rawCommand('CLIENT', 'ID');
    $heard = subscriber('failover');
    publish($client, 'failover', 'before');
    expect('before', said($heard), 'before');
    $deadline = time() + SWITCHED;
    for ($last = 0, $over = false; $over === false; $last += 11) {
        expect('in time', time() < $deadline, true);
        $batch = $client->pipeline();
        for ($i = 0; $i < 10; $i++) {
            $batch->incr('failover:count');
        }
        $counted = $batch->get('failover:over')->exec();
        $over = array_pop($counted);
        expect('counted', $counted, range($last + 1, $last + 10));
        $block = $client->multi()->incr('failover:count')->get('failover:count')->exec();
        expect('in a block', $block, [$last + 11, (string) ($last + 11)]);
        expect('token', $client->set('failover:token', (string) $last), true);
        expect('own write', $client->get('failover:token'), (string) $last);
    }
    expect('script', $client->evalSha($sha, ['kept'], 0), 'kept');
    expect('connection', $client->rawCommand('CLIENT', 'ID'), $id);
    publish($client, 'failover', 'end');
    expect('after', said($heard), 'end');
    expect('unsubscribed', said($heard), '{"failover":true}');
}

$features = [
    'connect', 'client_name', 'select', 'get_set', 'pipeline', 'transaction', 'watch_conflict',
    'pubsub', 'blocking_pop', 'script', 'scan', 'streams', 'big_value', 'failover',
];
$failed = false;
$client = connected();
foreach ($features as $feature) {
    try {
        $more = $feature($client) ?? '';
        echo "ok $feature $more\n";
    } catch (Throwable $error) {
        $failed = true;
        echo "FAIL $feature: ", get_class($error), ': ', $error->getMessage(), "\n";
    }
}
exit($failed ? 1 : 0);
