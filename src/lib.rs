//! Switchman: a Sentinel-aware Redis proxy.
//!
//! Clients that know nothing of Sentinel connect to one fixed address and speak plain Redis.
//! Switchman asks the Sentinels who the master is, sends writes to it and reads to healthy
//! replicas, and throws the switch in a failover: commands for the master are held from the first
//! sign on, and go on with the new master over the same client connection. A write whose fate is
//! unknown is answered `-UNCERTAIN` and never sent again. No data is kept.
//!
//! The library serves the binary, the tests and the benchmarks; it is no interface for others.
//! For what users see, read `README.md`.
//!
//! # Bird's eye
//!
//! Two flows. They meet in the snapshot and in the reports of the workers, nowhere else.
//!
//! ```text
//! DATA      client bytes ─► resp (frames) ─► command (what is it) ─► session (what has been set)
//!           ─► route (where) ─► exchange (which link, or wait) ─► mux (what is in flight) ─► node
//!           ─► resp (where a reply ends) ─► session (reply order) ─► client bytes
//!
//! CONTROL   one subscriber per Sentinel, polls, probes of nodes ─► topology machine (pure)
//!           ─► immutable Snapshot ─► watch channel ─► each worker's exchange
//!           ◄─ reports: link lost, silent, demoted, quiet ◄─ bounded channel ◄─ workers
//! ```
//!
//! Threads: one for each worker, with a single-threaded runtime, its clients and its own
//! connections to the nodes; one acceptor; one for the control plane with Sentinels, admin and
//! metrics, which answers even when the workers are busy.
//!
//! # Floors
//!
//! A module imports from floors strictly below its own. *Pure* knows no tokio, socket, clock,
//! chance, file or metric: time and chance are arguments. `types` may be imported everywhere.
//!
//! ```text
//!  8  main · app                       wires everything once                          shell
//!  7  cli                              the command line                               shell
//!  6  config                           text to checked settings                       mostly pure
//!     demo                             real deployments, and the story on show        shell
//!  5  worker                           one thread: sockets and their exchange         shell
//!  4  exchange                         the switchboard between sessions and links     PURE
//!     downstream · admin               the way in for clients · operators' pages      shell
//!  3  session                          one client's conversation                      PURE
//!  2  route                            where a command goes                           PURE
//!     sentinel · upstream              asks Sentinels and nodes · opens connections   shell
//!  1  command · topology · mux         what is it · who is master · what is in flight PURE
//!     consistency                      what a replica may not have yet                PURE
//!     switchover                       the steps of a planned failover               PURE
//!     fence                            ends what was given up, at the node           PURE
//!     net                              TCP and Unix sockets                           shell
//!  0  types · resp · backoff           words, grammar, waiting                        PURE
//!     telemetry · tasks                names of metrics and logs · spawn and drain    shell
//! ```
//!
//! # Where to start reading
//!
//! `exchange/mod.rs` for the data path, then `exchange/dispatch.rs` (a request finds its place) and
//! `exchange/losses.rs` (a connection is lost). `topology/machine/mod.rs` for the control path,
//! then `topology/machine/decide.rs`. `worker/core.rs` shows how sockets meet the exchange, `app`
//! how all of it starts and stops.
//!
//! # Code map
//!
//! **types**: addresses, names, epochs, generations, `Time` (a duration since the start), secrets
//! that do not print. **resp**: request decoder, reply scanner, encoder; limits with their reasons.
//! **backoff**: attempt and dice to delay. **telemetry**: every metric in one table, per-worker
//! counts without atomics, logging. **tasks**: named tasks that are asked to stop, waited for, cut.
//!
//! **command**: one table of all commands with class, arity, keys and flags, overlaid with what
//! the master's own `COMMAND` says and with what the operator refuses and allows. **topology**:
//! the machine of one master group: events, answers and reports in; questions, notes and snapshots
//! out; and the record of incidents. **mux**: the queue of what was sent on one connection, and on
//! its loss, which request was written wholly. **net**: listeners and streams.
//!
//! **consistency**: stamps of written keys, which all workers share, and the machine that finds out
//! up to which of them each replica has everything; its header argues why no read is stale.
//!
//! **switchover**: the steps of a planned failover that loses nothing: hold, pause, offset,
//! replicas, failover, proof; what each may take, and how it is given up.
//!
//! **fence**: connections that were given up while the node may still execute what was sent on
//! them, and the steps by which they are ended there.
//!
//! **route**: class, policy and load to master, replica, hold or error; what a listener lets its
//! clients have. **sentinel**: the tasks around one topology machine: a driver, a subscriber for
//! each Sentinel, kept connections for questions, checks of nodes, the master's `COMMAND`.
//! **upstream**: the handshake with a node (`AUTH` alone, then `HELLO`, `CLIENT SETNAME`, `SELECT`,
//! `PING`, `ROLE`, `CLIENT INFO`) and one turn of a connection.
//!
//! **session**: what a client has set (login, database, protocol, name), commands answered here,
//! the queue that puts replies into request order, every error line of our own.
//!
//! **exchange**: all clients and links of one worker. Classifies and places requests, holds clients
//! and, in a failover, replies; leases links for transactions and blocking commands, hears what is
//! published over one link for all, passes on to one client what others have read and is changed,
//! has the master serve for a moment all of a client that configures it or resets its statistics,
//! decides what becomes of lost requests, gives a new master the scripts of the last, throttles
//! what feeds a client that does not read, asks late reads of a second replica, and twice those
//! that wait behind a long reply or a paused write, lets a client become a replica without an
//! address, opens a link to see whether new clients have to log in, and goes on with those that
//! there are for clients whose login is taken no more. The worker calls it with bytes and events,
//! and performs the actions that it gives. Scripts, stamps, which keys have large values, whether
//! the master runs a script or keeps writes waiting, the numbers of clients and of subscribers, and
//! that an administrator may have changed who is let in, are all that workers share.
//!
//! **downstream**: the acceptor and the limit of clients. **admin**: HTTP pages, JSON, health.
//! **worker**: the thread: polls sockets, calls the exchange, publishes counts. **config**: the
//! table of keys; file, variables and flags in layers; all mistakes at once. **cli**: arguments,
//! `check`, `status`. **demo**: Redis and Sentinel processes on loopback, used by the live tests
//! and benchmarks too; knows Switchman by its command line only. **app**: start, stop, and what
//! the admin pages show.
//!
//! # Invariants
//!
//! What is absent matters most; `tests/tidy.rs` and `clippy.toml` check what can be checked.
//!
//! * A request that may write, and of which a complete copy may have left, is never sent again,
//!   unless the reply to it proves that it was not executed.
//! * No write goes to a node that is not the proven master of the snapshot in use. A connection
//!   serves in the role for which it was opened; `ROLE` is asked in its handshake.
//! * An event of a Sentinel is a hint: only an answer names a master, only the node's own `ROLE`
//!   proves it, and no epoch below the one in use is obeyed (one escape, in `decide.rs`).
//! * A session sends on a link to the master only when none of its requests is unanswered on
//!   another link to the master.
//! * A shared link never carries state of a session. A link goes back to the pool only when
//!   nothing sticks to it and nothing is in flight on it.
//! * A reply that nobody asked for ends the link. Nothing is resynchronised by guessing.
//! * There is no queue for held commands: the client is not read from. No channel, timer or
//!   buffer exists per idle client. Every queue has a bound, and every bound a name.
//! * `route` has no state. `exchange`, `session` and `topology` do not know what time it is.
//!   `sentinel` and `worker` decide nothing. Nobody below `config` imports it.
//! * No task is detached: `tasks` and `worker` alone spawn. No lock is held across an await. There
//!   is no global that changes, save the log subscriber.
//! * No byte of a key, a value or a password is logged or becomes a label. No `unsafe`.
//!
//! # Boundaries
//!
//! RESP2 and RESP3 to clients and nodes; a reply is passed on as it came, never converted, so a
//! client's protocol is also that of its links. Sentinel's commands and events, by name, with
//! fields that may be missing. Stable for users: flags, keys and variables (`config/keys.rs`),
//! metrics (`telemetry/families.rs`), JSON fields (`admin/json.rs`), the first words of errors
//! (`session/reject.rs`), exit codes. The Rust interface is not stable.
//!
//! # Cross-cutting
//!
//! *Stopping*: one path. A signal makes `/readyz` fail, closes the listeners, and asks each worker
//! to stop: what is held is refused, what is in flight is answered, clients are closed; at
//! `shutdown.drain-timeout` the rest is cut off and counted. The control plane ends last, so that a
//! switch under way can still end well.
//!
//! *Switching*: a snapshot in the phase `Switching` holds. Each worker reports `Quiet` when nothing
//! is in flight to the old master. The next snapshot comes when all have, or at `drain-timeout`.
//! Meanwhile the workers keep replies to writes back (`exchange/gate.rs`) until the snapshot says
//! that the successor has, or may not have, what they acknowledge (`topology/machine/fork.rs`).
//! Links to the old master are lost then, and what was on them is judged like any loss.
//!
//! *Errors*: an enum where they arise, with facts; `anyhow` in `app` and `main` only. What a peer
//! does is never an error of ours: it is a state, a note or a line to the client.
//!
//! *Limits*: `exchange/settings.rs`, `resp/limits.rs`, the keys; constants stand where they bind.
//!
//! *Time*: the shell reads the clock once for each readiness event and hands it in. Timers are a
//! tick per worker and one deadline per machine.
//!
//! *Tests*: beside the code for every rule, with invented time; properties for decoders, the reply
//! queue and the machine; `tests/simulation` for the machine and the exchanges together in invented
//! worlds; `tests/tidy.rs` for this text's claims; `tests/live` with real Redis and Sentinels;
//! `tests/clients` with real client libraries; `tests/fuzz` with a committed corpus;
//! `benches/compare` beside other proxies, `benches/micro` for nanoseconds.
//!
//! # Decisions
//!
//! All of 2026-11-22.
//!
//! * **A thread with a runtime of its own per worker, and one acceptor.** Rejected: the
//!   multi-thread runtime (20 to 60 % more processor time per command, measured); `SO_REUSEPORT`
//!   per worker (8 clients split evenly over two listeners in 55 of 200 rounds, and closing one
//!   listener reset queued connections).
//! * **One pure exchange per worker that is called with bytes.** Rejected: a task and channels for
//!   each client and node (more memory per idle client and more time per command, and orders of
//!   events that no test can set up).
//! * **Shared links for stateless commands, leased links for the rest.** Rejected: a link per
//!   client (no batching, and a storm of connections after each failover); transactions on shared
//!   links (what is queued inside could change the link for good).
//! * **One leased link is open before it is needed, for each lane in use.** Rejected: opening it
//!   when it is asked for, while what others send for a shared link goes past the command that
//!   waits; one as soon as a transaction has borrowed it (it comes back).
//! * **A held client is not read from.** Rejected: a queue of held commands (another bound to
//!   explain; TCP has one already).
//! * **`-UNCERTAIN` over a connection that stays.** Rejected: closing it, which client libraries
//!   answer by sending the write again.
//! * **Replies to writes are kept back in a failover, by the workers.** Rejected: passing them on,
//!   which acknowledges what a new master that lagged does not have (5 of 5 in flight, measured).
//! * **A login is proven on the master each time, and lives with its sessions.** Rejected: caching
//!   verdicts, which would outlive a change of the password.
//! * **Strict CRLF in arrays.** Rejected: Redis's leniency, with which proxy and server may
//!   disagree on where a command ends.
//! * **Buckets of our own behind the `metrics` facade.** Rejected: the exporter's histograms, which
//!   keep every sample until a scrape.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod command;
pub mod config;
pub mod consistency;
pub mod demo;
pub mod downstream;
pub mod exchange;
pub mod fence;
pub mod mux;
pub mod net;
pub mod resp;
pub mod route;
pub mod sentinel;
pub mod session;
pub mod switchover;
pub mod tasks;
pub mod telemetry;
pub mod topology;
pub mod types;
pub mod upstream;
pub mod worker;
