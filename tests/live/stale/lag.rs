//! What all of this stands on: a front delays replication, and nothing else.

use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;

use crate::faults::{Fault, Fronted, NODES};
use crate::lab::{SOON, ok, say};

const LAG: Duration = Duration::from_millis(500);

#[test]
fn a_front_delays_the_replication_stream_and_nothing_else() {
    let lab = Fronted::start(Plan::default());
    let mut client = Client::connect(lab.front(0).addr(), SOON).unwrap();
    let mut write = |value: &str| {
        let began = Instant::now();
        ok(&mut client, &["SET", "k", value]);
        let answered = began.elapsed();
        assert_eq!(say(&mut client, &["WAIT", "1", "5000"]), Reply::Int(1));
        (answered, began.elapsed())
    };
    // The second write is not behind what the first one left on its way.
    for (lag, value) in [(LAG, "a"), (LAG, "b"), (Duration::ZERO, "c")] {
        lab.front(0).set(NODES, Fault::lag(lag));
        let (answered, replicated) = write(value);
        println!("{lag:?}: answered after {answered:?}, replicated after {replicated:?}");
        assert!(answered < LAG, "the master's own reply was delayed");
        assert!(replicated >= lag, "replication was not delayed");
        assert!(replicated < lag + LAG, "replication was delayed by more");
        assert_eq!(
            lab.node(1).command(&["GET", "k"]).unwrap(),
            Reply::bulk(value)
        );
    }
}
