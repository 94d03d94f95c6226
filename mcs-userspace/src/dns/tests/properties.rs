//! Whatever comes, there is a well-formed answer or none, and in time.
//!
//! `MCS_FUZZ_CASES=N` runs each property N times.

use domain::base::Rtype;
use proptest::prelude::*;

use super::*;

fn cases() -> ProptestConfig {
    let cases = std::env::var("MCS_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(512);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Names of which some exist, and pieces of which names are made.
fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "cart", "db", "shop", "svc", "pod", "clusterset", "local", "_http", "_tcp", "_udp", "db-0", "db-1", "east", "west",
            "10-0-0-1", "dns-version", "ns", "dns", "_", "__", "EAST", "CarT", "*", "_sql",
        ])
        .prop_map(|label| label.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..64),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop::sample::select(vec![
        "",
        "\x0aclusterset\x05local",
        "\x03svc\x0aclusterset\x05local",
        "\x04shop\x03svc\x0aclusterset\x05local",
        "\x02db\x04shop\x03svc\x0aclusterset\x05local",
        "\x04cart\x04shop\x03svc\x0aclusterset\x05local",
    ]);
    (prop::collection::vec(label(), 0..6), ending).prop_map(|(labels, ending)| {
        let mut wire = Vec::new();
        for label in labels {
            wire.push(u8::try_from(label.len()).unwrap());
            wire.extend(label);
        }
        wire.extend(ending.as_bytes());
        wire.push(0);
        wire
    })
}

pub(super) fn well_formed(name: &[u8], rtype: u16, flags: u8, edns: Option<u16>) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, flags & 0x7f, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    query.extend(name);
    query.extend(rtype.to_be_bytes());
    query.extend([0, 1]);
    if let Some(payload) = edns {
        query.extend([0, 0, 41]);
        query.extend(payload.to_be_bytes());
        query.extend([0; 6]);
    }
    query
}

pub(super) fn town() -> Zone {
    zone(
        &[
            import("cart", "10.97.0.1, 'fd00:97::1'", "{name: http, port: 80}, {port: 53, protocol: UDP}"),
            headless("db"),
            slice(
                "db-a",
                "db",
                "east",
                "IPv4",
                "{name: sql, port: 5432}, {name: http, port: 80}",
                "{addresses: [10.0.0.1]}, {addresses: [10.0.0.2], hostname: db-0}, {addresses: [10.0.0.3], hostname: db-0}",
            ),
            slice("db-b", "db", "west", "IPv6", "", "{addresses: ['fd00::1']}, {addresses: ['fd00::2'], hostname: db-1}"),
        ]
        .concat(),
    )
}

/// What is true of each response.
pub(super) fn check(query: &[u8], response: &[u8], transport: Transport) {
    if response.is_empty() {
        assert!(query.len() < 12 || query[2] & 0x80 != 0, "no answer to {query:?}");
        return;
    }
    assert_eq!(response[..2], query[..2], "the id");
    let message = Message::from_octets(response).unwrap();
    let most = if transport == Transport::Udp { 1232 } else { 65_535 };
    assert!(message.header().qr() && response.len() <= most);
    // each record can be taken apart, and the counts are true
    let counts = message.header_counts();
    let mut seen = 0;
    for section in [message.answer().unwrap(), message.authority().unwrap(), message.additional().unwrap()] {
        for record in section {
            let record = record.unwrap().into_any_record::<AllRecordData<_, _>>().unwrap();
            seen += 1;
            assert!(!record.data().to_string().is_empty() || record.rtype() == Rtype::OPT);
        }
    }
    assert_eq!(seen, counts.ancount() + counts.nscount() + counts.arcount());
    let rcode = message.header().rcode();
    if counts.ancount() > 0 {
        assert_eq!(rcode, Rcode::NOERROR);
        // what was answered was asked
        let question = message.sole_question().unwrap();
        for record in message.answer().unwrap() {
            let record = record.unwrap();
            assert!(record.rtype() == question.qtype() && record.owner() == question.qname());
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_octets(query in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        thread_local!(static TOWN: Zone = town());
        TOWN.with(|zone| check(&query, &respond_to(zone, &query, transport), transport));
    }

    #[test]
    fn queries_with_some_octets_changed(
        name in name(),
        rtype in prop_oneof![prop::sample::select(vec![1u16, 28, 33, 16, 6, 2, 255, 252, 41]), any::<u16>()],
        flags in any::<u8>(),
        edns in prop::option::of(any::<u16>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        tcp in any::<bool>(),
    ) {
        let mut query = well_formed(&name, rtype, flags, edns);
        for (at, byte) in changes {
            let at = at.index(query.len());
            query[at] = byte;
        }
        if let Some(cut) = cut {
            query.truncate(cut.index(query.len()));
        }
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        thread_local!(static TOWN: Zone = town());
        TOWN.with(|zone| check(&query, &respond_to(zone, &query, transport), transport));
    }

    /// A name that has an address is never denied for another type, and letters do not matter.
    #[test]
    fn types_and_letters_agree(name in name(), rtype in prop::sample::select(vec![1u16, 28, 33, 16, 65])) {
        thread_local!(static TOWN: Zone = town());
        TOWN.with(|zone| {
            let code = |name: &[u8], rtype| {
                let response = respond_to(zone, &well_formed(name, rtype, 0, None), Transport::Tcp);
                Message::from_octets(response).unwrap().header().rcode()
            };
            prop_assert_eq!(code(&name, rtype), code(&name, 1));
            let mut upper = name.clone();
            let mut at = 0;
            while upper[at] != 0 {
                let len = usize::from(upper[at]);
                upper[at + 1..=at + len].make_ascii_uppercase();
                at += 1 + len;
            }
            prop_assert_eq!(code(&name, rtype), code(&upper, rtype));
            Ok(())
        })?;
    }
}
