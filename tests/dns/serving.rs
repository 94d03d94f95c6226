//! How answers come.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Duration;

use mcs_tests::dns::{DnsServer, missing};
use mcs_tests::privilege;

use crate::objects::{SHOP, many};
use crate::world::{Source, World};

#[test]
fn large_answers_are_cut_over_udp_and_whole_over_tcp() {
    if let Some(why) = missing() {
        return privilege::skip("large_answers_are_cut_over_udp_and_whole_over_tcp", &why);
    }
    let world = World::start(SHOP, Source::Kube).unwrap();
    world.apply(&many("crowd", 3000)).unwrap();
    for server in world.both() {
        let whole = server.wait("all endpoints", "crowd.shop.svc", "A", |answer| answer.has("tc")).and_then(|_| {
            let mut last = server.dig("crowd.shop.svc", "A", &["+tcp"])?;
            while last.count() < 3000 {
                last = server.dig("crowd.shop.svc", "A", &["+tcp"])?;
            }
            Ok(last)
        });
        assert_eq!(whole.unwrap().count(), 3000, "{}", server.name());
        let plain = server.dig("crowd.shop.svc", "A", &["+noedns"]).unwrap();
        assert!(plain.has("tc") && (1..32).contains(&plain.count()), "{}: {plain:?}", server.name());
    }
    // another part each time, so that all endpoints get clients
    let parts: Vec<Vec<String>> =
        (0..8).map(|_| world.mcs.dig("crowd.shop.svc", "A", &["+bufsize=1232"]).unwrap().answer).collect();
    let union: BTreeSet<&String> = parts.iter().flatten().collect();
    assert!(union.len() > parts[0].len(), "{} of {}", union.len(), parts[0].len());
    // dig goes over to TCP by itself
    let all = world.mcs.dig("crowd.shop.svc", "A", &["+noignore"]).unwrap();
    assert_eq!(all.count(), 3000);
}

#[test]
fn letters_of_the_question_come_back_and_noise_gets_no_answer() {
    if let Some(why) = missing() {
        return privilege::skip("letters_of_the_question_come_back_and_noise_gets_no_answer", &why);
    }
    let world = World::start(SHOP, Source::Kube).unwrap();
    world.mcs.wait("all objects", "cart.shop.svc", "A", |answer| answer.count() == 1).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect(world.mcs.addr()).unwrap();
    // what gets no answer, and then a query: the first answer is the query's
    socket.send(b"noise").unwrap();
    socket.send(&[]).unwrap();
    let mut query = vec![7, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["cArT", "ShOp", "sVc", "ClUsTeRsEt", "LoCaL"] {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut response = query.clone();
    response[2] |= 0x80;
    socket.send(&response).unwrap();
    socket.send(&query).unwrap();
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).unwrap();
    assert_eq!(answer[12..query.len()], query[12..], "the question");
    assert_eq!(answer[length - 4..length], [10, 97, 0, 1]);
}

/// The second way to serve the zone: CoreDNS forwards it. What clients see is what `mcs dns` says, and SERVFAIL once it is
/// gone.
#[test]
fn coredns_forwards_the_zone() {
    if let Some(why) = missing() {
        return privilege::skip("coredns_forwards_the_zone", &why);
    }
    let world = World::start(SHOP, Source::Kube).unwrap();
    world.mcs.wait("all objects", "db-0.west.db.shop.svc", "A", |answer| answer.count() == 1).unwrap();
    let front = DnsServer::forwarding(world.server.dir(), &world.mcs).unwrap();
    for (name, rtype) in [
        ("cart.shop.svc", "A"),
        ("CaRt.shop.svc", "AAAA"),
        ("_http._tcp.cart.shop.svc", "SRV"),
        ("db.shop.svc", "A"),
        ("_sql._tcp.db.shop.svc", "SRV"),
        ("db-0.west.db.shop.svc", "A"),
        ("nobody.shop.svc", "A"),
        ("empty.shop.svc", "A"),
    ] {
        let [through, direct] = [&front, &world.mcs].map(|server| server.dig(name, rtype, &["+bufsize=1232"]).unwrap());
        assert_eq!(
            (through.status, through.answer, through.authority, through.additional),
            (direct.status, direct.answer, direct.authority, direct.additional),
            "{name} {rtype}"
        );
    }
    world.apply(&many("crowd", 3000)).unwrap();
    front.wait("what does not fit is cut", "crowd.shop.svc", "A", |answer| answer.has("tc")).unwrap();
    let all = front.dig("crowd.shop.svc", "A", &["+tcp"]).unwrap();
    assert!(all.count() > 1000, "{}", all.count());

    world.mcs.kill9();
    front.wait("nobody answers", "cart.shop.svc", "A", |answer| answer.status == "SERVFAIL").unwrap();
}
