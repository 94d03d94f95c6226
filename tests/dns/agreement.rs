//! Every name and type, at both servers.

use std::collections::{BTreeMap, BTreeSet};

use mcs_tests::dns::{Answer, missing};
use mcs_tests::privilege;

use crate::objects::SHOP;
use crate::world::{Source, World};

/// Names below the zone, existing and not.
const NAMES: &[&str] = &[
    "",
    "dns-version",
    "svc",
    "pod",
    "dns",
    "x",
    "shop.svc",
    "bare.svc",
    "nowhere.svc",
    "shop.pod",
    "shop.x",
    "nobody.shop.svc",
    "cart.nowhere.svc",
    "cart.shop.pod",
    // by ClusterSetIP
    "cart.shop.svc",
    "CaRt.ShOp.SvC",
    "_http._tcp.cart.shop.svc",
    "_HTTP._TCP.cart.shop.svc",
    "_metrics._tcp.cart.shop.svc",
    "_http._udp.cart.shop.svc",
    "_web._tcp.cart.shop.svc",
    "_http.tcp.cart.shop.svc",
    "http._tcp.cart.shop.svc",
    "http.tcp.cart.shop.svc",
    "_._tcp.cart.shop.svc",
    "_tcp.cart.shop.svc",
    "east.cart.shop.svc",
    "10-10-0-1.east.cart.shop.svc",
    "10-10-0-2.east.cart.shop.svc",
    "10-10-0-1.west.cart.shop.svc",
    "x._http._tcp.cart.shop.svc",
    "resolver.shop.svc",
    "_dns._udp.resolver.shop.svc",
    "_dns-tcp._tcp.resolver.shop.svc",
    "_dns._tcp.resolver.shop.svc",
    "unnamed.shop.svc",
    "_x._tcp.unnamed.shop.svc",
    "_._tcp.unnamed.shop.svc",
    "telecom.shop.svc",
    "_m3ua._sctp.telecom.shop.svc",
    "portless.shop.svc",
    "_http._tcp.portless.shop.svc",
    "pending.shop.svc",
    "_http._tcp.pending.shop.svc",
    // headless
    "db.shop.svc",
    "_sql._tcp.db.shop.svc",
    "_admin._tcp.db.shop.svc",
    "_sql._udp.db.shop.svc",
    "db-0.east.db.shop.svc",
    "DB-0.East.db.shop.svc",
    "db-1.east.db.shop.svc",
    "db-2.east.db.shop.svc",
    "db-0.west.db.shop.svc",
    "db-1.west.db.shop.svc",
    "10-20-1-2.west.db.shop.svc",
    "10-10-1-1.east.db.shop.svc",
    "east.db.shop.svc",
    "db-0.db.shop.svc",
    "x.db-0.east.db.shop.svc",
    "empty.shop.svc",
    "_sql._tcp.empty.shop.svc",
    "x.east.empty.shop.svc",
    "raw.shop.svc",
    "2001-db8--0.east.raw.shop.svc",
    "2001-db8--a-1.east.raw.shop.svc",
    "_sql._tcp.raw.shop.svc",
    // other zones
    "cart.shop.svc.cluster.local.",
    "example.com.",
];

const TYPES: &[&str] = &["A", "AAAA", "SRV", "TXT", "SOA", "NS", "MX", "CNAME", "PTR", "HTTPS", "ANY", "AXFR"];

/// Why the answers differ, where they do: what is asked, what CoreDNS says, what `mcs dns` says.
const DENIED: &str = "CoreDNS denies a name that exists: for TXT, where there are other records or names below";
const EMPTY: &str = "CoreDNS denies a headless service without ready endpoints: its name is there, and has no address";
const PORTLESS: &str = "CoreDNS denies a service without ports, and its address with it";
const NAMESPACE: &str =
    "CoreDNS knows namespaces, `mcs dns` what is imported: a namespace without imports has no names";
const SOA: &str = "CoreDNS says of any name that it exists, if its SOA record is asked for";
const SERVER: &str = "each server names itself";
const PARENT: &str = "CoreDNS denies the parent of ns.dns, or a type beside dns-version's TXT";

fn reason(name: &str, rtype: &str) -> Option<&'static str> {
    Some(match (name, rtype) {
        ("", "NS") => SERVER,
        (_, "SOA") => SOA,
        ("bare.svc", _) => NAMESPACE,
        ("dns-version", rtype) if rtype != "TXT" => PARENT,
        ("dns", _) => PARENT,
        ("empty.shop.svc", _) => EMPTY,
        ("portless.shop.svc", _) => PORTLESS,
        (_, "TXT") => DENIED,
        _ => return None,
    })
}

#[test]
fn both_servers_say_the_same_but_for_what_is_listed() {
    if let Some(why) = missing() {
        return privilege::skip("both_servers_say_the_same_but_for_what_is_listed", &why);
    }
    let world = World::start(SHOP, Source::Kube).unwrap();
    for server in world.both() {
        // the last that the source told has arrived
        server.wait("all objects", "2001-db8--a-1.east.raw.shop.svc", "AAAA", |answer| answer.count() == 1).unwrap();
        server.wait("all objects", "db-0.west.db.shop.svc", "A", |answer| answer.count() == 1).unwrap();
        server.wait("all objects", "portless.shop.svc", "TXT", |answer| answer.status != "SERVFAIL").unwrap();
    }
    let (mut same, mut unexplained) = (0, Vec::new());
    let mut explained: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, rtype) in NAMES.iter().flat_map(|name| TYPES.iter().map(move |rtype| (*name, *rtype))) {
        let options: &[&str] = if rtype == "AXFR" { &["+tcp"] } else { &["+bufsize=1232"] };
        let [coredns, mcs] = world.both().map(|server| server.dig(name, rtype, options).map(comparable));
        let (coredns, mcs) = match (coredns, mcs) {
            (Ok(coredns), Ok(mcs)) => (coredns, mcs),
            // dig itself ends with an error when a transfer is refused
            (Err(_), Err(_)) if rtype == "AXFR" => continue,
            (coredns, mcs) => panic!("{name} {rtype}: {coredns:?} {mcs:?}"),
        };
        if coredns == mcs {
            same += 1;
            continue;
        }
        let line = format!("{name} {rtype}: CoreDNS {}, mcs {}", short(&coredns), short(&mcs));
        match reason(name, rtype) {
            Some(why) => {
                explained.entry(why).or_default().insert(line);
            }
            None => unexplained.push(format!("{line}\n  {coredns:?}\n  {mcs:?}")),
        }
    }
    println!("{same} answers are the same");
    for (why, lines) in &explained {
        println!("{why}:\n  {}", lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n  "));
    }
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    // each reason is needed: who mends CoreDNS ends one of them
    for why in [DENIED, EMPTY, PORTLESS, NAMESPACE, PARENT, SOA] {
        assert!(explained.contains_key(why), "no answer differs because {why}");
    }
    for (why, lines) in explained {
        let difference = match why {
            NAMESPACE | SOA => "CoreDNS NOERROR, mcs NXDOMAIN",
            SERVER => "NOERROR",
            _ => "CoreDNS NXDOMAIN, mcs NOERROR",
        };
        for line in lines {
            assert!(line.contains(difference), "{line}");
        }
    }
}

/// Without what is each server's own: when the zone changed, and where the server is.
fn comparable(answer: Answer) -> Answer {
    let without_serial = |record: String| match record.split_once(" soa ") {
        Some((owner, data)) => {
            let fields: Vec<&str> =
                data.split(' ').enumerate().filter(|(n, _)| *n != 2).map(|(_, field)| field).collect();
            format!("{owner} soa {}", fields.join(" "))
        }
        None => record,
    };
    let Answer { status, flags, answer, authority, additional } = answer;
    Answer {
        status,
        flags,
        answer: answer.into_iter().map(without_serial).collect(),
        authority: authority.into_iter().map(without_serial).collect(),
        additional,
    }
}

fn short(answer: &Answer) -> String {
    match answer.count() {
        0 => answer.status.clone(),
        count => format!("{} with {count} records", answer.status),
    }
}
