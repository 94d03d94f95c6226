//! Every row of the names that KEP-1645 and CoreDNS know.

use domain::base::Rtype;
use domain::base::iana::Rcode;

use super::*;

const HTTP: &str = "{name: http, protocol: TCP, port: 80}";
const DNS: &str = "{name: dns, protocol: UDP, port: 53}, {name: dns-tcp, protocol: TCP, port: 53}";

/// A service by ClusterSetIP, a StatefulSet over two clusters, and some of the odd ones.
fn shop() -> Zone {
    zone(
        &[
            import("cart", "10.97.0.1, 'fd00:97::1'", HTTP),
            slice("cart-a", "cart", "east", "IPv4", "{name: http, port: 8080}", "{addresses: [10.0.0.1]}"),
            import("single", "10.97.0.2", &format!("{DNS}, {{name: sig, protocol: SCTP, port: 2905}}")),
            import("unnamed", "'fd00:97::2'", "{port: 7}"),
            import("portless", "10.97.0.3", ""),
            import("pending", "", HTTP),
            headless("db"),
            slice(
                "db-a",
                "db",
                "east",
                "IPv4",
                "{name: sql, port: 5432}, {name: admin, port: 8432}",
                "{addresses: [10.0.1.1], hostname: db-0}, {addresses: [10.0.1.2], hostname: db-1}, \
                 {addresses: [10.0.1.3], hostname: db-2, conditions: {ready: false}}",
            ),
            slice(
                "db-a6",
                "db",
                "east",
                "IPv6",
                "{name: sql, port: 5432}",
                "{addresses: ['fd00:1::1'], hostname: db-0}",
            ),
            slice(
                "db-b",
                "db",
                "west",
                "IPv4",
                "{name: sql, port: 5432}",
                "{addresses: [10.1.0.1], hostname: db-0}, {addresses: [10.1.0.2]}",
            ),
            headless("empty"),
            slice(
                "empty-a",
                "empty",
                "east",
                "IPv4",
                "{name: x, port: 1}",
                "{addresses: [10.0.2.1], conditions: {ready: false}}",
            ),
            headless("v6"),
            slice("v6-a", "v6", "north.eu", "IPv6", "", "{addresses: ['2001:db8::']}"),
        ]
        .concat(),
    )
}

fn expect(zone: &Zone, name: &str, rtype: Rtype, expected: &[&str]) {
    assert_eq!(ask(zone, name, rtype), expected, "{name} {rtype}");
}

#[test]
fn the_zone_itself() {
    let zone = shop();
    let soa = &ask(&zone, "clusterset.local", Rtype::SOA)[1];
    assert!(soa.starts_with("clusterset.local 7 SOA ns.dns.clusterset.local"), "{soa}");
    for part in ["hostmaster.clusterset.local", "1700000000", "7200", "1800", "86400"] {
        assert!(soa.contains(part), "{soa}");
    }
    expect(
        &zone,
        "dns-version.clusterset.local",
        Rtype::TXT,
        &["NOERROR aa", "dns-version.clusterset.local 28800 TXT \"1.1.0\""],
    );
    assert_eq!(
        ask(&zone, "clusterset.local", Rtype::NS),
        [
            "NOERROR aa",
            "clusterset.local 5 NS ns.dns.clusterset.local.",
            "additional: ns.dns.clusterset.local 5 A 10.1.1.1",
            "additional: ns.dns.clusterset.local 5 AAAA fd00::53",
        ]
    );
    expect(&zone, "ns.dns.clusterset.local", Rtype::A, &["NOERROR aa", "ns.dns.clusterset.local 5 A 10.1.1.1"]);
    expect(&zone, "ns.dns.clusterset.local", Rtype::AAAA, &["NOERROR aa", "ns.dns.clusterset.local 5 AAAA fd00::53"]);
}

#[test]
fn names_that_exist_without_such_a_record() {
    let zone = shop();
    for (name, rtype) in [
        ("clusterset.local", Rtype::A),
        ("clusterset.local", Rtype::TXT),
        ("svc.clusterset.local", Rtype::A),
        ("svc.clusterset.local", Rtype::TXT),
        ("pod.clusterset.local", Rtype::A),
        ("dns.clusterset.local", Rtype::A),
        ("ns.dns.clusterset.local", Rtype::TXT),
        ("shop.svc.clusterset.local", Rtype::A),
        ("shop.svc.clusterset.local", Rtype::TXT),
        ("dns-version.clusterset.local", Rtype::A),
        ("cart.shop.svc.clusterset.local", Rtype::TXT),
        ("cart.shop.svc.clusterset.local", Rtype::MX),
        ("cart.shop.svc.clusterset.local", Rtype::CNAME),
        ("cart.shop.svc.clusterset.local", Rtype::PTR),
        ("cart.shop.svc.clusterset.local", Rtype::SOA),
        ("cart.shop.svc.clusterset.local", Rtype::NS),
        ("cart.shop.svc.clusterset.local", Rtype::from_int(65)),
        ("single.shop.svc.clusterset.local", Rtype::AAAA),
        ("unnamed.shop.svc.clusterset.local", Rtype::A),
        ("portless.shop.svc.clusterset.local", Rtype::SRV),
        ("pending.shop.svc.clusterset.local", Rtype::A),
        ("pending.shop.svc.clusterset.local", Rtype::SRV),
        ("pending.shop.svc.clusterset.local", Rtype::TXT),
        ("_http._tcp.cart.shop.svc.clusterset.local", Rtype::TXT),
        ("empty.shop.svc.clusterset.local", Rtype::A),
        ("empty.shop.svc.clusterset.local", Rtype::SRV),
        ("v6.shop.svc.clusterset.local", Rtype::A),
        ("v6.shop.svc.clusterset.local", Rtype::SRV),
        ("db-1.east.db.shop.svc.clusterset.local", Rtype::AAAA),
        ("db-1.east.db.shop.svc.clusterset.local", Rtype::TXT),
    ] {
        assert_eq!(outcome(&zone, name, rtype), (Rcode::NOERROR, 0), "{name} {rtype}");
    }
}

#[test]
fn names_that_do_not_exist() {
    let zone = shop();
    for name in [
        "x.clusterset.local",
        "nobody.shop.svc.clusterset.local",
        "cart.nowhere.svc.clusterset.local",
        "nowhere.svc.clusterset.local",
        "shop.pod.clusterset.local",
        "cart.shop.pod.clusterset.local",
        // a cluster's id alone, a host without a cluster, an endpoint that is not ready
        "east.db.shop.svc.clusterset.local",
        "db-0.db.shop.svc.clusterset.local",
        "db-2.east.db.shop.svc.clusterset.local",
        "db-9.east.db.shop.svc.clusterset.local",
        "db-1.west.db.shop.svc.clusterset.local",
        "x.db-0.east.db.shop.svc.clusterset.local",
        "_http._udp.cart.shop.svc.clusterset.local",
        "_web._tcp.cart.shop.svc.clusterset.local",
        "_tcp.cart.shop.svc.clusterset.local",
        "_x._tcp.empty.shop.svc.clusterset.local",
        "_http._tcp.x.cart.shop.svc.clusterset.local",
        // the other way round
        "shop.cart.svc.clusterset.local",
    ] {
        for rtype in [Rtype::A, Rtype::AAAA, Rtype::SRV, Rtype::TXT] {
            assert_eq!(outcome(&zone, name, rtype), (Rcode::NXDOMAIN, 0), "{name} {rtype}");
        }
    }
}

#[test]
fn services_by_cluster_set_ip() {
    let zone = shop();
    let cart = "cart.shop.svc.clusterset.local";
    expect(&zone, cart, Rtype::A, &["NOERROR aa", "cart.shop.svc.clusterset.local 5 A 10.97.0.1"]);
    expect(&zone, cart, Rtype::AAAA, &["NOERROR aa", "cart.shop.svc.clusterset.local 5 AAAA fd00:97::1"]);
    expect(
        &zone,
        "portless.shop.svc.clusterset.local",
        Rtype::A,
        &["NOERROR aa", "portless.shop.svc.clusterset.local 5 A 10.97.0.3"],
    );
    let glue = [
        "additional: cart.shop.svc.clusterset.local 5 A 10.97.0.1",
        "additional: cart.shop.svc.clusterset.local 5 AAAA fd00:97::1",
    ];
    // 100 is shared by two addresses; they have one record
    expect(
        &zone,
        "_http._tcp.cart.shop.svc.clusterset.local",
        Rtype::SRV,
        &[
            "NOERROR aa",
            "_http._tcp.cart.shop.svc.clusterset.local 5 SRV 0 50 80 cart.shop.svc.clusterset.local",
            glue[0],
            glue[1],
        ],
    );
    expect(
        &zone,
        cart,
        Rtype::SRV,
        &[
            "NOERROR aa",
            "cart.shop.svc.clusterset.local 5 SRV 0 50 80 cart.shop.svc.clusterset.local",
            glue[0],
            glue[1],
        ],
    );
    // ports of one number are one record, whatever their protocols
    let single = "single.shop.svc.clusterset.local";
    expect(
        &zone,
        single,
        Rtype::SRV,
        &[
            "NOERROR aa",
            "single.shop.svc.clusterset.local 5 SRV 0 33 2905 single.shop.svc.clusterset.local",
            "single.shop.svc.clusterset.local 5 SRV 0 33 53 single.shop.svc.clusterset.local",
            "additional: single.shop.svc.clusterset.local 5 A 10.97.0.2",
        ],
    );
    for name in ["_dns._udp", "_dns-tcp._tcp", "_sig._sctp", "_DNS._UDP", "dns._udp", "_dns.udp"] {
        assert_eq!(outcome(&zone, &format!("{name}.{single}"), Rtype::SRV), (Rcode::NOERROR, 1), "{name}");
        assert_eq!(outcome(&zone, &format!("{name}.{single}"), Rtype::A), (Rcode::NOERROR, 1), "{name}");
    }
    // endpoints of a service by ClusterSetIP have names too, as CoreDNS has it
    expect(
        &zone,
        "10-0-0-1.east.cart.shop.svc.clusterset.local",
        Rtype::A,
        &["NOERROR aa", "10-0-0-1.east.cart.shop.svc.clusterset.local 5 A 10.0.0.1"],
    );
}

#[test]
fn headless_services() {
    let zone = shop();
    let db = "db.shop.svc.clusterset.local";
    expect(
        &zone,
        db,
        Rtype::A,
        &[
            "NOERROR aa",
            "db.shop.svc.clusterset.local 5 A 10.0.1.1",
            "db.shop.svc.clusterset.local 5 A 10.0.1.2",
            "db.shop.svc.clusterset.local 5 A 10.1.0.1",
            "db.shop.svc.clusterset.local 5 A 10.1.0.2",
        ],
    );
    expect(&zone, db, Rtype::AAAA, &["NOERROR aa", "db.shop.svc.clusterset.local 5 AAAA fd00:1::1"]);
    let host = |name: &str, rtype| ask(&zone, &format!("{name}.{db}"), rtype)[1..].join(" ");
    assert!(host("db-0.east", Rtype::A).ends_with(" A 10.0.1.1"));
    assert!(host("db-0.east", Rtype::AAAA).ends_with(" AAAA fd00:1::1"));
    assert!(host("db-0.west", Rtype::A).ends_with(" A 10.1.0.1"));
    assert!(host("10-1-0-2.west", Rtype::A).ends_with(" A 10.1.0.2"));
    assert!(
        ask(&zone, "2001-db8--0.north.eu.v6.shop.svc.clusterset.local", Rtype::AAAA)[1].ends_with(" AAAA 2001:db8::"),
        "a cluster id of two labels"
    );
    // five pairs of address and port; a port is the endpoint's
    let targets = ["10-1-0-2.west", "db-0.east", "db-0.west", "db-1.east"];
    let mut expected = vec!["NOERROR aa".to_owned()];
    expected.extend(targets.map(|t| format!("_sql._tcp.{db} 5 SRV 0 20 5432 {t}.{db}")));
    expected.extend([
        format!("additional: 10-1-0-2.west.{db} 5 A 10.1.0.2"),
        format!("additional: db-0.east.{db} 5 A 10.0.1.1"),
        format!("additional: db-0.east.{db} 5 AAAA fd00:1::1"),
        format!("additional: db-0.west.{db} 5 A 10.1.0.1"),
        format!("additional: db-1.east.{db} 5 A 10.0.1.2"),
    ]);
    assert_eq!(ask(&zone, &format!("_sql._tcp.{db}"), Rtype::SRV), expected);
    assert_eq!(outcome(&zone, db, Rtype::SRV), (Rcode::NOERROR, 6));
    assert_eq!(outcome(&zone, &format!("_admin._tcp.{db}"), Rtype::SRV), (Rcode::NOERROR, 2));
    assert_eq!(outcome(&zone, &format!("_admin._tcp.{db}"), Rtype::A), (Rcode::NOERROR, 2));
    assert_eq!(outcome(&zone, &format!("_admin._tcp.{db}"), Rtype::AAAA), (Rcode::NOERROR, 0));
    assert_eq!(outcome(&zone, &format!("db-0.east.{db}"), Rtype::SRV), (Rcode::NOERROR, 2));
}

#[test]
fn answers_begin_each_at_another_endpoint() {
    let zone = shop();
    let first = || {
        let response = respond_to(&zone, &query("db.shop.svc.clusterset.local", Rtype::A), Transport::Udp);
        let message = Message::from_octets(response).unwrap();
        let record = message.answer().unwrap().next().unwrap().unwrap();
        record.to_any_record::<AllRecordData<_, _>>().unwrap().data().to_string()
    };
    let firsts: Vec<String> = (0..8).map(|_| first()).collect();
    assert_eq!(firsts[..4], firsts[4..], "in turns");
    let mut each = firsts[..4].to_vec();
    each.sort();
    assert_eq!(each, ["10.0.1.1", "10.0.1.2", "10.1.0.1", "10.1.0.2"]);
}

#[test]
fn before_everything_is_known_nothing_is_denied() {
    let mut zone = Zone::new(settings(), false);
    let mut builder = Builder::default();
    zone.apply(builder.handle(apply(&import("cart", "10.97.0.1", HTTP))), 1);
    assert_eq!(outcome(&zone, "cart.shop.svc.clusterset.local", Rtype::A), (Rcode::NOERROR, 1));
    assert_eq!(outcome(&zone, "other.shop.svc.clusterset.local", Rtype::A), (Rcode::SERVFAIL, 0));
    zone.apply(builder.handle([Event::Synced]), 2);
    assert_eq!(outcome(&zone, "other.shop.svc.clusterset.local", Rtype::A), (Rcode::NXDOMAIN, 0));
}

#[test]
fn a_name_waits_for_its_address_on_this_node() {
    let mut zone = Zone::new(settings(), true);
    let text = import("cart", "10.97.0.1, 'fd00:97::1'", HTTP) + &headless("db");
    zone.apply(Builder::default().handle(apply(&text).into_iter().chain([Event::Synced])), 1);
    let cart = "cart.shop.svc.clusterset.local";
    for rtype in [Rtype::A, Rtype::AAAA, Rtype::SRV, Rtype::TXT] {
        assert_eq!(outcome(&zone, cart, rtype), (Rcode::NXDOMAIN, 0));
    }
    assert_eq!(
        outcome(&zone, "db.shop.svc.clusterset.local", Rtype::A),
        (Rcode::NOERROR, 0),
        "headless ones need no node"
    );
    zone.set_programmed(["10.97.0.1".parse().unwrap()].into(), 2);
    assert_eq!(outcome(&zone, cart, Rtype::A), (Rcode::NOERROR, 1));
    assert_eq!(outcome(&zone, cart, Rtype::AAAA), (Rcode::NOERROR, 0));
    assert_eq!(
        ask(&zone, cart, Rtype::SRV)[1..],
        [
            "cart.shop.svc.clusterset.local 5 SRV 0 100 80 cart.shop.svc.clusterset.local",
            "additional: cart.shop.svc.clusterset.local 5 A 10.97.0.1"
        ]
    );
    zone.set_programmed([].into(), 3);
    assert_eq!(outcome(&zone, cart, Rtype::A), (Rcode::NXDOMAIN, 0));
    assert_eq!(zone.serial(), 3);
}

#[test]
fn names_follow_a_stateful_set_from_one_cluster_to_another() {
    let port = "{name: sql, port: 5432}";
    let pods = |cluster: &str, net: u8, ordinals: &[u8]| {
        let endpoints: Vec<String> =
            ordinals.iter().map(|n| format!("{{addresses: [10.{net}.0.{}], hostname: app-{n}}}", n + 1)).collect();
        apply(&slice(&format!("app-{cluster}"), "app", cluster, "IPv4", port, &endpoints.join(", ")))
    };
    let (mut zone, mut builder) = (Zone::new(settings(), false), Builder::default());
    let app = "app.shop.svc.clusterset.local";
    let mut step = |events: Vec<Event>| {
        zone.apply(builder.handle(events), 1);
        let count = outcome(&zone, app, Rtype::A);
        let hosts = ["app-0.a", "app-1.a", "app-2.a", "app-0.b", "app-1.b", "app-2.b"];
        let there = hosts.into_iter().filter(|host| outcome(&zone, &format!("{host}.{app}"), Rtype::A).1 == 1);
        (count, there.collect::<Vec<_>>().join(" "))
    };
    let all = |n| (Rcode::NOERROR, n);
    step(apply(&headless("app")));
    step(vec![Event::Synced]);
    assert_eq!(step(pods("a", 1, &[0, 1, 2])), (all(3), "app-0.a app-1.a app-2.a".to_owned()));
    assert_eq!(step(pods("b", 2, &[])), (all(3), "app-0.a app-1.a app-2.a".to_owned()));
    assert_eq!(step(pods("a", 1, &[0, 1])), (all(2), "app-0.a app-1.a".to_owned()));
    assert_eq!(step(pods("b", 2, &[2])), (all(3), "app-0.a app-1.a app-2.b".to_owned()));
    assert_eq!(step(pods("a", 1, &[0])), (all(2), "app-0.a app-2.b".to_owned()));
    assert_eq!(step(pods("b", 2, &[1, 2])), (all(3), "app-0.a app-1.b app-2.b".to_owned()));
    assert_eq!(step(pods("a", 1, &[])), (all(2), "app-1.b app-2.b".to_owned()));
    assert_eq!(step(pods("b", 2, &[0, 1, 2])), (all(3), "app-0.b app-1.b app-2.b".to_owned()));
}

#[test]
fn what_is_deleted_has_no_name() {
    let text = import("cart", "10.97.0.1", HTTP);
    let (mut zone, mut builder) = (Zone::new(settings(), false), Builder::default());
    zone.apply(builder.handle(apply(&text).into_iter().chain([Event::Synced])), 1);
    assert_eq!(outcome(&zone, "shop.svc.clusterset.local", Rtype::A), (Rcode::NOERROR, 0));
    let ids = objects(&text).into_iter().map(|object| Event::Delete(object.id()));
    zone.apply(builder.handle(ids), 9);
    assert_eq!(outcome(&zone, "cart.shop.svc.clusterset.local", Rtype::A), (Rcode::NXDOMAIN, 0));
    assert_eq!(outcome(&zone, "shop.svc.clusterset.local", Rtype::A), (Rcode::NXDOMAIN, 0));
    assert_eq!((zone.len(), zone.serial()), (0, 9));
    // the same again is no change
    assert!(builder.handle([]).is_empty());
    zone.apply(builder.handle(apply(&text)), 10);
    assert!(builder.handle(apply(&text)).is_empty());
}
