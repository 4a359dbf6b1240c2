//! Floor 4. Tests: What a master that was demoted without a kill refuses on clients' own links.

use super::*;

const READONLY: &str = "-READONLY You can't write against a read only replica.";
const ABORTED: &str = "-EXECABORT Transaction discarded because of: READONLY You can't write \
    against a read only replica.";

/// A client with an open transaction of one queued INCR.
fn begun(world: &mut World) -> ClientKey {
    let client = world.client();
    world.send(client, &["MULTI", "INCR a"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    assert_eq!(world.heard(client), "+OK|+QUEUED|");
    client
}

#[test]
fn a_command_that_is_not_queued_has_its_transaction_begun_anew() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["INCR b"]);
    world.answer("m", "INCR b", READONLY);
    assert_eq!(world.reports, [ReportKind::Demoted { node: addr("m") }]);
    world.switching();
    world.switch_to("r1", &["m"]);
    world.answer("r1", "MULTI", "+OK");
    world.answer("r1", "INCR a", "+QUEUED");
    world.answer("r1", "INCR b", "+QUEUED");
    world.send(client, &["EXEC"]);
    world.answer("r1", "EXEC", "*2|:1|:1");
    assert_eq!(world.heard(client), "+QUEUED|*2|:1|:1|");
    world.assert_calm();
}

#[test]
fn a_transaction_that_a_demoted_master_discards_is_executed_by_the_next() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", ABORTED);
    world.switching();
    world.switch_to("r1", &["m"]);
    world.answer("r1", "MULTI", "+OK");
    world.answer("r1", "INCR a", "+QUEUED");
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "*1|:1|");
    world.assert_calm();
}

#[test]
fn a_discarded_transaction_that_cannot_be_begun_anew_has_the_servers_words() {
    let mut world = World::new();
    let watching = world.client();
    world.send(watching, &["WATCH w", "MULTI", "INCR a"]);
    world.answer("m", "WATCH w", "+OK");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.send(watching, &["EXEC"]);
    world.answer("m", "EXEC", ABORTED);
    assert_eq!(world.heard(watching), format!("+OK|+OK|+QUEUED|{ABORTED}|"));
    let hasty = begun(&mut world);
    world.send(hasty, &["EXEC", "MULTI"]);
    world.answer("m", "EXEC", ABORTED);
    assert_eq!(
        world.heard(hasty),
        format!("{ABORTED}|"),
        "another came behind it"
    );
    world.answer("m", "MULTI", "+OK");
    world.send(hasty, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    world.assert_calm();
}

#[test]
fn a_pop_and_a_watched_write_that_are_refused_go_to_the_next_master() {
    let mut world = World::new();
    let (popper, watching) = (world.client(), world.client());
    world.send(popper, &["BLPOP q 0"]);
    world.send(watching, &["WATCH w"]);
    world.answer("m", "WATCH w", "+OK");
    world.send(watching, &["SET a 1"]);
    world.answer("m", "BLPOP q 0", READONLY);
    world.answer("m", "SET a 1", READONLY);
    world.switching();
    world.switch_to("r1", &["m"]);
    world.answer("r1", "BLPOP q 0", "*2|$1|q|$1|x");
    world.answer("r1", "SET a 1", "+OK");
    assert_eq!(world.heard(popper), "*2|$1|q|$1|x|");
    assert_eq!(world.heard(watching), "+OK|+OK|");
    world.send(popper, &["CONFIG SET x 1"]);
    world.answer("r1", "CONFIG SET x 1", READONLY);
    assert_eq!(
        world.heard(popper),
        format!("{READONLY}|"),
        "never sent twice"
    );
}

#[test]
fn a_transaction_that_the_next_master_refuses_too_has_its_words() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["INCR b"]);
    world.answer("m", "INCR b", READONLY);
    world.pass(ms(100));
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.answer("m", "INCR b", READONLY);
    assert_eq!(world.heard(client), format!("{READONLY}|"));
    world.send(client, &["EXEC"]);
    world.pass(ms(100));
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    world.answer("m", "EXEC", aborted);
    assert_eq!(world.heard(client), format!("{aborted}|"));
    world.assert_calm();
}
