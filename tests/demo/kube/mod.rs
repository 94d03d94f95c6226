//! `demo --kube`: the way of a service over two real Kubernetes clusters, with what one types and what one sees, from nothing
//! and back to it.
//!
//! ```text
//!  mod ──► install   clusters, broker, members        service  exported in both, asked from pods
//!     │    change    scale, restart, unexport          throughput  iperf3 to the ClusterSetIP and to the pod
//!     │    leave     members leave, clusters end
//!     └──► shell     types a line, shows it and what comes out       ending  Ctrl-C, and the proof that nothing is left
//! ```
//!
//! What is shown is what runs: a line after `$` is given to a shell in the clusters' network as it stands there.

mod change;
mod ending;
mod install;
mod leave;
mod service;
mod shell;
mod throughput;

use anyhow::{Context as _, Result, bail, ensure};
use mcs_clusters::Clusters;
use mcs_tests::kube::{self, Kube};

use crate::Args;
use crate::ending::wait_if_interrupted;
use crate::screen::Screen;
use shell::Shell;

/// How many headings there are.
const STEPS: usize = 10;
/// The clusters: both serve, and each has a client.
const CLUSTERS: [&str; 2] = ["c0", "c1"];

/// Whether all that was shown holds.
pub(crate) fn run(args: &Args) -> Result<bool> {
    if let Some(why) = kube::missing() {
        bail!("this machine cannot show it: {why}");
    }
    // Before Ctrl-C is ours: others' clusters are not to be removed by it.
    ensure!(
        Clusters::open()?.is_none(),
        "clusters are up, of which there is one set at a time: `cargo xtask cluster down`"
    );
    ending::on_signal()?;
    let mut screen = Screen::new(STEPS);
    let kube = install::clusters(&mut screen)?;
    let shown = show(&kube, args, &mut screen);
    if let Err(error) = &shown {
        // After Ctrl-C everything fails, and the other thread cleans up.
        wait_if_interrupted();
        eprintln!("\ndemo: stopped: {error:#}");
    }
    let kept = if args.keep { keep(&kube, &screen) } else { Ok(()) };
    let left = match &shown {
        Ok(()) => Shell::new(&kube).and_then(|shell| leave::members(&shell, &mut screen)),
        Err(_) => Ok(()),
    };
    if let Err(error) = &left {
        wait_if_interrupted();
        eprintln!("\ndemo: stopped: {error:#}");
    }
    leave::clusters(kube, &mut screen)?;
    kept?;
    if shown.is_err() || left.is_err() {
        return Ok(false);
    }
    screen.verdict()?;
    Ok(screen.all_hold())
}

fn show(kube: &Kube, args: &Args, screen: &mut Screen) -> Result<()> {
    let shell = Shell::new(kube)?;
    install::broker(&shell, screen)?;
    install::members(&shell, screen)?;
    let ips = service::export(&shell, screen)?;
    service::ask(&shell, &ips, screen)?;
    change::restart(&shell, &ips, screen)?;
    change::unexport(&shell, &ips, screen)?;
    change::status(&shell, screen)?;
    throughput::show(&shell, args.seconds, screen)
}

/// Says how to look around, and waits for Enter.
fn keep(kube: &Kube, screen: &Screen) -> Result<()> {
    let files = kube.files().display();
    screen.line("\nEverything stays until you press Enter. From another terminal, as root:\n")?;
    screen.line(&format!("  export KUBECONFIG={}", kube.clusters().kubeconfig().display()))?;
    screen.line(&format!("  export PATH={files}/bin:$PATH          # mcs, kubectl"))?;
    screen.line("  kubectl --context c1 get serviceimports,endpointslices -A")?;
    screen.line("  kubectl --context c1 -n shop exec -ti client -- sh")?;
    screen.line("    curl http://web.shop.svc.clusterset.local/hostname       # there")?;
    screen.line("    iperf3 -c iperf.shop.svc.clusterset.local")?;
    screen.line("  kubectl --context c1 -n mcs-system exec ds/mcs-agent -- /mcs services")?;
    screen.line("  # a shell in the clusters' network, in which all of the above was typed:")?;
    screen.line("  cargo xtask cluster exec -- bash")?;
    screen.line(&format!("    cd {files} && ls"))?;
    screen.line("    mcs status --kubeconfig c1.kubeconfig")?;
    screen.line("  # cut the path between the clusters, kill a node; and see what happens")?;
    screen.line("  cargo xtask cluster cut c0 c1; cargo xtask cluster kill node c0n1")?;
    // An end of file is as good as Enter: in a pipe nobody can press it.
    std::io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
    Ok(())
}
