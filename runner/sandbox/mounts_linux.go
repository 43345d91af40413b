package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// systemPaths are shown read-only where they exist: programs, libraries and
// the few configuration files that programs cannot do without. Nothing below
// them is private to a user.
var systemPaths = []string{
	"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store",
	"/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
	"/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ca-certificates", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted", "/etc/crypto-policies",
	"/etc/localtime", "/etc/timezone", "/etc/mime.types", "/etc/protocols", "/etc/services", "/etc/fonts",
	"/etc/os-release", "/etc/lsb-release", "/etc/debian_version", "/etc/redhat-release", "/etc/fedora-release", "/etc/alpine-release", "/etc/arch-release", "/etc/SuSE-release",
	"/etc/OpenCL", "/etc/magic", "/etc/inputrc", "/etc/terminfo", "/etc/matplotlibrc",
	"/sys/devices/system",
}

// gpuPaths are added when the command was given GPUs.
var gpuPaths = []string{"/sys", "/etc/vulkan", "/etc/glvnd"}

var deviceNodes = []string{"null", "zero", "full", "random", "urandom"}

// gpuDevices lists NVIDIA's device nodes and folders.
func gpuDevices() []string {
	found, _ := filepath.Glob("/dev/nvidia*")
	return found
}

const (
	roAttr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	rwAttr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	base   = "/tmp" // where the root is assembled before it becomes the root
)

// bind is one path of the machine to be shown inside at the same name.
type bind struct {
	path string
	fd   int // a detached mount
	dir  bool
}

// privateRoot replaces the root of this mount namespace. The caller is the
// first process of fresh user, mount and pid namespaces.
func privateRoot(s *initSpec) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	links, binds, err := openBinds(s)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", base, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=16m,nr_inodes=16k,mode=755"); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	root, err := unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open root: %w", err)
	}
	defer unix.Close(root)
	if err := skeleton(s); err != nil {
		return err
	}
	for _, l := range links {
		if err := os.Symlink(l[1], base+l[0]); err != nil {
			return fmt.Errorf("link %s: %w", l[0], err)
		}
	}
	for _, b := range binds {
		if err := b.attach(root); err != nil {
			return fmt.Errorf("show %s: %w", b.path, err)
		}
	}
	return pivot(root)
}

// openBinds clones everything that will be shown, while the machine's own root
// is still in place. Shorter names come first, so that nested ones end on top.
func openBinds(s *initSpec) (links [][2]string, binds []bind, err error) {
	sys := systemPaths
	if s.GPUs > 0 {
		sys = slices.Concat(sys, gpuPaths)
	}
	for _, p := range sys {
		st, err := os.Lstat(p)
		if err != nil {
			continue
		}
		if target, err := os.Readlink(p); err == nil && st.Mode()&os.ModeSymlink != 0 && filepath.Dir(p) == "/" {
			links = append(links, [2]string{p, target})
			continue
		}
		b, err := openBind(p, nil, roAttr)
		if err != nil {
			return nil, nil, err
		}
		binds = append(binds, b)
	}
	for _, p := range slices.Concat(s.ReadOnly, s.Executables) {
		b, err := openBind(p, s.Writable, roAttr)
		if err != nil {
			return nil, nil, err
		}
		binds = append(binds, b)
	}
	for _, p := range s.Writable {
		b, err := openBind(p, nil, rwAttr)
		if err != nil {
			return nil, nil, err
		}
		binds = append(binds, b)
	}
	for _, p := range devicePaths(s.GPUs) {
		if b, err := openBind(p, nil, unix.MOUNT_ATTR_NOSUID); err == nil {
			binds = append(binds, b)
		}
	}
	slices.SortStableFunc(binds, func(a, b bind) int { return strings.Count(a.path, "/") - strings.Count(b.path, "/") })
	return links, binds, nil
}

func devicePaths(gpus int) []string {
	var out []string
	for _, n := range deviceNodes {
		out = append(out, "/dev/"+n)
	}
	if gpus > 0 {
		out = append(out, gpuDevices()...)
	}
	return out
}

// openBind clones the mount tree at p. Where p lies below a writable path, its
// remaining components may have been made by untrusted code in an earlier run,
// so no symlink among them is followed.
func openBind(p string, writable []string, attr uint64) (bind, error) {
	b := bind{path: p}
	at, name, flags := unix.AT_FDCWD, p, uint(0)
	if outer := holder(p, writable); outer != "" {
		w, err := unix.Open(outer, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return b, fmt.Errorf("open %s: %w", outer, err)
		}
		defer unix.Close(w)
		inner, err := unix.Openat2(w, strings.TrimPrefix(p, outer+"/"), &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
		})
		if err != nil {
			return b, fmt.Errorf("open %s below %s without following links: %w", p, outer, err)
		}
		defer unix.Close(inner)
		at, name, flags = inner, "", unix.AT_EMPTY_PATH
	}
	fd, err := unix.OpenTree(at, name, flags|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return b, fmt.Errorf("clone mount of %s: %w", p, err)
	}
	b.fd = fd
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr}); err != nil {
		return b, fmt.Errorf("restrict mount of %s: %w", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return b, fmt.Errorf("stat %s: %w", p, err)
	}
	b.dir = st.Mode&unix.S_IFMT == unix.S_IFDIR
	return b, nil
}

// holder is the writable path that p lies below, if any.
func holder(p string, writable []string) string {
	for _, w := range writable {
		if w != p && within(p, w) {
			return w
		}
	}
	return ""
}

// attach mounts b below root, which nothing inside can lead out of.
func (b bind) attach(root int) error {
	target, err := makeTarget(root, b.path, b.dir)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	defer unix.Close(b.fd)
	return unix.MoveMount(b.fd, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// makeTarget opens p below root, making it and its parents where they lack.
func makeTarget(root int, p string, dir bool) (int, error) {
	rel := strings.TrimPrefix(p, "/")
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT}
	if rel == "" {
		rel = "."
	}
	fd, err := unix.Openat2(root, rel, how)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, err := makeTarget(root, filepath.Dir(p), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	name := filepath.Base(p)
	if dir {
		err = unix.Mkdirat(parent, name, 0o755)
	} else {
		var f int
		if f, err = unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC|unix.O_WRONLY, 0o644); err == nil {
			unix.Close(f)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("make %s: %w", p, err)
	}
	return unix.Openat2(root, rel, how)
}

// skeleton makes what is the sandbox's own: /proc, /dev, /tmp and a few files.
func skeleton(s *initSpec) error {
	for _, d := range []string{"/proc", "/dev", "/tmp", "/etc", "/var", "/run", "/root", "/home"} {
		if err := os.Mkdir(base+d, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", d, err)
		}
	}
	nosuid := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	mounts := []struct {
		kind, at string
		flags    uintptr
		data     string
	}{
		{"proc", "/proc", nosuid | unix.MS_NOEXEC, ""},
		{"tmpfs", "/tmp", nosuid, fmt.Sprintf("size=%d,mode=1777", s.TmpBytes)},
		{"tmpfs", "/dev", unix.MS_NOSUID | unix.MS_NOEXEC, "size=1m,mode=755"},
		{"tmpfs", "/dev/shm", nosuid, fmt.Sprintf("size=%d,mode=1777", s.TmpBytes)},
		{"devpts", "/dev/pts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(base+m.at, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, base+m.at, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, l := range [][2]string{
		{"/dev/fd", "/proc/self/fd"}, {"/dev/stdin", "/proc/self/fd/0"}, {"/dev/stdout", "/proc/self/fd/1"},
		{"/dev/stderr", "/proc/self/fd/2"}, {"/dev/ptmx", "pts/ptmx"}, {"/var/tmp", "/tmp"}, {"/var/run", "/run"}, {"/etc/mtab", "/proc/mounts"},
	} {
		if err := os.Symlink(l[1], base+l[0]); err != nil {
			return fmt.Errorf("link %s: %w", l[0], err)
		}
	}
	ids := fmt.Sprintf("%d:%d", s.UID, s.GID)
	files := map[string]string{
		"/etc/passwd":        "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\nsandbox:x:" + ids + ":sandbox:" + privateHome + ":/bin/sh\n",
		"/etc/group":         fmt.Sprintf("root:x:0:\nnogroup:x:65534:\nsandbox:x:%d:\n", s.GID),
		"/etc/hosts":         "127.0.0.1 localhost sandbox\n::1 localhost\n",
		"/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	}
	for name, text := range files {
		if err := os.WriteFile(base+name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := os.Mkdir(base+privateHome, 0o700); err != nil {
		return fmt.Errorf("make home: %w", err)
	}
	if err := os.Lchown(base+privateHome, s.UID, s.GID); err != nil {
		return fmt.Errorf("hand over home: %w", err)
	}
	return nil
}

// privateHome is HOME inside; it lies in the /tmp that goes with the sandbox.
const privateHome = "/tmp/home"

// pivot makes the folder behind fd the root and lets go of the old one.
func pivot(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("enter root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: roAttr}); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	return nil
}
