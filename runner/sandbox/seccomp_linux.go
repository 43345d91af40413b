//go:build linux && (amd64 || arm64)

package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets into struct seccomp_data (linux/seccomp.h); arguments are 64 bits
// wide and their low half comes first on these little-endian machines.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// x32Bit marks a call of the x32 ABI on amd64, which would slip past the numbers below.
const x32Bit = 0x40000000

// denied are calls that only widen the kernel's surface: other namespaces and
// mounts, other processes' memory, keyrings, kernel tracing and loading, the
// clock, and io_uring, which performs calls that no filter sees.
var denied = append([]uint32{
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_FSCONFIG, unix.SYS_FSPICK,
	unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR, unix.SYS_UNSHARE, unix.SYS_SETNS,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_NAME_TO_HANDLE_AT,
	unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_SYSLOG, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX,
	unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
}, deniedArch...)

// unheard are calls answered with ENOSYS, so that programs fall back to an
// older call whose arguments are in registers and can be judged.
var unheard = []uint32{unix.SYS_CLONE3, unix.SYS_OPENAT2}

// modeCall is a call that sets file permissions with argument mode; where
// flags is not 0 it does so only if that argument asks for a new file.
type modeCall struct{ nr, mode, flags uint32 }

var modeCalls = append([]modeCall{
	{unix.SYS_FCHMOD, 1, 0}, {unix.SYS_FCHMODAT, 2, 0}, {unix.SYS_FCHMODAT2, 2, 0}, {unix.SYS_MKNODAT, 2, 0}, {unix.SYS_OPENAT, 3, 2},
}, modeCallsArch...)

// createFlags are O_CREAT and the bit that tells O_TMPFILE from O_DIRECTORY.
const createFlags = unix.O_CREAT | unix.O_TMPFILE&^unix.O_DIRECTORY

const cloneNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// sockets says which socket families a command may open.
type sockets struct {
	Unix bool
	Inet bool // any use of IPv4 and IPv6
	TCP  bool // TCP only
}

// program is a filter under construction.
type program []unix.SockFilter

func (p *program) stmt(code uint16, k uint32) { *p = append(*p, unix.SockFilter{Code: code, K: k}) }

func (p *program) load(offset uint32) { p.stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset) }

func (p *program) loadArg(n uint32) { p.load(dataArgs + 8*n) }

func (p *program) ret(k uint32) { p.stmt(unix.BPF_RET|unix.BPF_K, k) }

// when runs body if the loaded word satisfies op with k, and goes on behind it
// otherwise.
func (p *program) when(op uint16, k uint32, body func(*program)) {
	var inner program
	body(&inner)
	*p = append(*p, unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jf: uint8(len(inner))})
	*p = append(*p, inner...)
}

func errnoRet(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

// filter builds the program for the given socket rules.
func filter(s sockets) []unix.SockFilter {
	var p program
	p.load(dataArch)
	p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: auditArch, Jt: 1})
	p.ret(unix.SECCOMP_RET_KILL_PROCESS)
	p.load(dataNr)
	p.when(unix.BPF_JGE, x32Bit, func(p *program) { p.ret(errnoRet(unix.ENOSYS)) })
	for _, nr := range denied {
		p.when(unix.BPF_JEQ, nr, func(p *program) { p.ret(errnoRet(unix.EPERM)) })
	}
	for _, nr := range unheard {
		p.when(unix.BPF_JEQ, nr, func(p *program) { p.ret(errnoRet(unix.ENOSYS)) })
	}
	p.when(unix.BPF_JEQ, unix.SYS_CLONE, func(p *program) {
		p.loadArg(0)
		p.when(unix.BPF_JSET, cloneNamespaces, func(p *program) { p.ret(errnoRet(unix.EPERM)) })
		p.ret(unix.SECCOMP_RET_ALLOW)
	})
	// A set-uid file made here would carry the user's own uid outside.
	for _, c := range modeCalls {
		p.when(unix.BPF_JEQ, c.nr, func(p *program) {
			judge := func(p *program) {
				p.loadArg(c.mode)
				p.when(unix.BPF_JSET, unix.S_ISUID|unix.S_ISGID, func(p *program) { p.ret(errnoRet(unix.EPERM)) })
			}
			if c.flags == 0 {
				judge(p)
			} else {
				p.loadArg(c.flags)
				p.when(unix.BPF_JSET, createFlags, judge)
			}
			p.ret(unix.SECCOMP_RET_ALLOW)
		})
	}
	// TIOCSTI and TIOCLINUX type into a terminal.
	p.when(unix.BPF_JEQ, unix.SYS_IOCTL, func(p *program) {
		p.loadArg(1)
		p.when(unix.BPF_JEQ, unix.TIOCSTI, func(p *program) { p.ret(errnoRet(unix.EPERM)) })
		p.when(unix.BPF_JEQ, unix.TIOCLINUX, func(p *program) { p.ret(errnoRet(unix.EPERM)) })
		p.ret(unix.SECCOMP_RET_ALLOW)
	})
	p.when(unix.BPF_JEQ, unix.SYS_SOCKET, func(p *program) { socketRules(p, s) })
	p.ret(unix.SECCOMP_RET_ALLOW)
	return p
}

// socketRules allow families one by one: AF_VSOCK and others know no network
// namespace.
func socketRules(p *program, s sockets) {
	allow := func(p *program) { p.ret(unix.SECCOMP_RET_ALLOW) }
	p.loadArg(0)
	p.when(unix.BPF_JEQ, unix.AF_NETLINK, allow)
	if s.Unix {
		p.when(unix.BPF_JEQ, unix.AF_UNIX, allow)
	}
	for _, family := range []uint32{unix.AF_INET, unix.AF_INET6} {
		switch {
		case s.Inet:
			p.when(unix.BPF_JEQ, family, allow)
		case s.TCP:
			p.when(unix.BPF_JEQ, family, func(p *program) {
				p.loadArg(1)
				p.stmt(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, 0xf) // SOCK_CLOEXEC and SOCK_NONBLOCK lie above
				p.when(unix.BPF_JEQ, unix.SOCK_STREAM, func(p *program) {
					p.loadArg(2) // Landlock does not see multipath TCP
					p.when(unix.BPF_JEQ, 0, allow)
					p.when(unix.BPF_JEQ, unix.IPPROTO_TCP, allow)
				})
				p.ret(errnoRet(unix.EAFNOSUPPORT))
			})
		}
	}
	p.ret(errnoRet(unix.EAFNOSUPPORT))
}

// installFilter confines the calling thread and what it starts.
func installFilter(s sockets) error {
	f := filter(s)
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("install seccomp filter: %w", err)
	}
	return nil
}

// haveSeccomp reports whether the kernel takes filters: with a nil program it
// answers EFAULT where it would (seccomp(2)).
func haveSeccomp() bool {
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0) == unix.EFAULT
}
