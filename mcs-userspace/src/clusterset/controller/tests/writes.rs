//! Writes while an API server does not answer.

use std::time::Duration;

use super::super::writes::Writes;
use super::fake::key;
use crate::clusterset::event::{Failure, Now, Op};
use crate::clusterset::local::Meta;

const CAP: Duration = Duration::from_secs(5);

#[test]
fn what_was_not_even_tried_is_tried_as_soon_as_the_server_answers() {
    let mut writes = Writes::new(CAP, 1);
    let op = |service: &str| Op::DeleteExportRecord(key(&format!("mcs-a/shop.{service}")), Meta::default());
    let propose = |writes: &mut Writes, service: &str, now: Now| {
        writes.propose(&key(&format!("shop/{service}")), op(service), now);
        writes.take().len()
    };
    let mut now = Duration::from_secs(100);
    assert_eq!(propose(&mut writes, "first", now), 1);
    writes.failed(&op("first"), Failure::Unreachable("no route".to_owned()), now);
    now += CAP;
    assert_eq!(propose(&mut writes, "second", now), 1, "it tries for all");
    assert_eq!(propose(&mut writes, "third", now), 0, "and this one does not");
    now += Duration::from_secs(1);
    assert!(!writes.due(now).contains(&key("shop/third")));
    writes.answered(true);
    assert!(writes.due(now).contains(&key("shop/third")));
    assert_eq!(propose(&mut writes, "third", now), 1);
}
