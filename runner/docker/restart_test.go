//go:build linux

package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/docker/engine"
	"github.com/repromill/repromill/runner/executortest"
)

// daemon is an engine of the test's own, which it may stop and kill.
type daemon struct {
	dir  string
	args []string
	cmd  *exec.Cmd
}

func (d *daemon) log() string {
	b, _ := os.ReadFile(d.dir + "/log")
	return string(b[max(0, len(b)-2000):])
}

// ownDaemon starts an engine without a network beside the machine's.
func ownDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	if os.Getenv("REPROMILL_TEST_DOCKER_BASE") == "" {
		t.Skip("needs Docker: run `make e2e-docker`")
	}
	if _, err := exec.LookPath("dockerd"); err != nil || os.Geteuid() != 0 {
		t.Skip("only root can start an engine of the test's own, with dockerd")
	}
	dir, err := os.MkdirTemp("", "dockerd")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{dir: dir, args: append([]string{
		"--host", "unix://" + dir + "/sock", "--data-root", dir + "/data", "--exec-root", dir + "/exec", "--pidfile", dir + "/pid",
		"--bridge", "none", "--iptables=false", "--ip6tables=false",
	}, args...)}
	d.start(t)
	t.Cleanup(func() {
		d.stop(t, syscall.SIGTERM)
		exec.Command("sh", "-c", "for m in $(awk '{print $2}' /proc/mounts | grep '^"+dir+"/' | sort -r); do umount -l $m; done").Run()
		os.RemoveAll(dir)
	})
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("dockerd", d.args...)
	log, err := os.OpenFile(d.dir+"/log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644) // not a pipe, which containers would hold open
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// A network of its own: an engine without a bridge removes the machine's.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNET}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		e, err := d.connect(t.Context())
		if err == nil {
			e.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the engine does not come up: %v\n%s", err, d.log())
		}
	}
}

func (d *daemon) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if d.cmd.ProcessState != nil {
		return
	}
	d.cmd.Process.Signal(sig)
	d.cmd.Wait()
	if sig != syscall.SIGKILL {
		return
	}
	// As at a crash of the machine's service, whose whole group is killed; the
	// shims of containers are not in it.
	b, err := os.ReadFile(d.dir + "/exec/containerd/containerd.pid")
	pid, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	if err == nil && perr == nil {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); strings.TrimSpace(string(comm)) == "containerd" {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	// The dead may stay unburied where process 1 reaps nobody, and look alive.
	os.Remove(d.dir + "/pid")
	os.Remove(d.dir + "/exec/containerd/containerd.pid")
}

func (d *daemon) connect(ctx context.Context) (*engine.Engine, error) {
	return engine.Open(ctx, engine.Config{Host: "unix://" + d.dir + "/sock"})
}

// emptyImage is an image in which nothing is but the folder for a program.
func (d *daemon) emptyImage(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"tmp/", "proc/", "dev/", "sys/", "etc/"} {
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
	}
	w.Close()
	e, err := d.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	id, err := e.Import(t.Context(), &b, "repromill-test:empty")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// staticSelf is this test as a program without a C library.
func staticSelf(t *testing.T) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ldd", exe).CombinedOutput(); err == nil && !strings.Contains(string(out), "not a dynamic") {
		t.Skip("the test is linked against a C library, which an empty image does not have: build it with CGO_ENABLED=0")
	}
}

// TestDaemonRestart: an engine that is restarted in the middle loses an
// attempt or keeps it, and says so; it never runs one twice.
func TestDaemonRestart(t *testing.T) {
	for _, tc := range []struct {
		name     string
		args     []string
		sig      syscall.Signal
		survives bool
	}{
		{"live restore", []string{"--live-restore"}, syscall.SIGTERM, true},
		{"live restore killed", []string{"--live-restore"}, syscall.SIGKILL, true},
		{"stopped", nil, syscall.SIGTERM, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			staticSelf(t)
			d := ownDaemon(t, tc.args...)
			image := d.emptyImage(t)
			dir := executortest.Place(t)
			e := newExecutor(t, dir, func(c *Config) { c.Connect, c.Image = d.connect, image })
			work := filepath.Join(dir, "work")
			if err := os.Mkdir(work, 0o755); err != nil {
				t.Fatal(err)
			}
			a := counting(work)
			a.Argv[len(a.Argv)-1] = "go"
			h, err := e.Submit(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			until(t, func() bool { _, err := os.Stat(work + "/count"); return err == nil })

			d.stop(t, tc.sig)
			var gone *engine.UnavailableError
			if _, err := e.Observe(t.Context(), h); !errors.As(err, &gone) {
				t.Fatalf("without an engine observing gave %v", err)
			}
			d.start(t)

			e2 := newExecutor(t, dir, func(c *Config) { c.Connect, c.Image = d.connect, image })
			if h2, err := e2.Submit(t.Context(), a); err != nil || h2 != h {
				t.Fatalf("submitting again gave %q, %v", h2, err)
			}
			if err := os.WriteFile(work+"/go", nil, 0o644); err != nil {
				t.Fatal(err)
			}
			var st runner.Status
			until(t, func() bool { st, err = e2.Observe(t.Context(), h); return err == nil && st.Phase.Final() })
			switch {
			case tc.survives && st.Phase != runner.Succeeded:
				t.Errorf("ended %s (%s: %s), want succeeded", st.Phase, st.Reason, st.Message)
			case !tc.survives && st.Reason != runner.ReasonLost:
				t.Errorf("ended %s (%s: %s), want lost", st.Phase, st.Reason, st.Message)
			}
			if b, _ := os.ReadFile(work + "/count"); strings.Count(string(b), "started") != 1 {
				t.Errorf("the command began %d times", strings.Count(string(b), "started"))
			}
			noLeftovers(t, e2)
		})
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it took longer than a minute")
		}
	}
}
