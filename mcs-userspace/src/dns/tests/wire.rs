//! What RFC 1035, 2181, 4343 and 6891 ask of messages.

use std::fmt::Write as _;

use domain::base::Rtype;
use domain::base::iana::{Opcode, OptRcode, Rcode};

use super::*;

fn many(count: u32) -> Zone {
    let mut endpoints = String::new();
    for n in 0..count {
        write!(endpoints, "{{addresses: [10.{}.{}.{}]}}, ", 1 + (n >> 16), (n >> 8) & 255, n & 255).unwrap();
    }
    zone(&(headless("many") + &slice("many-a", "many", "east", "IPv4", "{name: http, port: 80}", &endpoints)))
}

fn code(response: &[u8]) -> Rcode {
    Message::from_octets(response).unwrap().header().rcode()
}

#[test]
fn the_letters_of_the_question_come_back() {
    let zone = zone(&import("cart", "10.97.0.1", "{name: http, port: 80}"));
    let asked = query("cArT.sHoP.SVC.clusterSET.LoCaL", Rtype::A);
    let response = respond_to(&zone, &asked, Transport::Udp);
    assert_eq!(response[12..asked.len()], asked[12..]);
    assert_eq!(response[..2], asked[..2], "the id");
    // the owner is a pointer to the question: its letters too
    assert_eq!(response[asked.len()..asked.len() + 2], [0xc0, 12]);
    assert_eq!(response.len(), asked.len() + 16);
}

#[test]
fn names_are_compressed_against_the_question() {
    let zone = zone(&import("cart", "10.97.0.1", "{name: http, port: 80}"));
    let asked = query("nobody.shop.svc.clusterset.local", Rtype::A);
    let response = respond_to(&zone, &asked, Transport::Udp);
    // SOA: owner 2, fixed 10, `ns.dns` 7 and `hostmaster` 11 with 2 each for the pointer, numbers 20
    assert_eq!(response.len(), asked.len() + 2 + 10 + 9 + 13 + 20);
    assert!(words(&response)[1].starts_with("authority: clusterset.local"), "{:?}", words(&response));
}

#[test]
fn what_does_not_fit_is_cut_off_between_records() {
    let zone = many(1000);
    let name = "many.shop.svc.clusterset.local";
    for (query, limit) in [
        (query(name, Rtype::A), 512),
        (query_edns(name, Rtype::A, 100, 0), 512),
        (query_edns(name, Rtype::A, 800, 0), 800),
        (query_edns(name, Rtype::A, 65_535, 0), 1232),
        (query_edns(name, Rtype::SRV, 1232, 0), 1232),
    ] {
        let response = respond_to(&zone, &query, Transport::Udp);
        assert!(response.len() <= limit && response.len() > limit - 64, "{} of {limit}", response.len());
        assert_eq!(words(&response)[0], "NOERROR aa tc");
    }
    let response = respond_to(&zone, &query(name, Rtype::A), Transport::Tcp);
    assert_eq!(words(&response).len(), 1001);
    // 64 KiB are the most that TCP can carry
    let response = respond_to(&many(5000), &query(name, Rtype::A), Transport::Tcp);
    assert_eq!(words(&response)[0], "NOERROR aa tc");
    assert!(response.len() > 65_500 && response.len() <= 65_535);
}

#[test]
fn addresses_that_are_only_additional_are_left_out_without_a_word() {
    let zone = many(6);
    let response = respond_to(&zone, &query("_http._tcp.many.shop.svc.clusterset.local", Rtype::SRV), Transport::Udp);
    let words = words(&response);
    assert_eq!(words[0], "NOERROR aa");
    assert!((7..13).contains(&words.len()), "{words:?}");
}

#[test]
fn edns() {
    let zone = many(1);
    let name = "many.shop.svc.clusterset.local";
    let opt = |query: &[u8]| {
        let response = Message::from_octets(respond_to(&zone, query, Transport::Udp)).unwrap();
        let opt = response.opt().map(|opt| (opt.udp_payload_size(), opt.version(), opt.dnssec_ok()));
        (response.opt_rcode(), opt, response.header_counts().ancount())
    };
    assert_eq!(opt(&query(name, Rtype::A)), (OptRcode::NOERROR, None, 1));
    assert_eq!(opt(&query_edns(name, Rtype::A, 4096, 0)), (OptRcode::NOERROR, Some((1232, 0, true)), 1));
    assert_eq!(opt(&query_edns(name, Rtype::A, 4096, 1)), (OptRcode::BADVERS, Some((1232, 0, true)), 0));
    assert_eq!(opt(&query_edns("example.com", Rtype::A, 4096, 0)).0, OptRcode::REFUSED);
}

#[test]
fn what_is_no_query_of_ours() {
    let zone = many(1);
    let good = query("many.shop.svc.clusterset.local", Rtype::A);
    let answer = |query: &[u8]| respond_to(&zone, query, Transport::Udp);
    let with = |at: usize, byte: u8| {
        let mut query = good.clone();
        query[at] = byte;
        query
    };
    // shorter than a header, or a response
    for n in 0..12 {
        assert_eq!(answer(&good[..n]), [0; 0]);
    }
    assert_eq!(answer(&with(2, 0x81)), [0; 0]);
    // other opcodes: STATUS, NOTIFY, UPDATE
    for opcode in [1, 2, 4, 5] {
        let response = answer(&with(2, opcode << 3));
        assert_eq!((code(&response), response.len()), (Rcode::NOTIMP, 12));
        assert_eq!(Message::from_octets(&response).unwrap().header().opcode(), Opcode::from_int(opcode));
    }
    // no question, two, and one that is cut off; a pointer to itself; records that are not there
    for bad in [
        with(5, 0),
        with(5, 2),
        good[..good.len() - 1].to_vec(),
        good[..12].to_vec(),
        with(12, 0xc0),
        with(7, 1),
        with(11, 1),
        with(11, 200),
    ] {
        let response = answer(&bad);
        assert_eq!((code(&response), &response[..2]), (Rcode::FORMERR, &good[..2]), "{bad:?}");
    }
    let edns = query_edns("many.shop.svc.clusterset.local", Rtype::A, 1232, 0);
    let mut twice = edns.clone();
    twice.extend_from_slice(&edns[good.len()..]);
    twice[11] = 2;
    assert_eq!(code(&answer(&twice)), Rcode::FORMERR);
    // class CH
    assert_eq!(code(&answer(&with(good.len() - 1, 3))), Rcode::REFUSED);
    for (name, rtype) in [
        ("example.com", Rtype::A),
        ("cart.shop.svc.cluster.local", Rtype::A),
        (".", Rtype::NS),
        ("clusterset.local", Rtype::AXFR),
        ("clusterset.local", Rtype::IXFR),
        ("many.shop.svc.clusterset.local", Rtype::AXFR),
    ] {
        let response = answer(&query(name, rtype));
        assert_eq!(words(&response), ["REFUSED"], "{name} {rtype}");
    }
}
