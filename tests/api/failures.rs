//! What goes wrong, what the user then sees, and what stays: outages, losses, old backups, deletions that are none,
//! wrong credentials, garbage. Each test has a ClusterSet of its own to break.

use std::process::Command;
use std::time::{Duration, Instant};

use mcs_tests::client::{Change, Follow, Kind};
use mcs_tests::mcs::{Controller, init_broker, join_arguments};
use mcs_tests::{mcs, require_api_server};
use serde_json::{Value, json};

use crate::objects::{addresses, export, label, port, service, with_ports};
use crate::world::{Member, World, imported_slices};
use crate::{QUIET, SOON};

const NAME: &str = "hello";

/// How soon everything is as it should be after an API server or the broker came back. The promise is 10 s; a test machine
/// runs several ClusterSets on two cores.
const CONVERGED: Duration = Duration::from_secs(20);

/// How long a broker is away: a minute where the test may take its time.
fn outage() -> Duration {
    Duration::from_secs(if std::env::var_os("MCS_TEST_FULL").is_some() { 60 } else { 15 })
}

/// What must not happen in a member, whatever happens elsewhere: an import goes or changes its address, or a slice of an
/// import goes.
struct Guard {
    member: String,
    imports: Follow,
    slices: Follow,
    ips: Vec<(String, Value)>,
}

impl Guard {
    fn begin(member: &Member, namespace: &str) -> Self {
        let follow = |kind| {
            let mut follow = member.client.follow(kind, namespace).unwrap();
            follow.until(SOON, "listed", |_| true).unwrap();
            follow
        };
        let (imports, slices) = (follow(Kind::IMPORT), follow(Kind::SLICE));
        let ips = imports.objects().map(|import| (name(import), import["spec"]["ips"].clone())).collect();
        Self { member: member.id.clone(), imports, slices, ips }
    }

    /// Looks at all that happened, and at what happens for a time more.
    fn check(&mut self, time: Duration) {
        let Self { member, imports, slices, ips } = self;
        let kept = |_: &[&Value], change: &Change| match change {
            Change::Deleted(_) => false,
            Change::Put(import) => {
                ips.iter().all(|(name_before, ips)| *name_before != name(import) || *ips == import["spec"]["ips"])
            }
            Change::Listed => true,
        };
        let here = |error| panic!("at {member}: {error:#}");
        imports.always(time, "imports and their addresses stay", kept).unwrap_or_else(here);
        let kept = |_: &[&Value], change: &Change| match change {
            Change::Deleted(slice) => label(slice, "multicluster.kubernetes.io/service-name").is_none(),
            Change::Put(_) | Change::Listed => true,
        };
        slices.always(Duration::ZERO, "imported slices stay", kept).unwrap_or_else(here);
    }
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

fn addressed(import: &Value) -> bool {
    import["spec"]["ips"].as_array().is_some_and(|ips| ips.len() == 2)
}

/// Waits until what a member's controller says of itself is as it should be.
fn status(member: &Member, what: &str, done: impl Fn(&Value) -> bool) -> Value {
    let read = |map: Option<&Value>| -> Option<Value> { serde_json::from_str(map?["data"]["status"].as_str()?).ok() };
    let map = member.client.wait((Kind::CONFIG_MAP, "mcs-system", "mcs-status"), SOON, what, |map| {
        read(map).is_some_and(|status| done(&status["report"]))
    });
    let map = map.unwrap_or_else(|error| panic!("status of {}: {error:#}", member.id));
    read(map.as_ref()).unwrap()
}

/// Two members and a service that the first exports with endpoints 1 and 2.
fn exporting() -> (World, String, Value, Vec<String>) {
    let world = World::start(2).unwrap();
    let namespace = world.namespace();
    let (a, service) = (&world.members[0], service(&namespace, NAME));
    a.export(&namespace, &service);
    let endpoints = a.endpoints(&namespace, &service, &[1, 2]);
    for member in &world.members {
        member.imported(&namespace, NAME, &endpoints);
        member.import(&namespace, NAME, "addressed", addressed);
    }
    (world, namespace, service, endpoints)
}

#[test]
fn the_broker_is_away_and_comes_back() {
    require_api_server!();
    let (world, namespace, service, endpoints) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let mut guards = [Guard::begin(a, &namespace), Guard::begin(b, &namespace)];
    world.broker.kill();
    let away = Instant::now();
    // A rollout in the cluster itself needs nobody else.
    let rolled = a.endpoints(&namespace, &service, &[3, 4]);
    a.imported(&namespace, NAME, &rolled);
    status(b, "the broker is away", |report| report["brokerConnected"] == false);
    for guard in &mut guards {
        guard.check(outage().saturating_sub(away.elapsed()));
    }
    b.imported(&namespace, NAME, &endpoints);
    world.broker.restart().unwrap();
    let back = Instant::now();
    b.imported(&namespace, NAME, &rolled);
    assert!(back.elapsed() < CONVERGED, "{:?}", back.elapsed());
    status(b, "the broker is back", |report| report["brokerConnected"] == true);
    for guard in &mut guards {
        guard.check(QUIET);
    }
}

#[test]
fn the_broker_hangs() {
    require_api_server!();
    let (world, namespace, service, _) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let mut guard = Guard::begin(b, &namespace);
    world.broker.pause().unwrap();
    let rolled = a.endpoints(&namespace, &service, &[3, 4]);
    a.imported(&namespace, NAME, &rolled);
    guard.check(outage());
    world.broker.resume().unwrap();
    b.imported(&namespace, NAME, &rolled);
    guard.check(QUIET);
}

#[test]
fn the_broker_lost_everything() {
    require_api_server!();
    let (world, namespace, _, endpoints) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let mut guards = [Guard::begin(a, &namespace), Guard::begin(b, &namespace)];
    world.broker.empty().unwrap();
    for guard in &mut guards {
        guard.check(QUIET);
    }
    // The broker's admin makes it a broker again, and members again of those who were.
    init_broker(&world.broker).unwrap();
    for member in &world.members {
        mcs::run(join_arguments(&member.server, &world.broker, &member.id)).unwrap();
    }
    let import = b.import(&namespace, NAME, "addressed", addressed);
    let mut wanted: Vec<&str> = import["spec"]["ips"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    wanted.sort_unstable();
    let reserved = |all: &[&Value]| {
        let mut found: Vec<&str> = all.iter().filter_map(|held| held["spec"]["address"].as_str()).collect();
        found.sort_unstable();
        found == wanted
    };
    let limit = SOON;
    world.broker_client.wait_all((Kind::RESERVATION, "clusterset-broker"), limit, "reserved again", reserved).unwrap();
    // What is new gets addresses again, once all have theirs.
    let other = service(&namespace, "other");
    b.export(&namespace, &other);
    let new = a.import(&namespace, "other", "addressed", addressed);
    assert_ne!(new["spec"]["ips"], import["spec"]["ips"]);
    for guard in &mut guards {
        guard.check(QUIET);
    }
    b.imported(&namespace, NAME, &endpoints);
}

#[test]
fn the_broker_is_put_back_to_an_old_state() {
    require_api_server!();
    let world = World::start(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    a.export(&namespace, &service(&namespace, "old"));
    b.import(&namespace, "old", "addressed", addressed);
    let backup = world.broker.backup().unwrap();
    let service = service(&namespace, "new");
    a.export(&namespace, &service);
    let endpoints = a.endpoints(&namespace, &service, &[1]);
    b.imported(&namespace, "new", &endpoints);
    b.import(&namespace, "new", "addressed", addressed);
    a.unexport(&namespace, "old");
    b.no_import(&namespace, "old");

    let mut guard = Guard::begin(b, &namespace);
    world.broker.restore(&backup).unwrap();
    // The source still knows: what was withdrawn is withdrawn again, what was exported is written again.
    let record = format!("{namespace}.old");
    let withdrawn = |object: Option<&Value>| object.is_none_or(|record| record["spec"]["withdrawn"] == true);
    world.broker_client.wait((Kind::EXPORT_RECORD, "mcs-a", &record), SOON, "withdrawn", withdrawn).unwrap();
    let record = format!("{namespace}.new");
    let there = |object: Option<&Value>| object.is_some_and(|record| record["spec"]["withdrawn"] != true);
    world.broker_client.wait((Kind::EXPORT_RECORD, "mcs-a", &record), SOON, "there again", there).unwrap();
    b.no_import(&namespace, "old");
    b.imported(&namespace, "new", &endpoints);
    // The old service's import may come and go meanwhile; the new one's may not.
    let Guard { imports, ips, .. } = &mut guard;
    let kept = |_: &[&Value], change: &Change| match change {
        Change::Deleted(import) => name(import) != "new",
        Change::Put(import) => ips.iter().all(|(before, ips)| *before != name(import) || *ips == import["spec"]["ips"]),
        Change::Listed => true,
    };
    imports.always(QUIET, "the new service's import stays", kept).unwrap();
}

/// Real times: a member is dead a minute after its last sign of life.
#[test]
fn a_member_dies_and_comes_back_and_is_revoked() {
    require_api_server!();
    let world = World::start(3).unwrap();
    let namespace = world.namespace();
    let [a, b, c] = [&world.members[0], &world.members[1], &world.members[2]];
    let (both, alone) = (service(&namespace, "both"), service(&namespace, "alone"));
    a.export(&namespace, &both);
    b.export(&namespace, &both);
    b.export(&namespace, &alone);
    let of_a = a.endpoints(&namespace, &both, &[1]);
    let mut of_both = [of_a.clone(), b.endpoints(&namespace, &both, &[1])].concat();
    of_both.sort();
    let of_alone = b.endpoints(&namespace, &alone, &[2]);
    c.imported(&namespace, "both", &of_both);
    c.imported(&namespace, "alone", &of_alone);

    b.controller.kill9();
    let killed = Instant::now();
    let limit = Duration::from_secs(150);
    let mut follow = c.client.follow(Kind::SLICE, &namespace).unwrap();
    let taken_out = |slices: &[&Value]| addresses(imported_slices(slices.iter().copied(), "both")) == of_a;
    follow.until(limit, "the dead member's endpoints leave", taken_out).unwrap();
    assert!(killed.elapsed() > Duration::from_secs(50), "not before it counts as dead: {:?}", killed.elapsed());
    // Nobody else serves this one: it stays, and is shown.
    assert_eq!(addresses(imported_slices(follow.objects(), "alone")), of_alone);
    let report = status(c, "b is dead", |report| report["members"]["b"]["health"] == "dead");
    assert!(report["report"]["stale"].to_string().contains("alone"), "{report}");

    b.controller.restart().unwrap();
    c.imported(&namespace, "both", &of_both);
    status(c, "b is healthy", |report| report["members"]["b"]["health"] == "healthy");

    // Only the broker's admin takes the rest: the member is gone for good.
    let broker = world.broker.kubeconfig().display().to_string();
    mcs::run(["broker", "revoke", "b", "--kubeconfig", &broker]).unwrap();
    c.imported(&namespace, "both", &of_a);
    c.no_import(&namespace, "alone");
}

#[test]
fn the_definition_of_exports_is_deleted() {
    require_api_server!();
    let (world, namespace, _, endpoints) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let crd = a.client.get(Kind::CRD, "", "serviceexports.multicluster.x-k8s.io").unwrap().unwrap();
    let mut guard = Guard::begin(b, &namespace);
    a.client.delete(Kind::CRD, "", "serviceexports.multicluster.x-k8s.io").unwrap();
    status(a, "held", |report| report["held"].as_array().is_some_and(|held| !held.is_empty()));
    guard.check(QUIET);
    b.imported(&namespace, NAME, &endpoints);

    // It comes back, with the exports: nothing was lost, and nothing is held any more.
    let definition = json!({
        "apiVersion": Kind::CRD.api_version, "kind": "CustomResourceDefinition",
        "metadata": {"name": crd["metadata"]["name"], "labels": crd["metadata"]["labels"]}, "spec": crd["spec"],
    });
    a.client.wait((Kind::CRD, "", "serviceexports.multicluster.x-k8s.io"), SOON, "gone", |o| o.is_none()).unwrap();
    a.client.apply(&definition).unwrap();
    let established = |object: Option<&Value>| {
        let found = object.and_then(|crd| mcs_tests::client::condition(crd, "Established"));
        found.is_some_and(|condition| condition["status"] == "True")
    };
    let crd_name = "serviceexports.multicluster.x-k8s.io";
    a.client.wait((Kind::CRD, "", crd_name), SOON, "Established", established).unwrap();
    guard.check(QUIET);
    a.client.apply(&export(&namespace, NAME)).unwrap();
    status(a, "nothing is held", |report| report["held"].as_array().is_none_or(Vec::is_empty));
    a.exported(&namespace, NAME, "Valid", "True");
    guard.check(QUIET);

    // Once more, and this time it was meant: the source's user says so, and nobody else can.
    a.client.delete(Kind::CRD, "", crd_name).unwrap();
    status(a, "held", |report| report["held"].as_array().is_some_and(|held| !held.is_empty()));
    let [of_a, of_b] = [a, b].map(|member| member.server.kubeconfig().display().to_string());
    let said = mcs::fail(["approve-withdrawal", "a", "--kubeconfig", &of_b]).unwrap();
    assert!(said.contains("cluster b"), "{said}");
    guard.check(QUIET);
    mcs::run(["approve-withdrawal", "a", "--kubeconfig", &of_a]).unwrap();
    b.no_import(&namespace, NAME);
    b.imported(&namespace, NAME, &[]);
}

#[test]
fn deleted_one_by_one_everything_goes_and_absent_from_a_list_it_stays() {
    require_api_server!();
    let world = World::start(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let names: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    for name in &names {
        a.export(&namespace, &service(&namespace, name));
    }
    for name in &names {
        b.import(&namespace, name, "addressed", addressed);
    }
    // Deleted while nobody looked: more than half of at least five.
    a.controller.kill9();
    for name in &names[..4] {
        a.unexport(&namespace, name);
    }
    let mut guard = Guard::begin(b, &namespace);
    a.controller.restart().unwrap();
    let report = status(a, "held", |report| report["held"].as_array().is_some_and(|held| held.len() == 4));
    assert!(report["report"]["held"].to_string().contains("4 of 6"), "{report}");
    guard.check(QUIET);
    let shown = mcs::status(&a.server.kubeconfig()).unwrap().to_string();
    assert!(shown.contains("4 of 6"), "{shown}");
    // Two come back by themselves, the others are approved.
    for name in &names[..2] {
        a.client.apply(&export(&namespace, name)).unwrap();
    }
    status(a, "two are held", |report| report["held"].as_array().is_some_and(|held| held.len() == 2));
    mcs::run(["approve-withdrawal", "a", "--kubeconfig", &a.server.kubeconfig().display().to_string()]).unwrap();
    for name in &names[2..4] {
        b.no_import(&namespace, name);
    }
    // On a live watch all may go at once.
    for name in names[..2].iter().chain(&names[4..]) {
        a.unexport(&namespace, name);
    }
    for name in &names {
        b.no_import(&namespace, name);
    }
}

#[test]
fn a_members_own_api_server_is_put_back_to_an_old_state() {
    require_api_server!();
    let world = World::start(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let backup = a.server.backup().unwrap();
    let service = service(&namespace, NAME);
    a.export(&namespace, &service);
    let endpoints = a.endpoints(&namespace, &service, &[1]);
    b.imported(&namespace, NAME, &endpoints);
    b.import(&namespace, NAME, "addressed", addressed);
    // Time goes on, as it does between a backup and its use: an API server that was put back by a few versions only has
    // caught up before anybody looks. What tells is the version at which the export was seen last.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": "time"}});
    a.client.create(&map).unwrap();
    for tick in 0..400 {
        let patch = json!({"data": {"tick": tick.to_string()}});
        a.client.patch(Kind::CONFIG_MAP, &namespace, "time", &patch).unwrap();
    }
    let late = json!({"metadata": {"labels": {"seen": "late"}}});
    a.client.patch(Kind::SERVICE, &namespace, NAME, &late).unwrap();
    for family in ["v4", "v6"] {
        a.client.patch(Kind::SLICE, &namespace, &format!("{NAME}-{family}"), &late).unwrap();
    }
    let patch = json!({"spec": {"exportedLabels": {"seen": "late"}}});
    a.client.patch(Kind::EXPORT, &namespace, NAME, &patch).unwrap();
    b.import(&namespace, NAME, "as it was late", |import| label(import, "seen") == Some("late"));
    let mut guard = Guard::begin(b, &namespace);
    a.server.restore(&backup).unwrap();
    status(a, "held", |report| report["held"].as_array().is_some_and(|held| !held.is_empty()));
    guard.check(QUIET);
    b.imported(&namespace, NAME, &endpoints);
    mcs::run(["approve-withdrawal", "a", "--kubeconfig", &a.server.kubeconfig().display().to_string()]).unwrap();
    b.no_import(&namespace, NAME);
}

#[test]
fn credentials_are_wrong_for_a_while() {
    require_api_server!();
    let (world, namespace, service, _) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let mut guard = Guard::begin(b, &namespace);
    let secret = b.client.get(Kind::SECRET, "mcs-system", "mcs-broker").unwrap().unwrap();
    let token = secret["data"]["token"].clone();
    assert!(token.is_string(), "{}", secret["data"]);
    let wrong = json!({"data": {"token": "d3Jvbmc="}});
    b.client.patch(Kind::SECRET, "mcs-system", "mcs-broker", &wrong).unwrap();
    b.controller.restart().unwrap();
    let said = status(b, "no broker", |report| report["brokerConnected"] == false && report["leader"] == true);
    assert!(said["troubles"].as_object().is_some_and(|troubles| !troubles.is_empty()), "{said}");
    guard.check(QUIET);
    let rolled = a.endpoints(&namespace, &service, &[3]);
    b.client.patch(Kind::SECRET, "mcs-system", "mcs-broker", &json!({"data": {"token": token}})).unwrap();
    b.imported(&namespace, NAME, &rolled);
    guard.check(QUIET);
}

#[test]
fn garbage_at_the_broker_costs_only_itself() {
    require_api_server!();
    let (world, namespace, service, endpoints) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let broker = &world.broker_client;
    let mut guard = Guard::begin(a, &namespace);
    let record = |kind: Kind, name: &str, spec: Value| {
        json!({
            "apiVersion": kind.api_version, "kind": kind.name,
            "metadata": {"namespace": "mcs-b", "name": name}, "spec": spec,
        })
    };
    let exported = |name: &str, version: u32, exported: Value| json!({"version": version, "namespace": namespace, "name": name, "withdrawn": false, "exported": exported});
    let plain = json!({"created": 1, "type": "ClusterSetIP", "ports": [{"name": "p", "protocol": "TCP", "port": 80}]});
    let slice = |name: &str, addresses: &[&str]| {
        let endpoints: Vec<Value> = addresses.iter().map(|address| json!({"address": address})).collect();
        let ports = json!([{"name": "p", "protocol": "TCP", "port": 80}]);
        json!({"version": 1, "namespace": namespace, "name": name,
               "slice": {"family": "IPv4", "ports": ports, "endpoints": endpoints}})
    };
    let (exports, slices) = (Kind::EXPORT_RECORD, Kind::SLICE_RECORD);
    let records = [
        record(exports, &format!("{namespace}.future"), exported("future", 99, plain.clone())),
        record(exports, &format!("{namespace}.misnamed"), exported("othername", 1, plain.clone())),
        record(
            exports,
            &format!("{namespace}.zero"),
            exported("zero", 1, json!({"created": 1, "type": "ClusterSetIP", "ports": [{"port": 0}]})),
        ),
        record(exports, &format!("{namespace}.fine"), exported("fine", 1, plain)),
        record(
            slices,
            &format!("{namespace}.fine.1"),
            slice("fine", &["127.0.0.1", "169.254.1.1", "224.0.0.1", "10.97.0.9", "10.77.0.1"]),
        ),
        record(slices, &format!("{namespace}.nobody.1"), slice("nobody", &["10.77.0.2"])),
    ];
    // The member itself would take away what it did not write.
    b.controller.kill9();
    for record in &records {
        broker.create(record).unwrap();
    }
    // What is good of it is taken, the rest is not.
    a.imported(&namespace, "fine", &["10.77.0.1".to_owned()]);
    for name in ["future", "misnamed", "othername", "nobody"] {
        assert!(a.client.get(Kind::IMPORT, &namespace, name).unwrap().is_none(), "{name}");
    }
    let report = status(a, "problems are shown", |report| {
        let shown = report["problems"].to_string();
        ["future", "misnamed", "zero", "127.0.0.1"].iter().all(|what| shown.contains(what))
    });
    // Of an export with a port that is none, the port is left out.
    assert_eq!(report["report"]["imports"], 3, "{report}");
    assert_eq!(a.import(&namespace, "zero", "there", |_| true)["spec"]["ports"], json!([]));
    guard.check(QUIET);
    a.imported(&namespace, NAME, &endpoints);
    // And what is right afterwards still arrives.
    b.controller.restart().unwrap();
    let rolled = a.endpoints(&namespace, &service, &[7]);
    b.imported(&namespace, NAME, &rolled);
    a.no_import(&namespace, "fine");
}

#[test]
fn records_of_a_member_that_are_deleted_are_written_again() {
    require_api_server!();
    let (world, namespace, _, endpoints) = exporting();
    let b = &world.members[1];
    let mut guard = Guard::begin(b, &namespace);
    let broker = &world.broker_client;
    for kind in [Kind::SLICE_RECORD, Kind::EXPORT_RECORD] {
        for record in broker.list(kind, "mcs-a").unwrap() {
            broker.delete(kind, "mcs-a", &name(&record)).unwrap();
            let new = |object: Option<&Value>| {
                object.is_some_and(|again| again["metadata"]["uid"] != record["metadata"]["uid"])
            };
            broker.wait((kind, "mcs-a", &name(&record)), SOON, "written again", new).unwrap();
        }
    }
    guard.imports.always(QUIET, "the import stays", |_, change| !matches!(change, Change::Deleted(_))).unwrap();
    b.imported(&namespace, NAME, &endpoints);
}

#[test]
fn another_leader_takes_over() {
    require_api_server!();
    let world = World::start_on_a_member(2).unwrap();
    let namespace = world.namespace();
    let [a, b] = [&world.members[0], &world.members[1]];
    let second = Controller::with(&a.server, "second", &[], &[]).unwrap();
    let leader = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let lease = (Kind::LEASE, "mcs-system", "mcs-controller");
    let first_pid = a.controller.pid().unwrap().to_string();
    let held = |lease: Option<&Value>| lease.is_some_and(|lease| leader(lease).contains(&first_pid));
    a.client.wait(lease, SOON, "the first leads", held).unwrap();
    a.export(&namespace, &service(&namespace, "before"));
    b.import(&namespace, "before", "addressed", addressed);

    a.controller.kill9();
    let killed = Instant::now();
    a.export(&namespace, &service(&namespace, "after"));
    b.import(&namespace, "after", "addressed", addressed);
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    let second_pid = second.pid().unwrap().to_string();
    let lease = a.client.get(lease.0, lease.1, lease.2).unwrap().unwrap();
    assert!(leader(&lease).contains(&second_pid), "{lease}");
    // One that is asked to stop does not let others wait.
    a.controller.restart().unwrap();
    let status = second.stop().unwrap();
    assert!(status.success(), "{status}");
    a.export(&namespace, &service(&namespace, "then"));
    b.import(&namespace, "then", "addressed", addressed);
}

/// What makes a process believe that it is earlier or later: the environment that `faketime` runs programs in.
fn clock_off(by: &str) -> Vec<(&'static str, String)> {
    let preload = Command::new("faketime").args(["-f", by, "printenv", "LD_PRELOAD"]).output();
    let preload = preload.expect("faketime: not found: cargo xtask setup --for test");
    let preload = String::from_utf8(preload.stdout).unwrap().trim().to_owned();
    assert!(!preload.is_empty(), "faketime preloads nothing");
    // Only what the clock on the wall says: how fast time goes is the same for all.
    vec![("LD_PRELOAD", preload), ("FAKETIME", by.to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())]
}

#[test]
fn clocks_that_are_twenty_minutes_apart_matter_to_nobody() {
    require_api_server!();
    let (world, namespace, service, _) = exporting();
    let [a, b] = [&world.members[0], &world.members[1]];
    let mut guards = [Guard::begin(a, &namespace), Guard::begin(b, &namespace)];
    let _controllers = [(a, "-10m"), (b, "+10m")].map(|(member, by)| {
        member.controller.kill9();
        let clock = clock_off(by);
        let clock: Vec<(&str, &str)> = clock.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Controller::with(&member.server, "elsewhen", &[], &clock).unwrap()
    });
    // Each sees the other renew, by its own clock, for longer than a member may be silent without being suspect.
    let healthy = |report: &Value, other: &str| report["members"][other]["health"] == "healthy";
    for (member, other) in [(a, b), (b, a)] {
        status(member, "the other one is healthy", |report| healthy(report, &other.id));
    }
    let rolled = a.endpoints(&namespace, &service, &[3, 4]);
    b.imported(&namespace, NAME, &rolled);
    for guard in &mut guards {
        guard.check(Duration::from_secs(12));
    }
    for (member, other) in [(a, b), (b, a)] {
        status(member, "the other one is still healthy", |report| healthy(report, &other.id));
    }
    // Age decides conflicts, and API servers tell it: the controllers' clocks do not.
    b.export(&namespace, &with_ports(service, &[port("tcp", "TCP", 43)]));
    for member in [a, b] {
        let export = member.exported(&namespace, NAME, "Conflict", "True");
        let reason = mcs_tests::client::condition(&export, "Conflict").unwrap()["reason"].clone();
        assert!(reason.as_str().is_some_and(|reason| reason.contains("PortConflict")), "{export}");
    }
    let import = b.import(&namespace, NAME, "there", |_| true);
    assert_eq!(import["spec"]["ports"][0]["port"], 42, "{import}");
}
