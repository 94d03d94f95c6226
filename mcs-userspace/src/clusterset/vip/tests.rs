use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn net(cidr: &str) -> IpNet {
    cidr.parse().unwrap()
}

fn nets(cidrs: &[&str]) -> Vec<IpNet> {
    cidrs.iter().map(|cidr| net(cidr)).collect()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn service(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

#[test]
fn candidates_are_the_same_in_every_build() {
    let first =
        |cidr: &str| candidates(net(cidr), &service("cart")).take(3).map(|ip| ip.to_string()).collect::<Vec<_>>();
    assert_eq!(first("10.97.0.0/16"), ["10.97.210.235", "10.97.213.70", "10.97.215.161"]);
    assert_eq!(
        first("fd00:97::/64"),
        ["fd00:97::35f0:667b:92a5:642d", "fd00:97::5699:bad6:aa28:e0c7", "fd00:97::7743:f31:c1ac:5d61"]
    );
}

#[test]
fn network_broadcast_and_anycast_addresses_are_left_out_where_there_are_any() {
    let all = |cidr: &str| candidates(net(cidr), &service("cart")).map(|ip| ip.to_string()).collect::<BTreeSet<_>>();
    let set = |ips: &[&str]| ips.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    assert_eq!(all("10.0.0.4/30"), set(&["10.0.0.5", "10.0.0.6"]));
    assert_eq!(all("10.0.0.4/31"), set(&["10.0.0.4", "10.0.0.5"]));
    assert_eq!(all("10.0.0.4/32"), set(&["10.0.0.4"]));
    assert_eq!(all("fd00::4/126"), set(&["fd00::5", "fd00::6", "fd00::7"]));
    assert_eq!(all("fd00::4/127"), set(&["fd00::4", "fd00::5"]));
    assert_eq!(all("fd00::4/128"), set(&["fd00::4"]));
    assert_eq!(all("10.0.0.0/16").len(), 65_534);
}

#[test]
fn different_services_begin_at_different_addresses() {
    let first = |i: u32| candidates(net("10.97.0.0/16"), &service(&format!("s{i}"))).next().unwrap();
    let distinct = (0..1000).map(first).collect::<BTreeSet<_>>().len();
    assert!(distinct > 980, "{distinct} of 1000");
    // Names do not collide by concatenation.
    let (ab_c, a_bc) = (ObjectKey::new("a-b", "c"), ObjectKey::new("a", "b-c"));
    let of = |key| candidates(net("fd00::/64"), key).next();
    assert_ne!(of(&ab_c), of(&a_bc));
}

#[test]
fn the_next_candidate_is_taken_when_the_first_is_not_free() {
    let cidrs = nets(&["10.97.0.0/16", "10.98.0.0/30", "fd00::/64"]);
    let all: Vec<_> = candidates(cidrs[0], &service("cart")).collect();
    assert_eq!(choose(&cidrs, Family::IPv4, &service("cart"), |_| false), Some(all[0]));
    assert_eq!(choose(&cidrs, Family::IPv4, &service("cart"), |ip| ip == all[0]), Some(all[1]));
    let v6 = choose(&cidrs, Family::IPv6, &service("cart"), |_| false);
    assert!(v6.is_some_and(|ip| cidrs[2].contains(&ip)));
    let second = choose(&cidrs, Family::IPv4, &service("cart"), |ip| cidrs[0].contains(&ip));
    assert!(second.is_some_and(|ip| cidrs[1].contains(&ip)), "the second CIDR when the first has none left");
}

#[test]
fn exhaustion_is_an_answer() {
    assert_eq!(choose(&nets(&["10.0.0.0/24", "fd00::/48"]), Family::IPv4, &service("cart"), |_| true), None);
    assert_eq!(choose(&nets(&["10.0.0.0/24", "fd00::/48"]), Family::IPv6, &service("cart"), |_| true), None);
    assert_eq!(choose(&nets(&["10.0.0.0/24"]), Family::IPv6, &service("cart"), |_| false), None);
}

fn any_cidr() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u32>(), 1..=32_u8).prop_map(|(ip, len)| IpNet::new(IpAddr::V4(ip.into()), len).unwrap().trunc());
    let v6 = (any::<u128>(), 1..=128_u8).prop_map(|(ip, len)| IpNet::new(IpAddr::V6(ip.into()), len).unwrap().trunc());
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn candidates_lie_in_their_cidr_and_none_comes_twice(cidr in any_cidr(), name in "[a-z]{1,8}") {
        let all: Vec<_> = candidates(cidr, &service(&name)).take(300).collect();
        prop_assert!(!all.is_empty());
        prop_assert!(all.iter().all(|ip| cidr.contains(ip)));
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        let reserved = if cidr.max_prefix_len() - cidr.prefix_len() >= 2 { Some(cidr.network()) } else { None };
        prop_assert!(!all.iter().any(|ip| Some(*ip) == reserved));
    }

    /// One free address is found, wherever it is, and by everybody the same.
    #[test]
    fn the_last_free_address_is_found(len in 22..=30_u8, pick in any::<prop::sample::Index>(), name in "[a-z]{1,8}") {
        let cidrs = [IpNet::new(ip("10.0.0.0"), len).unwrap()];
        let all: Vec<_> = candidates(cidrs[0], &service("another")).collect();
        let free = all[pick.index(all.len())];
        prop_assert_eq!(choose(&cidrs, Family::IPv4, &service(&name), |ip| ip != free), Some(free));
    }

    /// Whatever the order in which members hear of claims, all settle on one address.
    #[test]
    fn everybody_who_sees_the_same_claims_settles_on_the_same(
        claims in prop::collection::vec((1..6_u8, any::<bool>(), prop::option::of(0..3_i64)), 1..6),
        shift in 0..6_usize,
    ) {
        let claims: Vec<_> = claims
            .into_iter()
            .map(|(last, carried, reserved)| Claim { address: IpAddr::from([10, 0, 0, last]), carried, reserved })
            .collect();
        let mut other = claims.clone();
        other.rotate_left(shift % claims.len());
        other.reverse();
        prop_assert_eq!(settle(Family::IPv4, &claims), settle(Family::IPv4, &other));
        prop_assert!(settle(Family::IPv4, &claims).is_some());
    }
}

#[test]
fn an_address_that_an_import_carries_wins() {
    let claim = |last, carried, reserved| Claim { address: IpAddr::from([10, 0, 0, last]), carried, reserved };
    let settled = |claims: &[Claim]| settle(Family::IPv4, claims).map(|ip| ip.to_string());
    assert_eq!(settled(&[claim(1, false, Some(1)), claim(2, true, None)]).as_deref(), Some("10.0.0.2"));
    assert_eq!(settled(&[claim(1, true, None), claim(2, true, Some(9))]).as_deref(), Some("10.0.0.2"));
    assert_eq!(settled(&[claim(1, false, Some(9)), claim(2, false, Some(1))]).as_deref(), Some("10.0.0.2"));
    assert_eq!(settled(&[]), None);
    assert_eq!(settle(Family::IPv6, &[claim(1, true, Some(1))]), None, "one for each family");
}

#[test]
fn new_allocations_wait_until_every_healthy_member_has_said_that_it_reserved() {
    let word = |cluster, health, reserved, renewed| Word { cluster, health, reserved, renewed };
    let words = [
        word("silent", Health::Healthy, false, true),
        word("as-of-the-backup", Health::Healthy, true, false),
        word("done", Health::Healthy, true, true),
        word("suspect", Health::Suspect, false, false),
        word("dead", Health::Dead, false, false),
    ];
    assert_eq!(awaited(words.into_iter()).collect::<Vec<_>>(), ["silent", "as-of-the-backup"]);
    assert_eq!(awaited(words[2..].iter().copied()).next(), None);
}

#[test]
fn nobody_frees_a_reservation_before_the_last_export_is_gone() {
    for holder_is_observer in [false, true] {
        for holder_is_member in [false, true] {
            assert_eq!(release(true, holder_is_observer, holder_is_member), Release::Keep);
        }
    }
    assert_eq!(release(false, true, true), Release::Delete);
    assert_eq!(release(false, false, true), Release::Keep, "its holder does that");
    assert_eq!(release(false, false, false), Release::Orphaned);
}

#[test]
fn cidrs_are_read_or_refused_with_the_reason() {
    assert_eq!(parse_cidrs(&["10.97.0.0/16", " fd00:97::/64 "]), Ok(nets(&["10.97.0.0/16", "fd00:97::/64"])));
    assert_eq!(parse_cidrs::<&str>(&[]), Ok(vec![]));
    let refusal = |cidrs: &[&str]| parse_cidrs(cidrs).unwrap_err().to_string();
    for (cidr, what) in [
        ("10.97.0.0", "CIDR \"10.97.0.0\": not an address and a prefix length, as in 10.97.0.0/16"),
        ("", "CIDR \"\": not an address and a prefix length, as in 10.97.0.0/16"),
        (
            "10.0.0.1/8",
            "CIDR 10.0.0.1/8: has bits set behind its prefix: 10.0.0.0/8 is meant, or another prefix length",
        ),
        ("127.1.0.0/16", "CIDR 127.1.0.0/16: overlaps 127.0.0.0/8, loopback"),
        ("0.0.0.0/0", "CIDR 0.0.0.0/0: overlaps 0.0.0.0/8, which is no destination"),
        ("169.254.10.0/24", "CIDR 169.254.10.0/24: overlaps 169.254.0.0/16, link-local"),
        ("239.0.0.0/8", "CIDR 239.0.0.0/8: overlaps 224.0.0.0/4, multicast"),
        ("255.255.255.0/24", "CIDR 255.255.255.0/24: overlaps 240.0.0.0/4, which is reserved"),
        ("::/0", "CIDR ::/0: overlaps ::/127, unspecified and loopback"),
        ("::ffff:10.0.0.0/104", "CIDR ::ffff:10.0.0.0/104: overlaps ::ffff:0.0.0.0/96, IPv4 in IPv6"),
        ("fe80::/64", "CIDR fe80::/64: overlaps fe80::/10, link-local"),
        ("ff02::/16", "CIDR ff02::/16: overlaps ff00::/8, multicast"),
    ] {
        assert_eq!(refusal(&[cidr]), what);
    }
    assert_eq!(refusal(&["10.0.0.0/8", "10.1.0.0/16"]), "CIDR 10.1.0.0/16: overlaps 10.0.0.0/8, which is given too");
    let five = ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16"];
    assert_eq!(refusal(&five), "IPv4 CIDRs: 5 given: at most 4 are possible");
    assert!(parse_cidrs(&[&five[..4], &["fd00::/64"]].concat()).is_ok(), "of each family");
}

#[test]
fn cidrs_must_not_overlap_what_a_member_uses() {
    let cidrs = nets(&["10.97.0.0/16"]);
    assert_eq!(check_unused(&cidrs, [(net("10.96.0.0/16"), "Services"), (net("fd00::/64"), "pods")]), Ok(()));
    let refusal = check_unused(&cidrs, [(net("10.96.0.0/12"), "this cluster's Services")]).unwrap_err();
    assert_eq!(refusal.to_string(), "ClusterSet CIDR 10.97.0.0/16: overlaps 10.96.0.0/12, this cluster's Services");
}

#[test]
fn cidrs_are_fixed_once_another_value_is_refused_and_none_given_takes_them() {
    let (a, ab, ba) =
        (nets(&["10.1.0.0/16"]), nets(&["10.1.0.0/16", "10.2.0.0/16"]), nets(&["10.2.0.0/16", "10.1.0.0/16"]));
    assert_eq!(agree(&[], &ab), Ok(Agreed::Fix));
    assert_eq!(agree(&ab, &[]), Ok(Agreed::Fixed));
    assert_eq!(agree(&ab, &ba), Ok(Agreed::Fixed));
    assert_eq!(agree(&[], &[]), Ok(Agreed::None));
    let refusal = agree(&ab, &a).unwrap_err().to_string();
    assert_eq!(
        refusal,
        "ClusterSet CIDRs 10.1.0.0/16: the ClusterSet has 10.1.0.0/16,10.2.0.0/16, fixed at the broker and never changed"
    );
}
