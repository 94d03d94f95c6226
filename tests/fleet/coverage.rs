//! A program on a node's cgroup covers the node's own sockets and its pods', and nobody else's: for sockets of threads of
//! this process as for those of children. All tests of the dataplane rest on this.

use std::ffi::c_void;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Command;

use mcs_tests::{Family, Fleet, Place, require_root};

#[test]
fn programs_on_a_nodes_cgroup_cover_its_pods_and_no_other_node() {
    require_root!();
    let fleet = Fleet::builder().clusters(2).nodes(2).build().unwrap();
    let _link = refuse_connect4(fleet.node("a1").cgroup()).unwrap();
    for place in places(&fleet) {
        let covered = place.name() == "a1" || place.name() == "a1p1";
        assert_eq!(connect(place, Family::V4), if covered { libc::EPERM } else { libc::ECONNREFUSED }, "{place:?}");
        assert_eq!(connect(place, Family::V6), libc::ECONNREFUSED, "{place:?}: another hook");
    }
    // Threads of this process that are in no place.
    assert_eq!(connect_here(Family::V4), libc::ECONNREFUSED);
}

#[test]
fn a_link_ends_with_its_descriptor() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let link = refuse_connect4(fleet.node("a1").cgroup()).unwrap();
    assert_eq!(connect(fleet.pod("a1p1"), Family::V4), libc::EPERM);
    drop(link);
    assert_eq!(connect(fleet.pod("a1p1"), Family::V4), libc::ECONNREFUSED);
}

#[test]
fn children_and_their_sockets_are_in_their_place() {
    require_root!();
    let fleet = Fleet::builder().nodes(2).build().unwrap();
    let root = mcs_tests::cgroup::root().unwrap();
    for place in places(&fleet) {
        let mut cat = Command::new("cat");
        cat.arg("/proc/self/cgroup");
        let said = place.stdout(cat).unwrap();
        let inside = place.cgroup().strip_prefix(root).unwrap().to_str().unwrap();
        assert!(said.lines().any(|line| line == format!("0::/{inside}")), "{place:?}: {said}");

        let mut addresses = Command::new("ip");
        addresses.args(["-brief", "address"]);
        let said = place.stdout(addresses).unwrap();
        let own = match fleet.pods().find(|pod| pod.name() == place.name()) {
            Some(pod) => pod.ip(Family::V4),
            None => fleet.node(place.name()).ip(Family::V4),
        };
        assert!(said.contains(&format!("{own}/32")), "{place:?}: {said}");
    }
}

#[test]
fn a_socket_stays_covered_when_another_thread_uses_it() {
    require_root!();
    let fleet = Fleet::builder().build().unwrap();
    let pod = fleet.pod("a1p1");
    let _link = refuse_connect4(fleet.node("a1").cgroup()).unwrap();
    let socket = pod.run(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
    // This thread is in no place; the socket is the pod's.
    let error = socket.connect(pod.socket(Family::V4, 9)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
}

fn places(fleet: &Fleet) -> impl Iterator<Item = &Place> {
    fleet.pods().map(|pod| &**pod).chain(fleet.nodes().iter().map(|node| &**node))
}

fn connect(place: &Place, family: Family) -> i32 {
    place.run(|| connect_here(family))
}

/// The error of a connect to a port of the loopback where nobody listens.
fn connect_here(family: Family) -> i32 {
    let loopback = match family {
        Family::V4 => "127.0.0.1:1",
        Family::V6 => "[::1]:1",
    };
    let to: SocketAddr = loopback.parse().unwrap();
    TcpStream::connect(to).unwrap_err().raw_os_error().unwrap()
}

/// Attaches the shortest program that does something: every IPv4 connect fails with EPERM. By hand, because this tests
/// the ground that a loader would stand on.
fn refuse_connect4(cgroup: &Path) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_LINK_CREATE: libc::c_int = 28;
    const PROG_TYPE_CGROUP_SOCK_ADDR: u32 = 18;
    const CGROUP_INET4_CONNECT: u32 = 10;
    /// `r0 = 0; exit`
    const REFUSE: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

    #[repr(C)]
    #[derive(Default)]
    struct ProgLoad {
        prog_type: u32,
        insn_cnt: u32,
        insns: u64,
        license: u64,
        log: [u32; 4],
        kern_version: u32,
        prog_flags: u32,
        prog_name: [u8; 16],
        prog_ifindex: u32,
        expected_attach_type: u32,
    }
    #[repr(C)]
    struct LinkCreate {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }

    let load = ProgLoad {
        prog_type: PROG_TYPE_CGROUP_SOCK_ADDR,
        insn_cnt: REFUSE.len() as u32,
        insns: REFUSE.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: CGROUP_INET4_CONNECT,
        ..ProgLoad::default()
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let cgroup = std::fs::File::open(cgroup)?;
    let link = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type: CGROUP_INET4_CONNECT,
        flags: 0,
    };
    bpf(BPF_LINK_CREATE, &link)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    let attributes = std::ptr::from_ref(attributes).cast::<c_void>();
    // SAFETY: the attributes are a live struct of the given size, and so is what they point to (constants).
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}
