package git

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// start runs the test binary as another process that shares a cache.
func start(t *testing.T, o otherJob) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	arg, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "__checkout", string(arg))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// A process that is killed at any point leaves no visible checkout but a whole
// one, blocks nobody, and its leftovers go with the next checkout.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.repo(t, "proj")
	sample(t, r)
	r.write("data.bin", noise(2_000_000))
	r.commit("data")
	points := []string{"phase:resolve", "phase:receive", "phase:write", "git:stage:before", "git:stage:after",
		"git:meta:before", "git:meta:after", "git:publish:before", "git:publish:after"}
	for _, child := range []bool{false, true} {
		for _, point := range points {
			t.Run(fmt.Sprintf("child=%v/%s", child, point), func(t *testing.T) {
				cfg := s.config(t, nil)
				cmd, out := start(t, otherJob{Cache: cfg.CacheDir, Repo: s.URL + "/proj", Host: s.host(), StopAt: point, Child: child})
				if line, err := out.ReadString('\n'); err != nil || !strings.HasPrefix(line, "stopped at") {
					t.Fatalf("%q, %v", line, err)
				}
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				co := checkout(t, newCloner(t, cfg), Request{Repo: s.URL + "/proj"})
				if done := point == "git:publish:after"; co.FromCache != done {
					t.Errorf("from cache: %v", co.FromCache)
				}
				if content(t, co.Dir, "data.bin") != noise(2_000_000) {
					t.Error("content differs")
				}
				sweptClean(t, cfg)
			})
		}
	}
}

// sweptClean waits for what an orphan may still hold for an instant, and then
// holds that nothing is staged.
func sweptClean(t *testing.T, cfg Config) {
	t.Helper()
	tmp := filepath.Join(cfg.CacheDir, "git", "tmp")
	for range 50 {
		if err := sweep(tmp); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(tmp); len(left) == 0 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	nothingStaged(t, cfg.CacheDir)
}

// The child ends with its parent, in the middle of a pack.
func TestChildDiesWithParent(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := s.repo(t, "proj")
	r.write("data.bin", noise(500_000))
	r.commit("x")
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	s.setWrap(onPost(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&stallWriter{w, 200_000, release, r.Context().Done()}, r)
	}))
	cfg := s.config(t, nil)
	cmd, _ := start(t, otherJob{Cache: cfg.CacheDir, Repo: s.URL + "/proj", Host: s.host(), Child: true})
	var child int
	for range 1000 {
		if child = childOf(cmd.Process.Pid); child != 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if child == 0 {
		t.Fatal("no child was started")
	}
	spool := mustAppear(t, filepath.Join(cfg.CacheDir, "git", "tmp", "*", "spool"))
	if err := sweep(filepath.Join(cfg.CacheDir, "git", "tmp")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(spool); err != nil {
		t.Errorf("a live stage was swept: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 1000 {
		if !alive(child) {
			sweptClean(t, cfg)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("child %d outlives its parent", child)
}

func mustAppear(t *testing.T, pattern string) string {
	t.Helper()
	for range 1000 {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing appeared at %s", pattern)
	return ""
}

// childOf finds a process by its parent in /proc.
func childOf(parent int) int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		var pid, ppid int
		var state string
		rest := string(b[strings.LastIndexByte(string(b), ')')+1:])
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil {
			continue
		}
		if _, err := fmt.Sscanf(rest, " %s %d", &state, &ppid); err == nil && ppid == parent && state != "Z" {
			return pid
		}
	}
	return 0
}

// alive reports a process that is not a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	return !strings.Contains(string(b), ") Z ")
}

// Two processes fetch the same repository at once: one clones, the other takes
// over what it made.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	sample(t, s.repo(t, "proj"))
	posts := make(chan struct{}, 10)
	s.setWrap(onPost(func(h http.Handler, w http.ResponseWriter, r *http.Request) {
		posts <- struct{}{}
		time.Sleep(100 * time.Millisecond)
		h.ServeHTTP(w, r)
	}))
	cfg := s.config(t, nil)
	job := otherJob{Cache: cfg.CacheDir, Repo: s.URL + "/proj", Host: s.host(), Child: true}
	_, a := start(t, job)
	_, b := start(t, job)
	var one, two Checkout
	if err := json.NewDecoder(a).Decode(&one); err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(b).Decode(&two); err != nil {
		t.Fatal(err)
	}
	if one.Dir != two.Dir || one.FromCache == two.FromCache || len(posts) != 1 {
		t.Errorf("%d packs; %+v and %+v", len(posts), one, two)
	}
	nothingStaged(t, cfg.CacheDir)
}

// What a child may touch: only its stage, and no network.
func TestConfinement(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	stage := t.TempDir()
	cmd := exec.Command(os.Args[0], "__confined", stage, outside, s.host())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var got map[string]bool
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := map[string]bool{"write stage": true, "read outside": false, "write outside": false, "dial": false, "large file": false, "core": false}
	for what, allowed := range want {
		if got[what] != allowed {
			t.Errorf("%s: allowed %v, want %v", what, got[what], allowed)
		}
	}
}

// A mirror that is being filled by a process that is killed stays whole.
func TestAddToMirrorKilled(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	ids := sample(t, s.repo(t, "proj"))
	for _, point := range []string{"phase:receive", "phase:write", "git:mirror:before", "git:mirror:after"} {
		t.Run(point, func(t *testing.T) {
			mirror := t.TempDir()
			cfg := s.config(t, nil)
			cmd, out := start(t, otherJob{Cache: cfg.CacheDir, Mirror: mirror, Repo: s.URL + "/proj", Host: s.host(), StopAt: point})
			if line, err := out.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v", line, err)
			}
			_ = cmd.Process.Signal(syscall.SIGKILL)
			_ = cmd.Wait()
			dst := filepath.Join(mirror, s.host(), "proj.git")
			if _, err := os.Stat(dst); err == nil != (point == "git:mirror:after") {
				t.Errorf("after the kill: %v", err)
			}
			if _, err := newCloner(t, cfg).AddToMirror(t.Context(), mirror, Request{Repo: s.URL + "/proj"}); err != nil {
				t.Fatal(err)
			}
			bare := &repo{t, dst}
			if got := bare.git("rev-parse", "main"); got != ids["main"] {
				t.Errorf("main is %s", got)
			}
			if _, err := os.Stat(filepath.Join(mirror, ".tmp")); err == nil {
				t.Error("leftovers in the mirror")
			}
		})
	}
}
