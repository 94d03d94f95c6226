#!/bin/sh
# Process 1 of a node: in namespaces of its own for mounts, processes, network, host name, IPC and cgroups, it arranges
# what the node sees of the file system, and keeps containerd, kubelet and kube-proxy running as an init system would.
# When it ends, everything of the node ends.
#
#   node.sh NAME DIRECTORY IMAGES MORE [PROGRAM OF KUBE-PROXY AND ITS ARGUMENTS]
#
# DIRECTORY holds the node's files; DIRECTORY/etc was filled by who starts this. IMAGES and MORE hold archives to load.
set -eu
name=$1 own=$2 images=$3 more=$4
shift 4

mount --make-rprivate /
mount -t proc proc /proc
# The cgroup v1 hierarchies go out of sight; what is mounted instead shows this node's subtree alone.
umount -l /sys
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null || true
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/sysctl
for directory in etc opt var; do
    mkdir -p "$own/$directory" "$own/work/$directory"
    mount -t overlay overlay -o "lowerdir=/$directory,upperdir=$own/$directory,workdir=$own/work/$directory" "/$directory"
done
# An overlay cannot lie on an overlay, and containerd makes some.
for directory in lib/containerd lib/kubelet log; do
    mkdir -p "$own/real/$directory" "/var/$directory"
    mount --bind "$own/real/$directory" "/var/$directory"
done
# kubelet wants these set, and they are the whole machine's: it finds the wanted values here and leaves them.
while read -r value key; do
    echo "$value" >"/run/sysctl/$(basename "$key")"
    mount --bind "/run/sysctl/$(basename "$key")" "/proc/sys/$key"
done <<SYSCTLS
1 vm/overcommit_memory
10 kernel/panic
1 kernel/panic_on_oops
SYSCTLS
mount --make-rshared /
hostname "$name"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
echo 0 >/proc/sys/net/ipv4/conf/default/rp_filter
# The CNI plugin ptp gives the host's end of a pod's link an address and does not wait until the kernel has looked for another
# who has it: until then, a second or two, the pod has no gateway for IPv6. Its kubelet asks by IPv4 and calls it Ready before.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables; fi

keep() {
    log=/var/log/$1.log
    shift
    while :; do
        "$@" >>"$log" 2>&1 || true
        echo "--- ended, starts again" >>"$log"
        sleep 1
    done
}

keep containerd containerd --config /etc/containerd/config.toml &
until ctr --connect-timeout 1s version >/dev/null 2>&1; do sleep 0.1; done
for archive in "$images"/*.tar "$more"/*.tar; do
    [ -e "$archive" ] || continue
    ctr --namespace k8s.io images import --local "$archive" >>/var/log/import.log 2>&1
done
keep kubelet kubelet --config /etc/kubernetes/kubelet.json --kubeconfig /etc/kubernetes/kubelet.kubeconfig \
    --hostname-override "$name" --node-ip "$NODE_IPS" &
if [ $# -gt 0 ]; then keep kube-proxy "$@" & fi
wait
