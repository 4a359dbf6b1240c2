//! Floor 2. The tasks around the machine: one subscriber and one asker for each Sentinel, one asker
//! for each node, and passing ones. Knows how they begin and end, and nothing of when.

use std::future::Future;
use std::net::IpAddr;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;
use tracing::Span;
use tracing::info_span;

use crate::fence;
use crate::net;
use crate::sentinel::commands::CommandsReader;
use crate::sentinel::fencing;
use crate::sentinel::link::Link;
use crate::sentinel::orders;
use crate::sentinel::probe::Probe;
use crate::sentinel::round::Round;
use crate::sentinel::settings::{Settings, Source};
use crate::sentinel::subscriber::Subscriber;
use crate::switchover::{Answer, Failure, Question};
use crate::tasks::Tasks;
use crate::topology::{NodeAnswer, NodeFailure, SentinelFailure, Subscription, View};
use crate::types::{Credentials, NodeAddr};

/// Something for the machine, from one of the tasks.
#[derive(Debug)]
pub(super) enum Input {
    /// A Sentinel published something.
    Event {
        from: NodeAddr,
        channel: String,
        payload: String,
    },
    /// A subscription changed.
    Subscription { from: NodeAddr, state: Subscription },
    /// A Sentinel was asked.
    View {
        from: NodeAddr,
        result: Result<View, SentinelFailure>,
    },
    /// A node was asked.
    Node {
        from: NodeAddr,
        result: Result<NodeAnswer, NodeFailure>,
    },
    /// A connection to a node has ended.
    NodeLost { from: NodeAddr },
    /// A name was looked up.
    Resolved { host: String, ips: Vec<IpAddr> },
    /// An order of a planned failover was carried out, or not, over this link.
    Ordered {
        link: Box<Link>,
        question: Question,
        result: Result<Answer, Failure>,
    },
    /// A node was asked to end connections, over this link.
    Fenced {
        link: Box<Link>,
        question: fence::Question,
        result: Result<fence::Answer, fence::Failure>,
    },
}

/// Begins tasks.
#[derive(Debug)]
pub(super) struct Staff {
    settings: Settings,
    tasks: Tasks,
    inbox: mpsc::Sender<Input>,
}

/// The tasks of one peer; they end with this.
#[derive(Debug)]
pub(super) struct Peer {
    questions: mpsc::Sender<()>,
    end: CancellationToken,
    _guard: DropGuard,
}

impl Peer {
    /// Asks the peer's asker to ask.
    ///
    /// There is room for one question. One that finds none was asked before and has not been
    /// answered in all this time: the machine takes it for lost and comes again.
    pub(super) fn ask(&self) {
        let _ = self.questions.try_send(());
    }
}

impl Staff {
    /// Tasks for the group of `settings`, which tell `inbox`.
    pub(super) fn new(settings: Settings, tasks: &Tasks, inbox: mpsc::Sender<Input>) -> Self {
        Self {
            settings,
            tasks: tasks.clone(),
            inbox,
        }
    }

    /// A subscriber and an asker for `sentinel`.
    pub(super) fn sentinel(&self, sentinel: &NodeAddr) -> Peer {
        let credentials = self.sentinel_credentials();
        let link = self.link(sentinel, credentials.clone());
        let mut round = Round::new(link, self.settings.master_name.clone());
        let (peer, mut asked) = peer();
        let (inbox, from) = (self.inbox.clone(), sentinel.clone());
        self.spawn(info_span!("sentinel", %sentinel), &peer.end, async move {
            while let Some(()) = asked.recv().await {
                let input = Input::View {
                    from: from.clone(),
                    result: round.ask().await,
                };
                if inbox.send(input).await.is_err() {
                    return;
                }
            }
        });
        let subscriber = Subscriber {
            sentinel: sentinel.clone(),
            credentials,
            timings: self.settings.timings,
            inputs: self.inbox.clone(),
        };
        self.spawn(
            info_span!("subscription", %sentinel),
            &peer.end,
            subscriber.run(),
        );
        peer
    }

    /// An asker for `node`.
    pub(super) fn node(&self, node: &NodeAddr) -> Peer {
        let link = self.node_link(node);
        let ended = link.ended();
        let mut probe = Probe::new(link);
        let (peer, mut asked) = peer();
        let (inbox, from) = (self.inbox.clone(), node.clone());
        self.spawn(info_span!("node", %node), &peer.end, async move {
            loop {
                // A question first: its answer says more than the end of the last connection.
                let input = tokio::select! {
                    biased;
                    asked = asked.recv() => match asked {
                        Some(()) => Input::Node { from: from.clone(), result: probe.ask().await },
                        None => return,
                    },
                    () = ended.notified() => Input::NodeLost { from: from.clone() },
                };
                if inbox.send(input).await.is_err() {
                    return;
                }
            }
        });
        peer
    }

    /// Looks `host` up once.
    pub(super) fn resolve(&self, host: String) {
        let limit = self.settings.timings.connect;
        let inbox = self.inbox.clone();
        let span = info_span!("resolve", host);
        self.spawn(span, &CancellationToken::new(), async move {
            let ips = net::resolve(&host, limit).await;
            // Nobody waits for it any more when the driver has ended.
            let _ = inbox.send(Input::Resolved { host, ips }).await;
        });
    }

    /// Reads the commands of a new master, while it is that.
    pub(super) fn read_commands(&self, master: &NodeAddr, reader: CommandsReader) {
        let link = self.node_link(master);
        let span = info_span!("commands", %master);
        self.spawn(
            span,
            &CancellationToken::new(),
            reader.run(link, master.clone()),
        );
    }

    /// Carries out one order of a planned failover, over `kept` if there is one.
    pub(super) fn order(&self, question: Question, kept: Option<Box<Link>>) {
        let mut link = self.order_link(&question, kept);
        let name = self.settings.master_name.clone();
        let inbox = self.inbox.clone();
        let span = info_span!("switchover", peer = %orders::peer(&question));
        self.spawn(span, &CancellationToken::new(), async move {
            let result = orders::perform(&mut link, &question, &name).await;
            let input = Input::Ordered {
                link,
                question,
                result,
            };
            // Nobody waits for it any more when the driver has ended.
            let _ = inbox.send(input).await;
        });
    }

    /// Asks a node about connections to be ended, over `kept` if there is one.
    pub(super) fn fence(&self, question: fence::Question, kept: Option<Box<Link>>) {
        let node = fencing::peer(&question);
        let mut link = kept.unwrap_or_else(|| Box::new(self.node_link(node)));
        let inbox = self.inbox.clone();
        let span = info_span!("fence", %node);
        self.spawn(span, &CancellationToken::new(), async move {
            let result = fencing::perform(&mut link, &question).await;
            let input = Input::Fenced {
                link,
                question,
                result,
            };
            // Nobody waits for it any more when the driver has ended.
            let _ = inbox.send(input).await;
        });
    }

    /// Carries out an order at once, for one that must not be put off until everything has stopped.
    ///
    /// # Cancel safety
    /// Dropping this future may leave the order carried out or not.
    pub(super) async fn order_now(
        &self,
        question: &Question,
        kept: Option<Box<Link>>,
    ) -> Result<Answer, Failure> {
        let mut link = self.order_link(question, kept);
        orders::perform(&mut link, question, &self.settings.master_name).await
    }

    fn order_link(&self, question: &Question, kept: Option<Box<Link>>) -> Box<Link> {
        kept.unwrap_or_else(|| {
            Box::new(match question {
                Question::Failover { sentinel } => self.sentinel_link(sentinel),
                other => self.node_link(orders::peer(other)),
            })
        })
    }

    fn sentinel_link(&self, sentinel: &NodeAddr) -> Link {
        self.link(sentinel, self.sentinel_credentials())
    }

    fn sentinel_credentials(&self) -> Option<Credentials> {
        match &self.settings.source {
            Source::Sentinels { credentials, .. } => credentials.clone(),
            Source::Static { .. } => None,
        }
    }

    fn node_link(&self, node: &NodeAddr) -> Link {
        self.link(node, self.settings.node_credentials.clone())
    }

    fn link(&self, addr: &NodeAddr, credentials: Option<Credentials>) -> Link {
        Link::new(
            addr.clone(),
            credentials,
            self.settings.timings,
            &self.tasks,
        )
    }

    /// Runs `work` until it ends, its peer is dropped, or everything stops.
    fn spawn<F>(&self, span: Span, end: &CancellationToken, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (tasks, end) = (self.tasks.clone(), end.clone());
        self.tasks.spawn(span, async move {
            // In this order, so that nothing begins any more when it should end.
            tokio::select! {
                biased;
                () = tasks.stopping() => {}
                () = end.cancelled() => {}
                () = work => {}
            }
        });
    }
}

fn peer() -> (Peer, mpsc::Receiver<()>) {
    let (questions, asked) = mpsc::channel(1);
    let end = CancellationToken::new();
    let guard = end.clone().drop_guard();
    (
        Peer {
            questions,
            end,
            _guard: guard,
        },
        asked,
    )
}
