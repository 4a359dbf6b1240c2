//! Floor 2. Asks nodes how far they are, for what reads need: a task for the group that owns the
//! `consistency` sampler, and an asker for each node with a connection of its own. None of them
//! waits for the topology machine, or makes it wait. Decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Pipeline;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info_span;

use crate::consistency::{Ask, Failure, Sampler, Stamps, Told, View};
use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::settings::Settings;
use crate::sentinel::words::{info, refusal, replication};
use crate::tasks::Tasks;
use crate::topology::Snapshot;
use crate::types::{NodeAddr, Time};

/// Questions that one asker has not begun with. The sampler asks a node once at a time, as master
/// and as replica.
const QUESTIONS_MAX: usize = 2;

/// Answers that may wait; an asker waits for room.
const ANSWERS_MAX: usize = 64;

/// The sampler of one group, and who asks for it.
#[derive(Debug)]
pub(super) struct Sampling {
    sampler: Sampler,
    settings: Settings,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    start: Instant,
    tasks: Tasks,
    askers: HashMap<NodeAddr, mpsc::Sender<Ask>>,
    inbox: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
}

/// A question, and what was answered.
#[derive(Debug)]
struct Answer {
    ask: Ask,
    result: Result<Told, Failure>,
}

impl Sampling {
    /// Nobody asked yet. `snapshots` is what workers follow, too.
    pub(super) fn new(
        (settings, stamps): (Settings, Arc<Stamps>),
        snapshots: watch::Receiver<Arc<Snapshot>>,
        start: Instant,
        tasks: &Tasks,
    ) -> Self {
        let (inbox, answers) = mpsc::channel(ANSWERS_MAX);
        Self {
            sampler: Sampler::new(stamps, settings.settle_interval),
            settings,
            snapshots,
            start,
            tasks: tasks.clone(),
            askers: HashMap::new(),
            inbox,
            answers,
        }
    }

    /// Runs until the tasks are asked to stop.
    pub(super) async fn run(mut self) {
        let tasks = self.tasks.clone();
        loop {
            let wait = self.sampler.poll_timeout().since(self.now());
            // The stop first. An answer settles something; the next round can wait for it.
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                Some(answer) = self.answers.recv() => self.take(answer),
                () = sleep(wait.max(TIMER_STEP)) => self.begin_round(),
            }
            while let Some(ask) = self.sampler.poll_ask() {
                self.ask(ask);
            }
        }
    }

    fn begin_round(&mut self) {
        let now = self.now();
        let snapshots = &self.snapshots;
        self.sampler
            .handle_timeout(now, || view(&snapshots.borrow()));
        let sampler = &self.sampler;
        self.askers.retain(|node, _| sampler.knows(node));
    }

    fn take(&mut self, answer: Answer) {
        let now = self.now();
        match answer.ask {
            Ask::Master { generation, .. } => {
                self.sampler.handle_master(now, generation, answer.result);
            }
            Ask::Replica {
                node, incarnation, ..
            } => self
                .sampler
                .handle_replica(&node, incarnation, answer.result),
        }
    }

    fn ask(&mut self, ask: Ask) {
        let node = match &ask {
            Ask::Master { node, .. } | Ask::Replica { node, .. } => node.clone(),
        };
        let questions = self.askers.entry(node.clone()).or_insert_with(|| {
            let (sender, asked) = mpsc::channel(QUESTIONS_MAX);
            let worker = Asker {
                link: None,
                node: node.clone(),
                settings: self.settings.clone(),
                tasks: self.tasks.clone(),
            };
            let (tasks, inbox) = (self.tasks.clone(), self.inbox.clone());
            self.tasks.spawn(info_span!("settling", %node), async move {
                // In this order, so that nothing is asked any more when everything should end.
                tokio::select! {
                    biased;
                    () = tasks.stopping() => {}
                    () = worker.run(asked, inbox) => {}
                }
            });
            sender
        });
        if let Err(mpsc::error::TrySendError::Full(ask) | mpsc::error::TrySendError::Closed(ask)) =
            questions.try_send(ask)
        {
            // What it was to be asked over was not made: the next question needs a new one too.
            let result = Err(Failure::Lost);
            self.take(Answer { ask, result });
        }
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }
}

/// Shortest sleep of a timer.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// What of a picture matters here.
fn view(snapshot: &Snapshot) -> View {
    View {
        master: snapshot.master.clone(),
        replicas: snapshot.replicas.clone(),
    }
}

/// Asks one node, until nobody has questions any more.
#[derive(Debug)]
struct Asker {
    node: NodeAddr,
    link: Option<Link>,
    settings: Settings,
    tasks: Tasks,
}

impl Asker {
    async fn run(mut self, mut asked: mpsc::Receiver<Ask>, answers: mpsc::Sender<Answer>) {
        let mut question = Pipeline::with_capacity(1);
        question.cmd("INFO").arg("replication");
        while let Some(ask) = asked.recv().await {
            let result = self.ask(&ask, &question).await;
            if answers.send(Answer { ask, result }).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&mut self, ask: &Ask, question: &Pipeline) -> Result<Told, Failure> {
        if matches!(ask, Ask::Replica { fresh: true, .. }) {
            self.link = None;
        }
        let link = self.link.get_or_insert_with(|| {
            Link::new(
                self.node.clone(),
                self.settings.node_credentials.clone(),
                self.settings.timings,
                &self.tasks,
            )
        });
        let answers = match ask {
            // What it says of its process is to hold for as long as the connection.
            Ask::Replica { fresh: false, .. } => link.ask_further(question).await,
            Ask::Replica { fresh: true, .. } | Ask::Master { .. } => link.ask(question).await,
        };
        match answers {
            Ok(answers) => {
                let told = answers.first().filter(|told| refusal(told).is_none());
                let fields = told.map(info).ok_or(Failure::Silent)?;
                let is_linked = fields
                    .get("master_link_status")
                    .is_some_and(|state| state == "up");
                Ok(Told {
                    replication: replication(&fields),
                    is_linked,
                })
            }
            Err(LinkError::Silent(_)) => Err(Failure::Silent),
            Err(LinkError::Connect(_) | LinkError::LogIn(_) | LinkError::Lost(_)) => {
                Err(Failure::Lost)
            }
        }
    }
}
