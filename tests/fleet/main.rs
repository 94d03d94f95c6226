//! x
use std::time::Instant;
use mcs_tests::{Fleet, Family};
#[test]
fn build_time() {
    mcs_tests::require_root!();
    for _ in 0..3 {
    let t = Instant::now();
    let fleet = Fleet::builder().clusters(2).nodes(2).pods(2).build().unwrap();
    eprintln!("built in {:?}", t.elapsed());
    let a = fleet.pod("a1p1");
    for p in fleet.pods() { for f in Family::BOTH {
        let l = p.run(|| std::net::TcpListener::bind(p.socket(f, 80)).unwrap());
        let t = Instant::now();
        let s = a.run(|| std::net::TcpStream::connect(p.socket(f, 80)));
        eprintln!("{} {:?} {:?} {:?}", p.name(), f, t.elapsed(), s.map(|s| s.local_addr()));
        drop(l);
    }}
    let t = Instant::now();
    drop(fleet);
    eprintln!("removed in {:?}", t.elapsed());
    }
}
