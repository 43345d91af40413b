package sandbox

import (
	"fmt"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	llsys "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Landlock's ABI versions that brought what the sandbox relies on
// (Documentation/userspace-api/landlock.rst).
const (
	abiTCP         = 4
	abiScope       = 6
	abiResolveUnix = 9
)

// landlockABI is 0 where the kernel has no Landlock.
func landlockABI() int {
	v, err := llsys.LandlockGetABIVersion()
	if err != nil || v < 0 {
		return 0
	}
	return v
}

// confinePrivateRoot is the second lock behind the mounts of the private root:
// everything that is shown may be read, and only the writable paths, /tmp and
// the sandbox's own kernel folders may be written.
func confinePrivateRoot(s *initSpec) error {
	rw, files, err := split(s.Writable)
	if err != nil {
		return err
	}
	rules := []landlock.Rule{
		landlock.RODirs("/"),
		landlock.RWDirs(slices.Concat(rw, []string{"/tmp"})...).WithRefer().WithResolveUnix(),
		landlock.RWDirs("/proc", "/dev").WithIoctlDev(),
	}
	if len(files) > 0 {
		rules = append(rules, landlock.RWFiles(files...))
	}
	// The network namespace bounds the network; loopback inside stays free.
	if err := landlock.V11.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("restrict paths: %w", err)
	}
	return nil
}

// confineSharedRoot is the whole file and network policy of the Landlock layer.
func confineSharedRoot(s *initSpec) error {
	roDirs, roFiles, err := split(slices.Concat(existing(systemPaths), existing([]string{"/proc"}), s.ReadOnly, s.Executables))
	if err != nil {
		return err
	}
	rwDirs, rwFiles, err := split(slices.Concat(s.Writable, []string{s.Scratch}))
	if err != nil {
		return err
	}
	rules := []landlock.Rule{
		landlock.RODirs(roDirs...),
		landlock.RWDirs(rwDirs...).WithRefer().WithResolveUnix(),
		landlock.RWDirs("/dev/shm").IgnoreIfMissing(),
		landlock.RWFiles(existing(devicePaths(0))...).WithIoctlDev(),
	}
	// Name service and account files are configuration, readable by everyone.
	roFiles = append(roFiles, existing([]string{"/etc/passwd", "/etc/group", "/etc/hosts", "/etc/nsswitch.conf"})...)
	if len(roFiles) > 0 {
		rules = append(rules, landlock.ROFiles(roFiles...))
	}
	if len(rwFiles) > 0 {
		rules = append(rules, landlock.RWFiles(rwFiles...))
	}
	if s.GPUs > 0 {
		devDirs, devFiles, err := split(gpuDevices())
		if err != nil {
			return err
		}
		rules = append(rules, landlock.RWFiles(devFiles...).WithIoctlDev(), landlock.RODirs(devDirs...), landlock.RODirs("/sys").IgnoreIfMissing())
	}
	if s.ProxyPort != 0 {
		rules = append(rules, landlock.ConnectTCP(uint16(s.ProxyPort)))
	}
	if err := landlock.V11.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("restrict: %w", err)
	}
	return nil
}

// split parts folders from other files, for which fewer rights exist.
func split(paths []string) (dirs, files []string, err error) {
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return nil, nil, fmt.Errorf("stat %s: %w", p, err)
		}
		if st.IsDir() {
			dirs = append(dirs, p)
		} else {
			files = append(files, p)
		}
	}
	return dirs, files, nil
}

func existing(paths []string) []string {
	var out []string
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// landlockGaps says what the Landlock layer leaves open on this kernel.
func landlockGaps(abi int, hosts bool, haveFilter bool) []string {
	gaps := []string{
		"the command sees the names of other processes and the machine's own /proc and /etc",
		"loopback servers of the command itself do not work",
		"/dev/shm is shared with the machine",
	}
	if abi < abiScope {
		gaps = append(gaps, "the command may send signals to other processes of the same user, and use abstract Unix sockets")
	}
	if hosts && abi < abiTCP {
		gaps = append(gaps, "the command may reach any host over TCP, not only the proxy")
	}
	if !haveFilter {
		gaps = append(gaps, "UDP and raw sockets are not restricted, and system calls are not filtered")
		if abi < abiTCP {
			gaps = append(gaps, "TCP is not restricted")
		}
		if abi < abiResolveUnix {
			gaps = append(gaps, "the command may connect to Unix sockets of other programs where file permissions allow it")
		}
	} else if abi < abiResolveUnix {
		gaps = append(gaps, "Unix sockets are refused altogether, so multiprocessing managers do not work")
	}
	return gaps
}
