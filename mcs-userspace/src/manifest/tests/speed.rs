//! A measurement, not a test: `cargo test --release -p mcs-userspace --lib speed -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::time::Instant;

use crate::manifest::{Interner, parse};

/// A `kind: List` in JSON of as many slices with a hundred endpoints each, and their imports.
fn list(slices: usize) -> String {
    let mut text = r#"{"apiVersion":"v1","kind":"List","items":["#.to_owned();
    for s in 0..slices {
        let (high, low) = (s / 256, s % 256);
        write!(
            text,
            r#"{{"apiVersion":"multicluster.x-k8s.io/v1beta1","kind":"ServiceImport","metadata":{{"name":"s{s}","namespace":"n"}},"spec":{{"type":"ClusterSetIP","ips":["10.{high}.{low}.1"],"ports":[{{"name":"http","protocol":"TCP","port":80}}]}}}},{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"s{s}-a","namespace":"n","labels":{{"multicluster.kubernetes.io/service-name":"s{s}","multicluster.kubernetes.io/source-cluster":"a"}}}},"addressType":"IPv4","ports":[{{"name":"http","protocol":"TCP","port":8080}}],"endpoints":["#
        )
        .unwrap();
        for e in 0..100 {
            let comma = if e == 0 { "" } else { "," };
            write!(
                text,
                r#"{comma}{{"addresses":["11.{high}.{low}.{e}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{}","zone":"zone-{}"}}"#,
                e % 50,
                e % 3
            )
            .unwrap();
        }
        write!(text, "]}}{}", if s + 1 == slices { "" } else { "," }).unwrap();
    }
    text.push_str("]}");
    text
}

#[test]
#[ignore = "a measurement"]
fn ten_thousand_slices_of_a_hundred_endpoints() {
    let text = list(10_000);
    for _ in 0..3 {
        let started = Instant::now();
        let mut state = crate::source::dir::DirState::default();
        state.file_read("a.json", Ok(text.as_bytes()));
        let read = started.elapsed();
        let settled = state.settle();
        let started = Instant::now();
        let parsed = parse("a.json", text.as_bytes(), &mut Interner::default()).unwrap();
        let parse = started.elapsed();
        assert_eq!((parsed.objects.len(), parsed.problems.len(), settled.events.len()), (20_000, 0, 20_000));
        println!("{} MiB: parse {parse:?}, parse and digest {read:?}", text.len() >> 20);
    }
}

#[test]
fn the_measured_text_is_valid() {
    let parsed = parse("a.json", list(3).as_bytes(), &mut Interner::default()).unwrap();
    assert_eq!((parsed.objects.len(), parsed.problems.len()), (6, 0));
}
