//! CLIENT LIST, KILL and UNBLOCK: of all clients of one Switchman, whichever worker has them.

use switchman::demo::client::{Client, Reply};
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, error, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::all_but_client_kill;

/// Clients, so many that several workers have some.
const CLIENTS: usize = 16;

fn started(lab: &Lab) -> Proxy {
    let mut launch = Launch::group(lab, "");
    launch.env("SWITCHMAN_WORKERS", "4");
    let proxy = launch.start();
    proxy.wait_ready();
    proxy
}

/// What stands behind `name=` in each line.
fn named(list: &Reply) -> Vec<String> {
    let text = list.text().unwrap_or_default();
    let name = |line: &str| {
        let mut words = line.split(' ');
        let name = words.find_map(|word| word.strip_prefix("name="));
        name.map(str::to_owned)
    };
    text.lines().filter_map(name).collect()
}

fn id(client: &mut Client) -> String {
    say(client, &["CLIENT", "ID"]).int().unwrap().to_string()
}

#[test]
fn clients_are_listed_and_killed_whichever_worker_has_them() {
    let lab = Lab::small();
    let proxy = started(&lab);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        ok(client, &["CLIENT", "SETNAME", &format!("c{at}")]);
    }
    let want: Vec<String> = (0..CLIENTS).map(|at| format!("c{at}")).collect();
    for client in &mut clients {
        assert_eq!(named(&say(client, &["CLIENT", "LIST"])), want);
    }
    let addr = clients[3].local_addr().unwrap().to_string();
    let line = say(&mut clients[3], &["CLIENT", "INFO"]).text().unwrap();
    assert!(line.contains(&format!(" addr={addr} ")), "{line}");
    let last = id(&mut clients[CLIENTS - 1]);
    let killed = say(&mut clients[0], &["CLIENT", "KILL", "ID", &last]);
    assert_eq!(killed, Reply::Int(1));
    ok(&mut clients[0], &["CLIENT", "KILL", &addr]);
    for at in [3, CLIENTS - 1] {
        assert!(clients[at].command(&["PING"]).is_err(), "c{at} is closed");
    }
    let gone = error("ERR No such client");
    assert_eq!(say(&mut clients[0], &["CLIENT", "KILL", &addr]), gone);
    let left = named(&say(&mut clients[0], &["CLIENT", "LIST"]));
    assert_eq!(left.len(), CLIENTS - 2);
    let words = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"];
    let all = i64::try_from(CLIENTS - 2).unwrap();
    assert_eq!(say(&mut clients[0], &words), Reply::Int(all));
    assert!(clients[0].command(&["PING"]).is_err(), "itself too");
}

#[test]
fn who_waits_is_unblocked_whichever_worker_has_it() {
    let lab = Lab::small();
    let proxy = started(&lab);
    let mut asker = proxy.client();
    let mut waiting: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    let ids: Vec<String> = waiting.iter_mut().map(id).collect();
    for client in &mut waiting {
        client.send(&["BLPOP", "nothing", "0"]).unwrap();
    }
    let reason = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
    for (id, client) in ids.iter().zip(&mut waiting) {
        let unblock = ["CLIENT", "UNBLOCK", id, "ERROR"];
        let done = wait_for(SOON, || {
            (say(&mut asker, &unblock) == Reply::Int(1)).then_some(())
        });
        assert!(done.is_some(), "{id} never waits");
        assert_eq!(client.receive().unwrap(), error(reason));
        assert_eq!(say(&mut asker, &unblock), Reply::Int(0));
    }
    waiting[0].send(&["BLPOP", "nothing", "0"]).unwrap();
    let done = wait_for(SOON, || {
        let unblocked = say(&mut asker, &["CLIENT", "UNBLOCK", &ids[0]]);
        (unblocked == Reply::Int(1)).then_some(())
    });
    assert!(done.is_some(), "it never waits");
    assert_eq!(waiting[0].receive().unwrap(), Reply::NullArray);
    ok(&mut waiting[0], &["SET", "k", "v"]);
}

#[test]
fn who_may_not_use_them_hears_what_redis_says() {
    let lab = Lab::small();
    let proxy = started(&lab);
    let mut client = proxy.client();
    let mut user = vec!["ACL", "SETUSER", "meek", "on", ">x", "~*"];
    user.extend(all_but_client_kill().split(' '));
    ok(&mut client, &user);
    let mut meek = proxy.client();
    ok(&mut meek, &["AUTH", "meek", "x"]);
    let other = id(&mut client);
    let told = say(&mut meek, &["CLIENT", "KILL", "ID", &other]);
    assert!(told.error().unwrap().starts_with("NOPERM "), "{told:?}");
    assert_eq!(named(&say(&mut meek, &["CLIENT", "LIST"])).len(), 2);
    assert_eq!(
        say(&mut client, &["CLIENT", "KILL", "USER", "meek"]),
        Reply::Int(1)
    );
    assert!(meek.command(&["PING"]).is_err());
}

#[test]
fn the_clients_of_a_deleted_user_are_closed_whichever_worker_has_them() {
    let lab = Lab::small();
    let proxy = started(&lab);
    let mut admin = proxy.client();
    for end in [&[&["ACL", "DELUSER", "gone"][..]][..], &TRANSACTION] {
        for user in ["gone", "stays"] {
            let rights = ["ACL", "SETUSER", user, "on", ">x", "~*", "+@all"];
            ok(&mut admin, &rights);
        }
        let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
        for client in &mut clients {
            ok(client, &["AUTH", "gone", "x"]);
        }
        let mut other = proxy.client();
        ok(&mut other, &["AUTH", "stays", "x"]);
        for line in end {
            say(&mut admin, line);
        }
        for client in &mut clients {
            // No node is asked about it, nor about a login that there is again.
            assert!(client.command(&["RESET"]).is_err(), "{end:?}");
        }
        let who = say(&mut other, &["ACL", "WHOAMI"]);
        assert_eq!(who.text().unwrap(), "stays");
    }
}

/// The user is made again before anything else can be asked.
const TRANSACTION: [&[&str]; 4] = [
    &["MULTI"],
    &["ACL", "DELUSER", "gone"],
    &["ACL", "SETUSER", "gone", "on", ">x", "~*", "+@all"],
    &["EXEC"],
];

/// What `INFO` says of how many clients there are, if anything.
fn connected(client: &mut Client, sections: &[&str]) -> Option<usize> {
    let info = say(client, &[&["INFO"], sections].concat());
    let text = info.text().unwrap_or_default();
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("connected_clients:"))?;
    count.parse().ok()
}

#[test]
fn info_counts_the_clients_of_all_workers_as_client_list_does() {
    let lab = Lab::small();
    let proxy = started(&lab);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for client in &mut clients {
        assert_eq!(say(client, &["GET", "nosuch"]), Reply::Null);
    }
    let mut one = clients.remove(0);
    assert_eq!(connected(&mut one, &["clients"]), Some(CLIENTS));
    assert_eq!(connected(&mut one, &[]), Some(CLIENTS));
    assert_eq!(connected(&mut one, &["memory"]), None);
    let list = say(&mut one, &["CLIENT", "LIST"]);
    assert_eq!(named(&list).len(), CLIENTS);
    drop(clients);
    let gone = wait_for(SOON, || {
        (connected(&mut one, &["clients"]) == Some(1)).then_some(())
    });
    assert!(gone.is_some());
}
