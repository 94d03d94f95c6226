//! What the facts mean.

use super::{Cgroup, Check, Facts, Trial, Verdict};

/// The oldest kernel that has all that the programs use.
const OLDEST: (u32, u32) = (5, 18);

/// What the kernel side uses, by the version that brought it.
const BROUGHT: [((u32, u32), &str); 5] = [
    ((5, 5), "maps in an agent's memory (BPF_F_MMAPABLE)"),
    ((5, 7), "links to cgroups, cookies of network namespaces"),
    ((5, 8), "getpeername hooks, CAP_BPF"),
    ((5, 11), "map memory counted by cgroup rather than by RLIMIT_MEMLOCK"),
    ((5, 18), "bpf_set_retval, by which a service without backends refuses connections"),
];

/// The kernel that counts map memory by cgroup.
const COUNTED: (u32, u32) = (5, 11);

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// Makes all checks.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Check> {
    vec![
        kernel(facts),
        cgroup2(facts),
        coverage(facts),
        bpffs(facts),
        capabilities(facts),
        memlock(facts),
        programs(facts),
        btf(facts),
        jit(facts),
    ]
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, found: found.into(), next: None }
}

fn bad(name: &'static str, verdict: Verdict, found: impl Into<String>, next: impl Into<String>) -> Check {
    Check { name, verdict, found: found.into(), next: Some(next.into()) }
}

/// 6.1 of `6.1.0-13-cloud-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn kernel(facts: &Facts) -> Check {
    const NAME: &str = "kernel";
    let Facts { release, .. } = facts;
    let (major, minor) = OLDEST;
    let newer = format!("boot Linux {major}.{minor} or newer; the trial load below says what this one takes");
    match version(release) {
        None => bad(NAME, Verdict::Warn, format!("{release}: no version that is known"), newer),
        Some(version) if version >= OLDEST => ok(NAME, format!("Linux {release}")),
        Some(version) => {
            let missing: Vec<&str> =
                BROUGHT.iter().filter(|(since, _)| version < *since).map(|(_, what)| *what).collect();
            bad(NAME, Verdict::Fail, format!("Linux {release}: has no {}", missing.join("; no ")), newer)
        }
    }
}

fn cgroup2(facts: &Facts) -> Check {
    const NAME: &str = "cgroup2";
    let Facts { cgroup2, has_cgroup1, .. } = facts;
    match (cgroup2.first(), has_cgroup1) {
        (Some(_), _) => {
            let places: Vec<String> = cgroup2.iter().map(|mount| mount.point.display().to_string()).collect();
            let hybrid = if *has_cgroup1 { ", beside cgroup v1, which does not matter" } else { "" };
            ok(NAME, format!("mounted at {}{hybrid}", places.join(", ")))
        }
        (None, true) => bad(
            NAME,
            Verdict::Fail,
            "only cgroup v1 is mounted: programs can be attached to cgroup2 alone",
            "boot with systemd.unified_cgroup_hierarchy=1, or for now: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2",
        ),
        (None, false) => {
            bad(NAME, Verdict::Fail, "no cgroup filesystem is mounted", "mount -t cgroup2 none /sys/fs/cgroup")
        }
    }
}

/// Whether an attach would reach pods: of interest in a pod, and in a cgroup namespace of one's own.
fn coverage(facts: &Facts) -> Check {
    const NAME: &str = "coverage";
    let Some(Cgroup { path, coverage, in_pod }) = &facts.cgroup else {
        return bad(NAME, Verdict::Fail, "there is no cgroup to attach to", "see cgroup2");
    };
    let path = path.display();
    let own_namespace = facts.first_cgroup_namespace == Some(false);
    match coverage {
        Err(why) => bad(NAME, Verdict::Fail, why.clone(), "name a cgroup2 directory with --cgroup"),
        Ok(coverage) if coverage.reaches_pods() => ok(NAME, format!("programs attached to {path} reach {coverage}")),
        Ok(coverage) if *in_pod => bad(
            NAME,
            Verdict::Fail,
            format!("programs attached to {path} would reach {coverage}"),
            "look at the volumes of deploy/base/agent.yaml",
        ),
        Ok(_) if own_namespace => bad(
            NAME,
            Verdict::Warn,
            format!(
                "this process has a cgroup namespace of its own: programs attached to {path} reach what lies in it"
            ),
            "fine if this is a node in a container; otherwise run it outside, or name the host's cgroup2 with --cgroup",
        ),
        Ok(_) => ok(NAME, format!("programs attached to {path} reach what lies below it")),
    }
}

fn bpffs(facts: &Facts) -> Check {
    const NAME: &str = "bpffs";
    let Facts { pin_dir, on_bpffs, .. } = facts;
    let pin_dir = pin_dir.display();
    const MOUNT: &str = "mount -t bpf bpf /sys/fs/bpf; in a pod: mount the host's /sys/fs/bpf by hostPath";
    match on_bpffs {
        Ok(true) => ok(NAME, format!("{pin_dir} lies on one")),
        Ok(false) => bad(
            NAME,
            Verdict::Fail,
            format!("{pin_dir} does not lie on a bpf filesystem: nothing would outlive an agent"),
            MOUNT,
        ),
        Err(why) => bad(NAME, Verdict::Fail, format!("{pin_dir}: {why}"), MOUNT),
    }
}

fn capabilities(facts: &Facts) -> Check {
    const NAME: &str = "capabilities";
    const NEXT: &str = "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: deploy/reduced, deploy/systemd";
    let Some(effective) = facts.capabilities else {
        return bad(NAME, Verdict::Warn, "cannot be told: /proc/self/status", NEXT);
    };
    let has = |bit: u32| effective & (1 << bit) != 0;
    // CAP_SYS_ADMIN includes what the kernel split off from it.
    let wanted = [
        ("CAP_BPF", has(BPF) || has(SYS_ADMIN)),
        ("CAP_NET_ADMIN", has(NET_ADMIN)),
        ("CAP_PERFMON", has(PERFMON) || has(SYS_ADMIN)),
    ];
    let missing: Vec<&str> = wanted.iter().filter(|(_, has)| !has).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        ok(NAME, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")
    } else {
        bad(NAME, Verdict::Fail, format!("{} missing", missing.join(", ")), NEXT)
    }
}

fn memlock(facts: &Facts) -> Check {
    const NAME: &str = "memlock";
    match (version(&facts.release), facts.memlock) {
        (Some(version), _) if version >= COUNTED => {
            ok(NAME, "map memory is counted by cgroup: no limit of bytes to lock")
        }
        (_, None) => ok(NAME, "unlimited"),
        (_, Some(bytes)) => bad(
            NAME,
            Verdict::Fail,
            format!("at most {bytes} bytes may be locked, which this kernel counts maps by"),
            "ulimit -l unlimited; in a systemd unit LimitMEMLOCK=infinity",
        ),
    }
}

fn programs(facts: &Facts) -> Check {
    const NAME: &str = "programs";
    match &facts.trial {
        Trial::Loaded => ok(NAME, "the kernel takes all of them (loaded and let go)"),
        Trial::Refused(why) => bad(
            NAME,
            Verdict::Fail,
            format!("the kernel refuses them: {why}"),
            "what failed above explains it; if nothing did: report it, with `uname -a` and this line",
        ),
    }
}

fn btf(facts: &Facts) -> Check {
    const NAME: &str = "btf";
    if facts.has_btf {
        ok(NAME, "/sys/kernel/btf/vmlinux is there")
    } else {
        bad(
            NAME,
            Verdict::Warn,
            "the kernel does not tell its types: no program needs them, bpftool shows less",
            "a kernel with CONFIG_DEBUG_INFO_BTF has them",
        )
    }
}

fn jit(facts: &Facts) -> Check {
    const NAME: &str = "jit";
    match facts.jit {
        Some(0) => bad(
            NAME,
            Verdict::Warn,
            "off: programs are interpreted, several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => ok(NAME, "on"),
        None => bad(NAME, Verdict::Warn, "cannot be told", "sysctl net.core.bpf_jit_enable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::cgroup2::Mount;
    use crate::dataplane::coverage::Coverage;
    use crate::doctor::Diagnosis;

    fn healthy() -> Facts {
        Facts {
            release: "6.1.0-13-cloud-amd64".to_owned(),
            cgroup2: vec![Mount { point: "/sys/fs/cgroup".into(), root: "/".to_owned() }],
            has_cgroup1: false,
            cgroup: Some(Cgroup { path: "/sys/fs/cgroup".into(), coverage: Ok(Coverage::All), in_pod: false }),
            first_cgroup_namespace: Some(true),
            pin_dir: "/sys/fs/bpf/mcs".into(),
            on_bpffs: Ok(true),
            capabilities: Some(1 << BPF | 1 << NET_ADMIN | 1 << PERFMON),
            memlock: Some(65536),
            has_btf: true,
            jit: Some(1),
            trial: Trial::Loaded,
        }
    }

    #[track_caller]
    fn check(name: &str, facts: &Facts) -> Check {
        let check = examine(facts).into_iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.verdict != Verdict::Ok, check.next.is_some(), "what is wrong has a next step: {check:?}");
        check
    }

    #[test]
    fn a_healthy_machine_is_told_so() {
        let diagnosis = Diagnosis::of(examine(&healthy()));
        assert_eq!(diagnosis.verdict, Verdict::Ok, "{diagnosis}");
        let text = diagnosis.to_string();
        assert!(text.starts_with("this machine can run an agent\n") && !text.contains('→'), "{text}");
    }

    #[test]
    fn old_kernels_are_told_what_they_lack() {
        let on = |release: &str| check("kernel", &Facts { release: release.to_owned(), ..healthy() });
        for (release, verdict) in [
            ("5.18.0", Verdict::Ok),
            ("6.18.5+", Verdict::Ok),
            ("5.17.15-76", Verdict::Fail),
            ("4.18.0-553.el8", Verdict::Fail),
            ("next", Verdict::Warn),
        ] {
            assert_eq!(on(release).verdict, verdict, "{release}");
        }
        let found = on("5.10.0-26-amd64").found;
        assert!(
            found.contains("bpf_set_retval") && found.contains("by cgroup") && !found.contains("getpeername"),
            "{found}"
        );
        assert!(on("5.4.0").found.contains("getpeername"));
    }

    #[test]
    fn hosts_with_cgroup_v1_alone_are_named() {
        let host = Facts { cgroup2: Vec::new(), has_cgroup1: true, cgroup: None, ..healthy() };
        let found = check("cgroup2", &host);
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.found.contains("only cgroup v1") && found.next.unwrap().contains("unified_cgroup_hierarchy"));
        assert_eq!(check("coverage", &host).verdict, Verdict::Fail);
        assert_eq!(check("cgroup2", &Facts { has_cgroup1: true, ..healthy() }).verdict, Verdict::Ok, "hybrid");
    }

    #[test]
    fn a_container_that_sees_its_own_cgroup_only() {
        let cgroup = |in_pod| Some(Cgroup { path: "/sys/fs/cgroup".into(), coverage: Ok(Coverage::OwnCgroup), in_pod });
        let pod = Facts { cgroup: cgroup(true), first_cgroup_namespace: Some(false), ..healthy() };
        let found = check("coverage", &pod);
        assert_eq!(found.verdict, Verdict::Fail);
        assert!(found.found.contains("hostPath"), "{}", found.found);
        let container = Facts { cgroup: cgroup(false), ..pod };
        assert_eq!(check("coverage", &container).verdict, Verdict::Warn, "it may be a node");
        let part = Facts { cgroup: cgroup(false), ..healthy() };
        assert_eq!(check("coverage", &part).verdict, Verdict::Ok, "a directory that somebody named");
    }

    #[test]
    fn missing_capabilities_are_named_and_sys_admin_includes_two() {
        let with = |capabilities: u64| check("capabilities", &Facts { capabilities: Some(capabilities), ..healthy() });
        assert_eq!(with(0).found, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing");
        assert_eq!(with(1 << SYS_ADMIN).found, "CAP_NET_ADMIN missing");
        assert_eq!(with(1 << SYS_ADMIN | 1 << NET_ADMIN).verdict, Verdict::Ok);
        assert_eq!(with(1 << BPF | 1 << NET_ADMIN).found, "CAP_PERFMON missing");
    }

    #[test]
    fn the_rest() {
        let old = Facts { release: "5.10.0".to_owned(), ..healthy() };
        assert_eq!(check("memlock", &old).verdict, Verdict::Fail);
        assert_eq!(check("memlock", &Facts { memlock: None, ..old }).verdict, Verdict::Ok);
        assert_eq!(check("memlock", &healthy()).verdict, Verdict::Ok);
        assert_eq!(check("bpffs", &Facts { on_bpffs: Ok(false), ..healthy() }).verdict, Verdict::Fail);
        assert_eq!(check("btf", &Facts { has_btf: false, ..healthy() }).verdict, Verdict::Warn);
        assert_eq!(check("jit", &Facts { jit: Some(0), ..healthy() }).verdict, Verdict::Warn);
        let refused = Facts { trial: Trial::Refused("EPERM".to_owned()), ..healthy() };
        let diagnosis = Diagnosis::of(examine(&refused));
        assert_eq!(diagnosis.verdict, Verdict::Fail);
        let text = diagnosis.to_string();
        assert!(
            text.starts_with("this machine cannot run an agent: 1 checks failed\n") && text.contains("→"),
            "{text}"
        );
    }
}
