//! Octets by the million: queries are changed at random places, cut, spliced, and sent to the parser and the look-up.
//!
//! A short run in every test; a long one, on the release build, with `MCS_FUZZ_SECONDS`, which prints how many there were:
//!
//! ```text
//! MCS_FUZZ_SECONDS=600 cargo test --release -p mcs-userspace --lib dns::tests::fuzz -- --nocapture
//! ```

use std::time::{Duration, Instant};

use super::properties::{check, town, well_formed};
use super::*;

/// How many, where no time is given.
const SHORT: u64 = 100_000;
/// How often it is looked whether time is over.
const LOOK: u64 = 1 << 14;

/// Numbers that follow one another without a pattern (xorshift, Marsaglia 2003): the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 11).unwrap() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        // the values that mean something in a message come often
        const TELLING: [u8; 12] = [0, 1, 2, 6, 28, 33, 41, 63, 64, 0xc0, 0xff, b'_'];
        match self.below(3) {
            0 => TELLING[self.below(TELLING.len())],
            _ => u8::try_from(self.next() & 0xff).unwrap(),
        }
    }
}

/// Well-formed queries of every kind.
fn seeds() -> Vec<Vec<u8>> {
    let names: [&[u8]; 12] = [
        b"\x0aclusterset\x05local\0",
        b"\x0bdns-version\x0aclusterset\x05local\0",
        b"\x02ns\x03dns\x0aclusterset\x05local\0",
        b"\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x04cart\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x05_http\x04_tcp\x04cart\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x02db\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x04_sql\x04_tcp\x02db\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x04db-0\x04east\x02db\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x0810-0-0-1\x04east\x02db\x04shop\x03svc\x0aclusterset\x05local\0",
        b"\x07example\x03com\0",
        b"\0",
    ];
    let types = [1u16, 28, 33, 16, 6, 2, 252, 255];
    let edns = [None, Some(0), Some(1232), Some(65_535)];
    let all = names.iter().flat_map(|name| types.iter().map(move |rtype| (name, rtype)));
    all.flat_map(|(name, rtype)| edns.map(|edns| well_formed(name, *rtype, 1, edns))).collect()
}

fn change(query: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(query.len());
        match random.below(6) {
            0 => query.truncate(at),
            1 => query.insert(at.min(query.len()), random.byte()),
            2 if !query.is_empty() => {
                let _gone = query.remove(at);
            }
            3 => {
                let other = &seeds[random.below(seeds.len())];
                query.truncate(at);
                query.extend_from_slice(&other[random.below(other.len())..]);
            }
            _ => {
                if let Some(byte) = query.get_mut(at) {
                    *byte = random.byte();
                }
            }
        }
    }
}

#[test]
fn octets_by_the_million() {
    let lasting = std::env::var("MCS_FUZZ_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let (zone, seeds, mut random) = (town(), seeds(), Random(0x9e37_79b9_7f4a_7c15));
    let (began, mut count, mut codes) = (Instant::now(), 0u64, [0u64; 17]);
    let (mut query, mut response) = (Vec::new(), Vec::new());
    loop {
        query.clone_from(&seeds[random.below(seeds.len())]);
        change(&mut query, &seeds, &mut random);
        let transport = if random.below(2) == 0 { Transport::Udp } else { Transport::Tcp };
        respond(&zone, &query, transport, &mut response);
        check(&query, &response, transport);
        codes[response.get(3).map_or(16, |flags| usize::from(flags & 0xf))] += 1;
        count += 1;
        let is_over = match lasting {
            Some(lasting) => count.is_multiple_of(LOOK) && began.elapsed() >= lasting,
            None => count == SHORT,
        };
        if is_over {
            break;
        }
    }
    println!("{count} executions in {:.0} s, by code, silence last: {codes:?}", began.elapsed().as_secs_f64());
    // no kind of answer is left out: NOERROR, FORMERR, NXDOMAIN, NOTIMP, REFUSED, none
    assert!([0, 1, 3, 4, 5, 16].iter().all(|code| codes[*code] > 0), "{codes:?}");
}
