//! Ctrl-C removes the clusters first.

use anyhow::Result;
use mcs_clusters::Clusters;
use mcs_tests::Fleet;

use crate::ending::begin;

/// From now on.
pub(crate) fn on_signal() -> Result<()> {
    Fleet::on_signal_do(|| {
        begin();
        match Clusters::end(false).and_then(|()| left()) {
            Ok(left) if left.is_empty() => eprintln!("demo: nothing is left"),
            Ok(left) => eprintln!("demo: still there: {left}"),
            Err(error) => eprintln!("demo: {error:#}"),
        }
    })
}

/// What is still there of the clusters.
pub(crate) fn left() -> Result<String> {
    let traces = Clusters::traces()?;
    Ok(traces.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" "))
}
