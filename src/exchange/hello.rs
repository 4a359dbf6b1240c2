//! Floor 4. HELLO: the master is asked whether it speaks the protocol and takes the login, and what
//! it says of itself is the answer.
//!
//! Servers before 7.2 do what stands in a HELLO one after the other, until something is wrong.

use crate::exchange::Exchange;
use crate::exchange::client::Client;
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::session_commands::Proof;
use crate::resp::encode;
use crate::session::{HelloFacts, HelloRequest, HelloStep, LoginBy, Reject, Seq};
use crate::telemetry::RequestClass;
use crate::types::Protocol;

/// Redis networking.c, `helloCommand`, of Redis 8.0; until a node has said it in its own words.
const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client \
    and select the RESP protocol version at the same time";

/// How many steps of a HELLO are done, while a later one waits for the master.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Done {
    /// The number that this HELLO will get.
    seq: Seq,
    steps: u32,
}

impl Exchange {
    /// HELLO. It is looked at again, from its start, whenever a step has waited.
    pub(super) fn hello(&mut self, job: Job, hello: HelloRequest, by: LoginBy) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let protocol = hello.protocol.unwrap_or(client.session.protocol);
        let changes = protocol != client.session.protocol;
        if changes && let Some(waits) = self.wait_for_answers(job) {
            return waits;
        }
        let in_steps = self.takes_hello_in_steps(job);
        let hello = if in_steps { hello } else { hello.at_once() };
        let fine = hello.objection.is_none();
        if fine && !in_steps && !hello.has_login() {
            match self.is_locked_out(job) {
                Ok(false) => {}
                Ok(true) => return self.refuse_hello(job),
                Err(placed) => return placed,
            }
        }
        if let Err(placed) = self.hello_steps(job, (&hello.steps, by), protocol) {
            return placed;
        }
        if let Some(text) = &hello.objection {
            self.scratch.clear();
            encode::error_bytes(&mut self.scratch, text);
            return self.answer(job, RequestClass::Session, None);
        }
        if !hello.has_login()
            && let Err(placed) = self.ask_for_hello(job, protocol)
        {
            return placed;
        }
        self.say_hello(job, protocol)
    }

    /// Whether the master does the steps of a HELLO one after the other.
    fn takes_hello_in_steps(&self, job: Job) -> bool {
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        group.is_some_and(|group| {
            let protocols = [Protocol::Resp2, Protocol::Resp3];
            let facts = protocols.iter().find_map(|it| group.hello(*it));
            facts.is_some_and(HelloFacts::takes_hello_in_steps)
        })
    }

    /// Whether the nodes demand a login that the client does not have. An `Err`: that is not known
    /// yet.
    fn is_locked_out(&mut self, job: Job) -> Result<bool, Placed> {
        let admitted = |it: &Client| it.admitted || it.session.is_logged_in();
        if self.clients.get(job.key).is_some_and(admitted) {
            return Ok(false);
        }
        if let Some(placed) = self.knock(job) {
            return Err(placed);
        }
        let client = self.clients.get(job.key).ok_or(Placed::Answered)?;
        let group = self.groups.get(client.group);
        let wanted = group.is_some_and(|group| group.wants_login_now(job.now));
        Ok(!client.admitted && wanted)
    }

    /// In the words of the node, which differ between servers.
    fn refuse_hello(&mut self, job: Job) -> Placed {
        self.forget_verdict(job.key);
        let reject = Reject::Redis(HELLO_NOAUTH);
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        match group.and_then(|group| group.hello_objection.as_deref()) {
            Some(line) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(line);
                self.answer(job, RequestClass::Session, reject.reason())
            }
            None => self.reject(job, RequestClass::Session, reject),
        }
    }

    /// Does those steps that are not done yet. An `Err` is what became of the request.
    fn hello_steps(
        &mut self,
        job: Job,
        (steps, by): (&[HelloStep], LoginBy),
        protocol: Protocol,
    ) -> Result<(), Placed> {
        let client = self.clients.get(job.key).ok_or(Placed::Answered)?;
        let seq = job.again.map_or(client.replies.next(), |again| again.seq);
        let done = if client.hello.seq == seq {
            client.hello.steps
        } else {
            0
        };
        for (step, at) in steps.iter().zip(1_u32..) {
            match step {
                _ if at <= done => {}
                HelloStep::Name(name) => {
                    let client = self.clients.get_mut(job.key).ok_or(Placed::Answered)?;
                    let named = client.session.set_name(name);
                    named.map_err(|text| {
                        self.reject(job, RequestClass::Session, Reject::Redis(text))
                    })?;
                }
                HelloStep::Login(login) => {
                    match self.prove(job, (login, by), protocol) {
                        Proof::Settled(placed) => return Err(placed),
                        Proof::Given(link) => self.adopt(job, link, login),
                    }
                    let client = self.clients.get_mut(job.key).ok_or(Placed::Answered)?;
                    // What it hears with this login may have taken a number of its own.
                    let next = client.replies.next();
                    let seq = job.again.map_or(next, |again| again.seq);
                    client.hello = Done { seq, steps: at };
                }
            }
        }
        Ok(())
    }

    /// Asks the master whether it speaks the protocol. An `Err` is what became of the request.
    fn ask_for_hello(&mut self, job: Job, protocol: Protocol) -> Result<(), Placed> {
        if self.is_locked_out(job)? {
            return Err(self.refuse_hello(job));
        }
        let client = self.clients.get(job.key).ok_or(Placed::Answered)?;
        let (identity, database) = (client.session.identity, client.session.database);
        match self.ask(job, identity, (database, protocol)) {
            Proof::Given(_link) => Ok(()),
            Proof::Settled(placed) => Err(placed),
        }
    }

    /// The master agrees: the client speaks the protocol from now on.
    fn say_hello(&mut self, job: Job, protocol: Protocol) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        self.scratch.clear();
        let facts = self
            .groups
            .get(client.group)
            .and_then(|group| group.hello(protocol));
        match facts {
            Some(facts) => {
                client.session.protocol = protocol;
                client.forget_lanes();
                let role = client.access.role();
                facts.write(&mut self.scratch, (protocol, role), client.session.id);
            }
            // A server before Redis 6.0, which speaks RESP2 and does not know the command.
            None => encode::error(&mut self.scratch, "ERR unknown command 'HELLO'"),
        }
        self.answer(job, RequestClass::Session, None)
    }
}
