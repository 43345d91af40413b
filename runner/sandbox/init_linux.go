package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initSpec is what the first process of a sandbox is told. It travels in an
// anonymous memory file, so that nothing of it is seen in a process list.
type initSpec struct {
	Layer       Layer
	Argv        []string
	Dir         string
	Env         []string
	Writable    []string
	ReadOnly    []string
	Executables []string
	Scratch     string
	TmpBytes    int64
	UID, GID    int
	SwitchUser  bool // become UID before the command starts
	DropCaps    bool
	Sockets     sockets
	Listen      bool // make the proxy's listener in this network namespace
	ProxyPort   int
	Limits      Limits
	NProc       int // RLIMIT_NPROC, 0 for none
	GPUs        int
	Probe       bool // set everything up and leave
}

// The first process's descriptors beyond the standard ones.
const (
	controlFD = 3
	specFD    = 4
)

// proxyPort is the proxy's port on the loopback address of a sandbox that has
// a network namespace of its own.
const proxyPort = 3128

// report is one message of the first process to its parent.
type report struct {
	Ready      bool   // with the listener's descriptor where there is one
	Failed     string // the sandbox could not be set up
	StartError string // the command could not be started
	Exited     bool
	Code       int
	Signal     int
	CPUSeconds float64
	MaxRSS     int64
	Applied    []string `json:",omitempty"` // layers that took hold inside
}

// InitMain is the first process of a sandbox. It is called by the hidden
// command that [Config].Init names and never by a person; its result is the
// exit status.
func InitMain([]string) int {
	// Landlock, seccomp, capabilities and the parent-death signal belong to
	// threads: everything happens on this one.
	runtime.LockOSThread()
	in, err := openInit()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := in.setUp(); err != nil {
		in.send(report{Failed: err.Error()})
		return 1
	}
	return in.run()
}

type initProcess struct {
	spec    initSpec
	control *net.UnixConn
	applied []string
}

func openInit() (*initProcess, error) {
	if err := KeepDescriptors(); err != nil {
		return nil, err
	}
	f := os.NewFile(specFD, "spec")
	defer f.Close()
	in := &initProcess{}
	if err := json.NewDecoder(io.NewSectionReader(f, 0, 1<<30)).Decode(&in.spec); err != nil {
		return nil, errors.New("this command is started by repromill itself to build a sandbox, and not by hand")
	}
	cf := os.NewFile(controlFD, "control")
	defer cf.Close()
	c, err := net.FileConn(cf)
	if err != nil {
		return nil, fmt.Errorf("open control socket: %w", err)
	}
	in.control, _ = c.(*net.UnixConn)
	if in.control == nil {
		return nil, errors.New("control socket has the wrong type")
	}
	return in, nil
}

// KeepDescriptors marks every descriptor beyond the standard ones, also those
// that this program inherited from whoever started it, so that no program
// started from here on gets one.
func KeepDescriptors() error {
	if unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list descriptors: %w", err)
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

func (in *initProcess) send(r report, fds ...int) {
	b, err := json.Marshal(r)
	if err != nil {
		return
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	in.control.WriteMsgUnix(b, oob, nil) // a parent that is gone needs no report
}

// setUp builds the sandbox around this process.
func (in *initProcess) setUp() error {
	s := &in.spec
	// When the machine runs out of memory, this tree is to go first. The file
	// is out of reach once no other process may look into this one.
	os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	listener := -1
	switch s.Layer {
	case Namespaces:
		if err := privateRoot(s); err != nil {
			return err
		}
		if err := unix.Sethostname([]byte("sandbox")); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
	default:
		// Orphans of the command come to this process instead of the machine's init.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become subreaper: %w", err)
		}
	}
	if s.Listen {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: proxyPort})
		if err != nil {
			return fmt.Errorf("listen for proxy: %w", err)
		}
		f, err := l.File()
		l.Close()
		if err != nil {
			return fmt.Errorf("hand out listener: %w", err)
		}
		defer f.Close()
		listener = int(f.Fd())
	}
	if err := os.Chdir(s.Dir); err != nil && !s.Probe {
		return fmt.Errorf("enter working folder: %w", err)
	}
	if err := in.confine(); err != nil {
		return err
	}
	if listener >= 0 {
		in.send(report{Ready: true, Applied: in.applied}, listener)
	} else {
		in.send(report{Ready: true, Applied: in.applied})
	}
	return nil
}

// confine gives up rights, in the order in which each step is still allowed.
func (in *initProcess) confine() error {
	s := &in.spec
	if err := setLimits(s); err != nil {
		return err
	}
	in.applied = append(in.applied, "rlimit")
	if s.Layer == None {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if landlockABI() > 0 {
		confine := confinePrivateRoot
		if s.Layer == Landlock {
			confine = confineSharedRoot
		}
		if err := confine(s); err != nil {
			return fmt.Errorf("landlock: %w", err)
		}
		in.applied = append(in.applied, "landlock")
	}
	if s.DropCaps {
		if err := dropBounding(); err != nil {
			return err
		}
	}
	if haveSeccomp() {
		if err := installFilter(s.Sockets); err != nil {
			return err
		}
		in.applied = append(in.applied, "seccomp")
	}
	return nil
}

// setLimits bounds what the kernel counts per process; the command inherits it.
func setLimits(s *initSpec) error {
	set := func(name string, which int, v uint64) error {
		var cur unix.Rlimit
		if err := unix.Getrlimit(which, &cur); err == nil {
			v = min(v, cur.Max)
		}
		// The syscall package must be the one to set RLIMIT_NOFILE: it puts
		// its own start value back at exec otherwise.
		if err := syscall.Setrlimit(which, &syscall.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("limit %s: %w", name, err)
		}
		return nil
	}
	err := errors.Join(set("core files", unix.RLIMIT_CORE, 0), set("open files", unix.RLIMIT_NOFILE, 65536), set("message queues", unix.RLIMIT_MSGQUEUE, 1<<20))
	if s.Limits.FileBytes > 0 {
		err = errors.Join(err, set("file size", unix.RLIMIT_FSIZE, uint64(s.Limits.FileBytes)))
	}
	if s.NProc > 0 {
		err = errors.Join(err, set("processes", unix.RLIMIT_NPROC, uint64(s.NProc)))
	}
	return err
}

// dropBounding makes capabilities unreachable for everything this thread
// starts. The thread keeps what it needs to change its child's uid.
func dropBounding() error {
	unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for c := range uintptr(64) {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL {
			break // beyond the last capability of this kernel
		} else if err != nil && (err != unix.EPERM || os.Geteuid() == 0) {
			// An ordinary user has none to drop and may not try.
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("clear inheritable capabilities: %w", err)
	}
	return nil
}

// loopbackUp brings up lo (netdevice(7)).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name loopback: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// run waits for the word to go, starts the command and reports its end.
func (in *initProcess) run() int {
	var buf [16]byte
	if n, err := in.control.Read(buf[:]); err != nil || !bytes.Equal(buf[:n], []byte("go")) {
		return 1
	}
	if in.spec.Probe {
		return 0
	}
	orphaned := make(chan struct{})
	go func() {
		// Nothing more is said on this socket: a read ends when the parent is
		// gone or closes its end.
		in.control.Read(buf[:])
		close(orphaned)
	}()
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	pid, err := in.start()
	if err != nil {
		in.send(report{StartError: err.Error()})
		return 0
	}
	r, ok := reap(pid, children, orphaned)
	if in.spec.Layer != Namespaces {
		// On this thread: before ABI 8 every thread has a Landlock domain of
		// its own, and may signal only what descends from it.
		sweepDescendants(os.Getpid())
	}
	if !ok {
		return 1 // in a pid namespace the kernel kills all that is left
	}
	in.send(r)
	return 0
}

// start looks the command up the way execvp(3) does and starts it.
func (in *initProcess) start() (int, error) {
	s := &in.spec
	null, err := os.OpenFile("/dev/null", os.O_RDONLY, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/null: %w", err)
	}
	defer null.Close()
	attr := &syscall.ProcAttr{Env: s.Env, Files: []uintptr{null.Fd(), 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}}
	if s.SwitchUser {
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(s.UID), Gid: uint32(s.GID)}
	}
	path := lookInside(s.Argv[0], s.Env)
	if path == "" {
		return 0, fmt.Errorf("%q is not found inside the sandbox: its folder is not in PATH or not among the readable paths", s.Argv[0])
	}
	pid, err := syscall.ForkExec(path, s.Argv, attr)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", path, err)
	}
	return pid, nil
}

func lookInside(name string, env []string) string {
	if bytes.ContainsRune([]byte(name), '/') {
		return name
	}
	for _, kv := range env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			return lookExecutable(name, kv[5:])
		}
	}
	return ""
}

// reap collects every process that ends until the command does. It gives up,
// with ok false, when there is no parent any more to report to.
func reap(pid int, children <-chan os.Signal, orphaned <-chan struct{}) (r report, ok bool) {
	r.Exited = true
	for {
		select {
		case <-orphaned:
			return r, false
		case <-children:
		}
		for {
			var ws unix.WaitStatus
			var ru unix.Rusage
			got, err := unix.Wait4(-1, &ws, unix.WNOHANG, &ru)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if got <= 0 {
				break
			}
			r.CPUSeconds += time.Duration(ru.Utime.Nano() + ru.Stime.Nano()).Seconds()
			r.MaxRSS = max(r.MaxRSS, ru.Maxrss<<10)
			if got != pid {
				continue
			}
			if r.Code = ws.ExitStatus(); ws.Signaled() {
				r.Signal = int(ws.Signal())
				r.Code = 128 + r.Signal
			}
			return r, true
		}
	}
}
