//! Debian packages: programs that the tests, the demo and the benches call. What counts is the program, not the
//! package, so a system that has it from elsewhere is left alone.

use std::time::Duration;

use anyhow::{Result, anyhow};

use super::{Group, Outcome, as_root, step};
use crate::child;

const LIMIT: Duration = Duration::from_secs(1200);

/// A package, the program that we want from it, and whether its groups are pointless without it.
#[derive(Debug)]
struct Package {
    name: &'static str,
    program: &'static str,
    groups: &'static [Group],
    essential: bool,
}

const PACKAGES: [Package; 8] = [
    Package {
        name: "iproute2",
        program: "ip",
        groups: &[Group::Test, Group::Demo, Group::Bench, Group::Vm],
        essential: true,
    },
    Package { name: "iperf3", program: "iperf3", groups: &[Group::Test, Group::Demo, Group::Bench], essential: false },
    Package { name: "nftables", program: "nft", groups: &[Group::Test, Group::Bench], essential: false },
    Package { name: "iptables", program: "iptables", groups: &[Group::Test, Group::Bench], essential: false },
    Package { name: "faketime", program: "faketime", groups: &[Group::Test], essential: true },
    Package { name: "bind9-dnsutils", program: "dig", groups: &[Group::Test, Group::Bench], essential: false },
    Package { name: "qemu-system-x86", program: "qemu-system-x86_64", groups: &[Group::Vm], essential: true },
    Package { name: "xz-utils", program: "xz", groups: &[Group::Vm], essential: true },
];

/// Installs what is missing, all in one go; then reports each package that was missing to `report`.
pub(super) fn ensure(groups: &[Group], mut report: impl FnMut(&str, bool, Result<Outcome>)) {
    let missing: Vec<&Package> = PACKAGES
        .iter()
        .filter(|package| {
            let wanted = groups.contains(&Group::All) || package.groups.iter().any(|group| groups.contains(group));
            wanted && child::find(package.program).is_none()
        })
        .collect();
    if missing.is_empty() {
        return;
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    // When not all can be had, each by itself: one that is missing from the archive must not keep out the others.
    let together = install(&names);
    for package in missing {
        let result = match &together {
            Ok(outcome) => Ok(*outcome),
            Err(error) if names.len() == 1 || !child::is_root() => Err(anyhow!("{error:#}")),
            Err(_) => install(&[package.name]),
        };
        let result = match result {
            Ok(_) if child::find(package.program).is_none() => Err(anyhow!(
                "{}: not there although the package is: look at `dpkg -L {}`",
                package.program,
                package.name
            )),
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(anyhow!("{error:#} (wanted for the program {})", package.program)),
        };
        report(package.name, package.essential, result);
    }
}

/// Installs packages; whoever wants them has looked whether they are there.
pub(super) fn install(names: &[&str]) -> Result<Outcome> {
    let list = names.join(" ");
    as_root(&format!("apt-get install -y {list}"))?;
    if child::find("apt-get").is_none() {
        return Err(anyhow!("apt-get: not found: install it with your system's own tool"));
    }
    step(&format!("apt-get install {list}"), || {
        // A fresh container has no lists, an old machine has lists of packages that are gone: both show here.
        install_once(names).or_else(|_| {
            println!("  apt-get update first");
            child::attend(apt_get().arg("update"), LIMIT)?;
            install_once(names)
        })
    })
}

fn install_once(names: &[&str]) -> Result<()> {
    child::attend(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(names), LIMIT)
}

fn apt_get() -> std::process::Command {
    let mut apt_get = child::command("apt-get");
    apt_get
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        // Another apt-get may be at work (unattended upgrades on a new machine): wait for it.
        .args(["-o", "DPkg::Lock::Timeout=120"]);
    apt_get
}
