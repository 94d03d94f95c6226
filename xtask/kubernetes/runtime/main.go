// Command runc-uncontrolled is runc for machines that cannot grant all that Kubernetes asks of one: it takes out of what
// containerd wrote what the machine lacks, and becomes runc (the program beside it).
//
//   - Limits: on a machine whose controllers are bound to cgroup v1, cgroup2 has none, and runc refuses a limit without
//     its controller. Device rules stay: on cgroup2 they are an eBPF program.
//   - Capabilities outside our own bounding set, as CAP_SYS_RESOURCE mostly is in a virtual machine of a CI system:
//     nobody can have them, and runc refuses to start a process that should.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// object is a JSON object of which we know only parts.
type object = map[string]json.RawMessage

// The names of the capabilities by their numbers, from linux/capability.h.
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
	"SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME",
	"SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
	"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// grantable says whether a process of ours can have a capability; one that is newer than our list is left to runc.
func grantable(name string) bool {
	number := slices.Index(capabilities, strings.TrimPrefix(name, "CAP_"))
	if number < 0 {
		return true
	}
	const readBounding = 23 // PR_CAPBSET_READ
	has, _, errno := syscall.Syscall(syscall.SYS_PRCTL, readBounding, uintptr(number), 0)
	return errno != 0 || has == 1
}

// in replaces the object that is the value of a key, if there is one.
func in(o object, key string, change func(object) error) error {
	var inner object
	if o[key] == nil || json.Unmarshal(o[key], &inner) != nil || inner == nil {
		return nil
	}
	if err := change(inner); err != nil {
		return err
	}
	changed, err := json.Marshal(inner)
	o[key] = changed
	return err
}

func withoutCapabilities(process object) error {
	return in(process, "capabilities", func(sets object) error {
		for name, set := range sets {
			var wanted []string
			if err := json.Unmarshal(set, &wanted); err != nil {
				return fmt.Errorf("capabilities: %s: %w", name, err)
			}
			wanted = slices.DeleteFunc(wanted, func(capability string) bool { return !grantable(capability) })
			left, err := json.Marshal(wanted)
			if err != nil {
				return err
			}
			sets[name] = left
		}
		return nil
	})
}

func withoutLimits(container object) error {
	if err := in(container, "process", withoutCapabilities); err != nil {
		return err
	}
	return in(container, "linux", func(linux object) error {
		return in(linux, "resources", func(resources object) error {
			for kind := range resources {
				if kind != "devices" {
					delete(resources, kind)
				}
			}
			return nil
		})
	})
}

func rewrite(path string, change func(object) error) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var whole object
	if err := json.Unmarshal(text, &whole); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := change(whole); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if text, err = json.Marshal(whole); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// option is the value of a flag, written as one word or as two.
func option(arguments []string, names ...string) string {
	for i, argument := range arguments {
		name, value, joined := strings.Cut(argument, "=")
		if !slices.Contains(names, name) {
			continue
		}
		if joined {
			return value
		}
		if i+1 < len(arguments) {
			return arguments[i+1]
		}
	}
	return ""
}

// prepare does what has to be done before runc sees the arguments; done says that nothing is left for it to do.
func prepare(arguments []string) (done bool, err error) {
	verbs := []string{"create", "run", "exec", "update"}
	at := slices.IndexFunc(arguments, func(argument string) bool { return slices.Contains(verbs, argument) })
	if at < 0 {
		return false, nil
	}
	verb, rest := arguments[at], arguments[at+1:]
	switch verb {
	case "update": // limits again
		return true, nil
	case "exec":
		if process := option(rest, "--process", "-p"); process != "" {
			return false, rewrite(process, withoutCapabilities)
		}
		return false, nil
	default:
		bundle := option(rest, "--bundle", "-b")
		return false, rewrite(filepath.Join(bundle, "config.json"), withoutLimits)
	}
}

func run() error {
	done, err := prepare(os.Args[1:])
	if err != nil || done {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	runc := filepath.Join(filepath.Dir(own), "runc")
	return syscall.Exec(runc, append([]string{runc}, os.Args[1:]...), os.Environ())
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "runc-uncontrolled:", err)
		os.Exit(1)
	}
}
