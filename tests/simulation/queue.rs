//! A list on every node, and commands that wait for its elements. All clients mean the same list,
//! whatever number stands in its name.

use crate::book::{Broken, Id, Verb};
use crate::node::READONLY;
use crate::plan::{Micros, ms};
use crate::world::{Event, Mutation, World};

/// What a node says to who waits when it becomes a replica (blocked.c,
/// `disconnectOrRedirectAllBlockedClients`).
const UNBLOCKED: &str = "-UNBLOCKED force unblock from blocking operation, instance state changed \
                         (master -> replica?)\r\n";

/// By how much a time may be rounded.
const ROUNDED: Micros = ms(1);

impl World {
    /// The node executes BLPOP: what it says, if it says something now.
    pub(crate) fn pop(&mut self, conn: usize, id: Id, timeout: Micros) -> String {
        let node = self.conns[conn].node;
        if self.nodes[node].follows.is_some() {
            self.book.commands[id].disowned = true;
            return READONLY.to_owned();
        }
        let command = self.book.commands[id];
        let anew = self.mutation == Some(Mutation::Anew) && command.waited > 0;
        let timeout = if anew { command.timeout } else { timeout };
        if timeout == 0 || command.waited + timeout > command.timeout + ROUNDED {
            self.book.broke(Broken::Wait, || {
                format!(
                    "{id} waits for {timeout} us, and has waited for {} of {} before",
                    command.waited, command.timeout
                )
            });
        }
        if let Some(reply) = self.take(node, id) {
            return reply;
        }
        self.book.commands[id].blocked_at = self.now;
        self.conns[conn].blocked = Some(id);
        self.nodes[node].blocked.push_back((conn, id));
        let impatient = self.mutation == Some(Mutation::Impatient);
        let wait = if impatient { timeout / 2 } else { timeout };
        self.later(wait, Event::Overdue(conn, id));
        String::new()
    }

    /// The first element of the list goes to a command, if there is one.
    fn take(&mut self, node: usize, id: Id) -> Option<String> {
        let element = self.nodes[node].list.pop_front()?;
        self.book.executed(id, node);
        self.book.commands[id].element = Some(element);
        self.record(node, id);
        Some(format!("*2\r\n+q\r\n+E{element}#{id}\r\n"))
    }

    /// Elements go to those who have waited longest.
    pub(crate) fn serve(&mut self, node: usize) {
        while let Some((conn, id)) = self.nodes[node].blocked.front().copied()
            && let Some(reply) = self.take(node, id)
        {
            self.end_block(conn, id, &reply);
        }
    }

    /// A command that waits is answered.
    fn end_block(&mut self, conn: usize, id: Id, reply: &str) {
        let command = &mut self.book.commands[id];
        command.waited += self.now - command.blocked_at;
        let node = self.conns[conn].node;
        self.nodes[node].blocked.retain(|(other, _)| *other != conn);
        let wire = &mut self.conns[conn];
        wire.blocked = None;
        if !wire.ends {
            wire.down.extend_from_slice(reply.as_bytes());
        }
        self.deliver_later(conn);
        self.arrive_later(conn);
    }

    /// A command has waited for as long as it wanted to.
    pub(crate) fn overdue(&mut self, conn: usize, id: Id) {
        if self.conns[conn].blocked != Some(id) {
            return;
        }
        if self.nodes[self.conns[conn].node].is_up() {
            self.end_block(conn, id, "*-1\r\n");
        } else {
            self.later(ms(20), Event::Overdue(conn, id));
        }
    }

    /// The node is no master any more: who waits is told so, and hung up on. It reads nothing more
    /// from there.
    pub(crate) fn unblock_all(&mut self, node: usize) {
        for (conn, id) in std::mem::take(&mut self.nodes[node].blocked) {
            self.book.commands[id].disowned = true;
            self.end_block(conn, id, UNBLOCKED);
            let wire = &mut self.conns[conn];
            wire.theirs = false;
            wire.unread = true;
            wire.ends = true;
            self.arrive(conn);
            self.deliver_later(conn);
        }
    }

    /// The node has noticed that a connection was closed: nobody waits there any more.
    pub(crate) fn gone(&mut self, conn: usize) {
        let node = self.conns[conn].node;
        let wire = &mut self.conns[conn];
        wire.channels = 0;
        let reached = self.nodes[node].is_up() && !self.nodes[node].cut_off;
        if reached && self.conns[conn].blocked.take().is_some() {
            self.nodes[node].blocked.retain(|(other, _)| *other != conn);
            self.conns[conn].up.clear();
        }
    }

    /// What the stream of a master does to the list of a replica.
    pub(crate) fn replay(&mut self, node: usize, ids: &[Id]) {
        for id in ids {
            let command = self.book.commands[*id];
            let list = &mut self.nodes[node].list;
            match (command.verb, command.element) {
                (Verb::Push, _) => list.push_back(*id),
                (Verb::Pop, Some(element)) => list.retain(|other| *other != element),
                _ => {}
            }
        }
    }
}
