use serde_json::json;

use super::*;

fn judge(joined: bool, report: Option<Value>, leader: Leader) -> Answer {
    let (cluster, clusterset) = ("east".to_owned(), "prod".to_owned());
    let status = report.map(|report| Status { report, ..Status::default() });
    super::judge("east.yaml", joined.then_some((&cluster, &clusterset)), status, leader)
}

fn well() -> Value {
    json!({
        "cluster": "east", "clusterset": "prod", "localSynced": true, "brokerConnected": true, "brokerSynced": true,
        "cidrs": ["10.97.0.0/16"], "exports": 1, "imports": 3,
        "members": {"east": {"health": "self", "exports": 1, "reserved": true, "version": 1},
                    "west": {"health": "healthy", "exports": 2, "reserved": true, "version": 1}},
    })
}

fn alive() -> Leader {
    Leader::Alive("host_1_abc".to_owned())
}

#[test]
fn all_is_well() {
    let answer = judge(true, Some(well()), alive());
    assert!(answer.healthy, "{answer}");
    let text = answer.to_string();
    let first = text.lines().next().unwrap();
    assert_eq!(first, "healthy: east of ClusterSet prod exports 1 service and imports 3 services, 2 members known");
    assert!(text.contains("  member west: healthy, exports 2"), "{text}");
}

#[test]
fn a_cluster_that_never_joined_is_told_how() {
    let answer = judge(false, None, Leader::Nobody);
    assert!(!answer.healthy);
    assert!(answer.summary.starts_with("this cluster is no member of a ClusterSet: mcs join --kubeconfig east.yaml"));
}

#[test]
fn a_dead_controller_is_not_believed_to_be_well() {
    let answer = judge(true, Some(well()), Leader::Silent("host_1_abc".to_owned(), None));
    assert!(!answer.healthy && !answer.fresh);
    assert!(answer.to_string().contains("(silent: all this is what it last said)"), "{answer}");
    assert!(judge(true, Some(well()), Leader::Nobody).summary.starts_with("no controller runs"));
}

#[test]
fn what_is_held_comes_with_the_command_that_lets_it_go() {
    let mut report = well();
    report["held"] = json!([{"service": "shop/cart", "reason": "5 of 6 are missing"}]);
    let answer = judge(true, Some(report), alive());
    assert!(!answer.healthy);
    assert!(answer.summary.contains("mcs approve-withdrawal east --kubeconfig east.yaml"), "{answer}");
    assert!(answer.to_string().contains("  held: shop/cart: 5 of 6 are missing"), "{answer}");
}

#[test]
fn members_that_fell_silent_are_named_and_notices_are_no_trouble() {
    let mut report = well();
    report["problems"] =
        json!([{"object": "Service shop/cart", "field": "spec.ports[1]", "reason": "SCTP", "severity": "notice"}]);
    assert!(judge(true, Some(report.clone()), alive()).healthy);
    report["members"]["west"]["health"] = json!("dead");
    report["problems"][0]["severity"] = json!("invalid");
    let answer = judge(true, Some(report), alive());
    let what: Vec<&str> = answer.findings.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(what, ["member west is dead", "Service shop/cart: spec.ports[1]: SCTP"]);
}

#[test]
fn a_report_of_another_release_is_read_as_far_as_it_goes() {
    let mut report = well();
    report["newer"] = json!({"things": 1});
    assert!(judge(true, Some(report), alive()).healthy);
    let answer = judge(true, Some(json!("garbage")), alive());
    assert!(!answer.healthy, "nothing is known");
}
