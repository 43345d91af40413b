//go:build e2e

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bench is one fresh place with a small repository whose README states a
// number and whose script, after a moment, gives it.
type bench struct {
	t    *testing.T
	bin  string
	dir  string // state, results, cache and home
	repo string
}

const smallReadme = `# Small paper

## Reproduce

` + "```bash\npython3 run.py --out results/metrics.json\n```" + `

This should give an accuracy of 93.2 %, within 0.5.
`

const smallScript = `import argparse, json, os, time
p = argparse.ArgumentParser()
p.add_argument("--out", default="results/metrics.json")
a = p.parse_args()
time.sleep(0.15)
os.makedirs(os.path.dirname(a.out), exist_ok=True)
right = sum(1 for i in range(1000) if i % 500 > 32)
accuracy = 100 * right / 1000
with open(a.out, "w") as f:
    json.dump({"accuracy": accuracy}, f)
print(f"accuracy: {accuracy:.1f}")
`

func buildOnce(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "repromill")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}

func newBench(t *testing.T, bin string) *bench {
	t.Helper()
	b := &bench{t: t, bin: bin, dir: t.TempDir()}
	b.repo = filepath.Join(b.dir, "repo")
	for name, text := range map[string]string{"README.md": smallReadme, "run.py": smallScript} {
		if err := os.MkdirAll(b.repo, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(b.repo, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func (b *bench) command(extra []string, args ...string) *exec.Cmd {
	cmd := exec.Command(b.bin, args...)
	cmd.Env = append([]string{
		"REPROMILL_EXECUTOR=local", "PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "USER=tester", "XDG_STATE_HOME=" + filepath.Join(b.dir, "state"),
		"XDG_DATA_HOME=" + filepath.Join(b.dir, "data"), "XDG_CACHE_HOME=" + filepath.Join(b.dir, "cache"),
		"XDG_CONFIG_HOME=" + filepath.Join(b.dir, "config"),
	}, extra...)
	return cmd
}

func (b *bench) output(args ...string) string {
	b.t.Helper()
	cmd := b.command(nil, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%v: %v\n%s%s", args, err, out, stderr.String())
	}
	return string(out)
}

// resume brings whatever run there is to its end.
func (b *bench) resume() {
	b.t.Helper()
	var runs []struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := json.Unmarshal([]byte(b.output("status", "--json")), &runs); err != nil {
		b.t.Fatal(err)
	}
	if len(runs) == 0 {
		b.output("run", "--yes", "--quiet", b.repo)
		return
	}
	if len(runs) != 1 {
		b.t.Fatalf("%d runs: %+v", len(runs), runs)
	}
	b.output("run", "--yes", "--quiet", "--resume", runs[0].ID)
}

// check asserts what must hold after everything has come to its end.
func (b *bench) check() {
	b.t.Helper()
	var list []struct {
		RunID string `json:"run_id"`
		Files []struct {
			Table string `json:"table"`
			Rows  int64  `json:"rows"`
		} `json:"files"`
	}
	if err := json.Unmarshal([]byte(b.output("results", "list", "--json")), &list); err != nil {
		b.t.Fatal(err)
	}
	if len(list) != 1 {
		b.t.Errorf("%d committed results", len(list))
	}
	for _, m := range list {
		for _, f := range m.Files {
			if f.Table == "runs" && f.Rows != 1 {
				b.t.Errorf("table runs has %d rows", f.Rows)
			}
		}
	}
	if out := b.output("results", "verify"); !strings.Contains(out, "clean") {
		b.t.Errorf("verify: %s", out)
	}
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".tmp") || strings.Contains(d.Name(), ".tmp-")) {
			b.t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		b.t.Error(err)
	}
	if p := b.processes(); len(p) > 0 {
		time.Sleep(500 * time.Millisecond) // a worker may be on its last step
		if p = b.processes(); len(p) > 0 {
			b.t.Errorf("still running: %v", p)
		}
	}
}

// processes lists what runs with this bench's folder in its command line.
func (b *bench) processes() (out []string) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), b.dir) {
			out = append(out, e.Name()+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// TestKillAtEveryDurableStep kills the command once at every state write,
// rename, fsync and manifest it makes, and takes the run up again.
func TestKillAtEveryDurableStep(t *testing.T) {
	bin := buildOnce(t)
	b := newBench(t, bin)
	log := filepath.Join(b.dir, "points")
	if out, err := b.command([]string{"REPROMILL_FAIL_LOG=" + log}, "run", "--yes", b.repo).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b.check()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	points := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(points) < 40 {
		t.Fatalf("only %d durable steps are known", len(points))
	}
	t.Logf("%d durable steps", len(points))
	for i, name := range points {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			b := newBench(t, bin)
			log := filepath.Join(b.dir, "points")
			err := b.command([]string{fmt.Sprintf("REPROMILL_FAIL_AT=%d", i+1), "REPROMILL_FAIL_LOG=" + log}, "run", "--yes", "--quiet", b.repo).Run()
			if !killed(err) {
				// How often a status is written depends on the moment.
				if text, lerr := os.ReadFile(log); err != nil || lerr != nil || strings.Count(string(text), "\n") > i {
					t.Fatalf("not killed: %v", err)
				}
			}
			b.resume()
			b.check()
		})
	}
}

// TestKillAtRandomMoments kills the command up to three times in a row at
// moments that have nothing to do with its steps.
func TestKillAtRandomMoments(t *testing.T) {
	bin := buildOnce(t)
	b := newBench(t, bin)
	start := time.Now()
	b.output("run", "--yes", "--quiet", b.repo)
	whole := time.Since(start)
	const moments = 30
	for i := range moments {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			rng := rand.New(rand.NewSource(int64(i)))
			b := newBench(t, bin)
			args := []string{"run", "--yes", "--quiet", "--key", "k", b.repo}
			for range 1 + rng.Intn(3) {
				cmd := b.command(nil, args...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rng.Float64() * float64(whole)))
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
			b.resume()
			b.check()
		})
	}
}
