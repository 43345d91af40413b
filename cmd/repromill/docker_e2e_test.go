//go:build e2e && linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// site is one user's place on this machine, with Docker's engine.
type site struct {
	t    *testing.T
	bin  string
	home string
	base string
	env  []string // further variables
}

func newSite(t *testing.T) *site {
	t.Helper()
	base := os.Getenv("REPROMILL_TEST_DOCKER_BASE")
	if base == "" {
		t.Skip("needs Docker and a base image: run `make e2e-docker`")
	}
	bin, err := filepath.Abs("../../bin/repromill")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin); err != nil {
		t.Fatal("no bin/repromill: run `make build`")
	}
	s := &site{t: t, bin: bin, home: t.TempDir(), base: base}
	os.Chmod(s.home, 0o755)
	// Whatever a test leaves in the engine belongs to this home alone.
	t.Cleanup(func() {
		s.run("cache", "prune", "--keep", "0")
		if left := s.containers(); len(left) > 0 {
			t.Errorf("containers are left: %q", left)
		}
	})
	return s
}

func (s *site) cmd(args ...string) *exec.Cmd {
	c := exec.Command(s.bin, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "USER=tester", "REPROMILL_IMAGE_BASES=" + s.base, "PIP_INDEX_URL=" + os.Getenv("PIP_INDEX_URL")}, s.env...)
	for _, name := range []string{"PIP_CERT", "HTTPS_PROXY", "NO_PROXY", "REPROMILL_UV"} {
		if v := os.Getenv(name); v != "" {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	return c
}

// run runs the command and returns its exit code and both streams.
func (s *site) run(args ...string) (code int, out, errs string) {
	s.t.Helper()
	c := s.cmd(args...)
	var o, e bytes.Buffer
	c.Stdout, c.Stderr = &o, &e
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), o.String(), e.String()
}

// containers are those of this home's attempts.
func (s *site) containers() []string {
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=dev.repromill.attempts="+filepath.Join(s.home, ".local/state/repromill/containers")).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// dockerOutcome is the part of `run --json` that is looked at.
type dockerOutcome struct {
	RunID    string `json:"run_id"`
	State    string `json:"state"`
	Verdict  string `json:"verdict"`
	Executor string `json:"executor"`
	Failed   string `json:"install_failed"`
	Units    []struct {
		Reason string
		Status struct {
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"status"`
		Tries int `json:"tries"`
	} `json:"units"`
	Image struct {
		Key     string  `json:"key"`
		Lock    string  `json:"lock"`
		Reused  bool    `json:"reused"`
		Seconds float64 `json:"seconds"`
	} `json:"image"`
	Deviations []struct{ What, Declared, Used, Reason string } `json:"deviations"`
}

func (s *site) paper(args ...string) dockerOutcome {
	s.t.Helper()
	code, out, errs := s.run(append([]string{"run", "--yes", "--json", "-q", "--executor", "docker"}, args...)...)
	var o dockerOutcome
	if err := json.Unmarshal([]byte(out), &o); code != 0 || err != nil {
		s.t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	return o
}

// numpyPaper is a paper whose script needs numpy alone.
func (s *site) numpyPaper(requirements, script string) string {
	s.t.Helper()
	dir := filepath.Join(s.home, "paper")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	readme := "# Least squares\n\n```bash\npip install -r requirements.txt\npython run.py\n```\n\nThis should give an accuracy of 95.0 %, within 1.0.\n"
	for name, body := range map[string]string{"README.md": readme, "requirements.txt": requirements, "run.py": script} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	return dir
}

const leastSquares = `import numpy as np
rng = np.random.default_rng(0)
x, w = rng.normal(size=(4000, 8)), rng.normal(size=8)
y = x @ w + 0.3 * rng.normal(size=4000) > 0
fit, *_ = np.linalg.lstsq(x[:2000], 2.0 * y[:2000] - 1, rcond=None)
print(f"accuracy: {100 * np.mean((x[2000:] @ fit > 0) == y[2000:]):.2f} %")
`

// TestDockerPaper: a numpy-only paper to a verdict, and a second run that
// builds nothing.
func TestDockerPaper(t *testing.T) {
	s := newSite(t)
	dir := s.numpyPaper("numpy\n", leastSquares)
	first := s.paper(dir)
	if first.Verdict != "aligned" || first.Executor != "docker" || !strings.Contains(first.Image.Lock, "numpy==") {
		t.Fatalf("the first run gave %+v", first)
	}
	began := time.Now()
	second := s.paper(dir)
	took := time.Since(began)
	if second.Verdict != "aligned" || !second.Image.Reused || second.Image.Key != first.Image.Key {
		t.Errorf("the second run gave %+v", second)
	}
	t.Logf("environment made in %.1f s, found in %.1f s; the second run took %.1f s in all", first.Image.Seconds, second.Image.Seconds, took.Seconds())
	if first.Image.Seconds < second.Image.Seconds {
		t.Errorf("finding the environment took longer (%.1f s) than making it (%.1f s)", second.Image.Seconds, first.Image.Seconds)
	}
	// What a run that can be taken up needs is not pruned.
	if code, out, errs := s.run("cache", "list"); code != 0 || !strings.Contains(out, "repromill/env:"+first.Image.Key) {
		t.Errorf("cache list gave %d\n%s%s", code, out, errs)
	}
}

// TestDockerKilled: the command is killed while its container runs; taken up
// again it adopts the container and runs nothing twice.
func TestDockerKilled(t *testing.T) {
	s := newSite(t)
	dir := s.numpyPaper("", "import time\nopen('started', 'a').write('x')\ntime.sleep(4)\nprint('started', len(open('started').read()), 'times')\n")
	c := s.cmd("run", "--yes", "--json", "-q", "--executor", "docker", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return len(s.containers()) == 1 })
	time.Sleep(500 * time.Millisecond)
	c.Process.Signal(syscall.SIGKILL)
	c.Wait()
	held := s.containers()
	if len(held) != 1 {
		t.Fatalf("after the kill there are %d containers", len(held))
	}
	o := s.paper("--resume", s.onlyRun())
	if len(o.Units) != 1 || o.Units[0].Tries != 1 || o.Units[0].Reason != "" {
		t.Errorf("taken up it gave %+v", o)
	}
	if code, out, errs := s.run("logs", o.RunID); code != 0 || !strings.Contains(out, "started 1 times") {
		t.Errorf("logs gave %d\n%s%s", code, out, errs)
	}
}

// onlyRun is the id of the one run there is.
func (s *site) onlyRun() string {
	s.t.Helper()
	_, out, _ := s.run("status", "--json")
	var runs []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &runs); err != nil || len(runs) != 1 || runs[0].ID == "" {
		s.t.Fatalf("status gave %v\n%s", err, out)
	}
	return runs[0].ID
}

func waitUntil(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it took longer than two minutes")
		}
	}
}

// TestDockerInterrupted: Ctrl-C ends the container.
func TestDockerInterrupted(t *testing.T) {
	s := newSite(t)
	dir := s.numpyPaper("", "import time\nprint('accuracy: 95.00 %', flush=True)\ntime.sleep(600)\n")
	c := s.cmd("run", "--yes", "-q", "--executor", "docker", dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, func() bool { return len(s.containers()) == 1 })
	c.Process.Signal(os.Interrupt)
	c.Wait()
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit %d, want 130", code)
	}
	if left := s.containers(); len(left) > 0 {
		t.Errorf("containers are left: %q", left)
	}
}

// TestDockerFaults: what the user has to change is said in one message with
// exit 2, and nothing is left running.
func TestDockerFaults(t *testing.T) {
	drops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer drops.Close()
	go func() {
		for {
			c, err := drops.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		says []string
	}{
		{"no daemon", []string{"DOCKER_HOST=unix:///nonexistent/docker.sock"}, nil, []string{"no Docker engine", "apt-get install docker.io"}},
		{"missing base image", []string{"REPROMILL_IMAGE_BASES=" + os.Getenv("REPROMILL_TEST_REGISTRY") + "/no/such:tag"}, nil, []string{"no/such"}},
		{"missing image", nil, []string{"--image", os.Getenv("REPROMILL_TEST_REGISTRY") + "/no/such:tag"}, []string{"does not exist", "correct the name"}},
		{"registry drops", nil, []string{"--image", drops.Addr().String() + "/a/b:c"}, []string{"dropped the connection", "run again"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newSite(t)
			dir := s.numpyPaper("numpy\n", leastSquares)
			s.env = tc.env
			code, out, errs := s.run(append([]string{"run", "--yes", "-q", "--executor", "docker", dir}, tc.args...)...)
			if code != 2 {
				t.Errorf("exit %d\n%s%s", code, out, errs)
			}
			for _, want := range tc.says {
				if !strings.Contains(errs, want) {
					t.Errorf("it does not say %q:\n%s", want, errs)
				}
			}
			s.env = nil
		})
	}
}

// TestDockerPermission: a user outside of the group docker is told what to do.
func TestDockerPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become a user without rights")
	}
	s := newSite(t)
	c := s.cmd("doctor")
	c.Env = []string{"HOME=/nonexistent", "USER=tester"}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	c.Dir = "/"
	out, _ := c.CombinedOutput()
	if !strings.Contains(string(out), "usermod -aG docker") {
		t.Errorf("doctor says\n%s", out)
	}
}

// TestDockerFullDisk: a run whose state lies on a disk that fills up ends as
// one that used too much, or is refused before it begins.
func TestDockerFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small disk")
	}
	s := newSite(t)
	small := filepath.Join(s.home, "small")
	if err := os.Mkdir(small, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted here: %s", out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", small).Run() })
	s.env = []string{"REPROMILL_STATE=" + small}
	dir := s.numpyPaper("", "f = open('big', 'wb')\nwhile True:\n    f.write(b'x' * (1 << 20))\n    f.flush()\n")
	code, out, errs := s.run("run", "--yes", "--json", "-q", "--executor", "docker", "--image", s.base, dir)
	if code == 2 { // the store could not write either
		if !strings.Contains(errs, "the disk is full") {
			t.Fatalf("it says %s", errs)
		}
		left, _ := filepath.Glob(small + "/runs/*/work/big")
		for _, f := range left {
			os.Remove(f)
		}
		code, out, errs = s.run("run", "--yes", "--json", "-q", "--resume", s.onlyRun())
	}
	var o dockerOutcome
	if err := json.Unmarshal([]byte(out), &o); err != nil || code != 0 {
		t.Fatalf("exit %d, %v\n%s%s", code, err, out, errs)
	}
	if len(o.Units) != 1 || !strings.Contains(o.Units[0].Reason, "disk is full") && !strings.Contains(o.Units[0].Reason, "No space left") {
		t.Errorf("it ended as %+v", o.Units)
	}
	if code, _, errs := s.run("run", "--yes", "-q", "--executor", "docker", s.numpyPaper("torch\n", leastSquares)); code != 2 || !strings.Contains(errs, "cache prune --keep") {
		t.Errorf("a run that cannot fit gave exit %d\n%s", code, errs)
	}
}

// TestDockerBuildWaits: a package that asks a question while it is built gets
// no answer but the end of its input.
func TestDockerBuildWaits(t *testing.T) {
	s := newSite(t)
	dir := s.numpyPaper("./asks\n", leastSquares)
	asks := filepath.Join(dir, "asks")
	if err := os.MkdirAll(asks, 0o755); err != nil {
		t.Fatal(err)
	}
	setup := "import sys\nif 'bdist_wheel' in sys.argv or 'egg_info' in sys.argv or 'dist_info' in sys.argv:\n    input('licence? ')\nfrom setuptools import setup\nsetup(name='asks', version='1')\n"
	if err := os.WriteFile(filepath.Join(asks, "setup.py"), []byte(setup), 0o644); err != nil {
		t.Fatal(err)
	}
	o := s.paper(dir)
	if o.Failed == "" || len(o.Units) > 0 {
		t.Errorf("it gave %+v", o)
	}
	t.Log(o.Failed)
}

// TestDockerHostile: a paper's code that floods, forks, hoards or sleeps ends
// with the limit's name, and leaves nothing.
func TestDockerHostile(t *testing.T) {
	for name, tc := range map[string]struct{ script, reason string }{
		"flood":   {"while True:\n    print('x' * 10000)\n", "wrote too much"},
		"sleeps":  {"import time\ntime.sleep(10000)\n", "wall time"},
		"network": {"import urllib.request\nurllib.request.urlopen('http://169.254.169.254/', timeout=5)\n", "code 1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			dir := s.numpyPaper("", tc.script)
			o := s.paper("--image", s.base, "--max-wall", "20s", dir)
			if len(o.Units) != 1 || !strings.Contains(o.Units[0].Reason, tc.reason) {
				t.Errorf("it ended as %+v, want %q", o.Units, tc.reason)
			}
		})
	}
}
