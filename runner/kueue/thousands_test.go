//go:build linux && cluster

package kueue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/repromill/repromill/runner"
)

// simulated is a queue of the nodes that kwok plays; see `devcluster kwok`.
func simulated(t *testing.T) {
	t.Helper()
	out, err := exec.Command("kubectl", "get", "nodes", "-l", "repromill.dev/simulated=kwok", "-o", "name").Output()
	if err != nil || len(out) == 0 {
		t.Skip("no simulated nodes: run `devcluster kwok`")
	}
}

// simulatedConfig submits Jobs whose pods end after a time without running.
func simulatedConfig(t *testing.T, dir, queue string, lasting time.Duration) Config {
	return Config{
		Namespace: "repromill", Queue: queue, Root: volumeRoot(t), Dir: filepath.Join(dir, "attempts"), Claim: "repromill-runs",
		Image: "simulated", Worker: "/simulated", CPU: "1", Annotations: map[string]string{"repromill.dev/simulated-duration": lasting.String()},
	}
}

func simulatedAttempt(t *testing.T, dir, run string, n int) runner.Attempt {
	t.Helper()
	work, err := os.MkdirTemp(dir, "work-")
	if err != nil {
		t.Fatal(err)
	}
	return runner.Attempt{
		Key: runner.AttemptKey{RunID: run, Stage: "execute", N: n}, Argv: []string{"/simulated"}, Dir: work, Writable: []string{work},
		Limits: runner.Limits{Wall: time.Hour, MemoryBytes: 256 << 20},
	}
}

// usage is what a process that watches has used.
type usage struct {
	Jobs      int           `json:"jobs"`
	Load      time.Duration `json:"load"`       // until the picture was complete
	LoadCPU   time.Duration `json:"load_cpu"`   // spent on that
	Watched   time.Duration `json:"watched"`    // after that
	WatchCPU  time.Duration `json:"watch_cpu"`  // spent on that
	PeakBytes int64         `json:"peak_bytes"` // of resident memory
	Summaries int           `json:"summaries"`
	Ended     int           `json:"ended"` // Jobs that ended meanwhile
	Last      Summary       `json:"last"`
}

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// watchMain is a process that does nothing but watch, as `repromill watch
// --cluster` does, so that what it uses is known.
func watchMain(args []string) int {
	lasting, err := time.ParseDuration(args[0])
	if err != nil {
		return 2
	}
	ctx := context.Background()
	v, err := NewView(Config{Namespace: "repromill"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	from := time.Now()
	f, err := v.Fleet(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u := usage{Load: time.Since(from), LoadCPU: cpu()}
	from = time.Now()
	ended := func(s Summary) int { return s.States[Succeeded] + s.States[Failed] }
	first := ended(f.tally())
	err = f.Each(ctx, time.Second, func(s Summary) error {
		u.Summaries++
		u.Last = s
		if time.Since(from) > lasting {
			return context.Canceled
		}
		return nil
	})
	if err != context.Canceled {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	u.Jobs, u.Watched, u.WatchCPU, u.Ended = f.Len(), time.Since(from), cpu()-u.LoadCPU, ended(u.Last)-first
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 1
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	u.PeakBytes = kb << 10
	json.NewEncoder(os.Stdout).Encode(u)
	return 0
}

// TestScale submits many Jobs to simulated nodes and has another process watch
// them. REPROMILL_SCALE_JOBS says how many; `make bench-cluster` has 5,000.
func TestScale(t *testing.T) {
	simulated(t)
	n := 200
	if s := os.Getenv("REPROMILL_SCALE_JOBS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	clean(t)
	dir := folderIn(t)
	var executors []*Executor
	for i := range 10 { // so that they end one after another
		lasting := max(5*time.Second, time.Duration(n/10)*time.Second) * time.Duration(i+1) / 5
		executors = append(executors, liveExecutor(t, simulatedConfig(t, dir, "repromill-simulated", lasting)))
	}
	attempts := make([]runner.Attempt, n)
	for i := range n {
		attempts[i] = simulatedAttempt(t, dir, fmt.Sprintf("SCALE%05d", i/5), i)
	}
	from := time.Now()
	var g errgroup.Group
	g.SetLimit(2 * mostWindow)
	handles := make([]runner.Handle, n)
	for i := range n {
		g.Go(func() (err error) {
			handles[i], err = executors[i%10].Submit(t.Context(), attempts[i])
			if i == 999 {
				t.Logf("1000 Jobs were submitted in %v", time.Since(from).Round(10*time.Millisecond))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(from)
	t.Logf("%d Jobs were submitted in %v: %.0f a second", n, took.Round(10*time.Millisecond), float64(n)/took.Seconds())
	if limit := time.Duration(n) * 60 * time.Millisecond; took > limit {
		t.Errorf("that is slower than 1000 a minute")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "__watch", "60s")
	if n <= 1000 {
		cmd.Args[2] = "10s"
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("watch: %v", err)
	}
	var u usage
	if err := json.Unmarshal(out, &u); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	share := u.WatchCPU.Seconds() / u.Watched.Seconds()
	t.Logf("one process watched %d Jobs (%v): complete after %v (%v of CPU), then %.1f %% of a core over %v with %d summaries while %d Jobs ended; %d MiB at most",
		u.Jobs, u.Last.States, u.Load.Round(10*time.Millisecond), u.LoadCPU.Round(10*time.Millisecond), 100*share, u.Watched.Round(time.Second), u.Summaries, u.Ended, u.PeakBytes>>20)
	if u.Jobs != n || u.Last.Stale != "" {
		t.Errorf("it saw %d of %d Jobs; stale: %q", u.Jobs, n, u.Last.Stale)
	}
	if u.PeakBytes > 300<<20 || share > 0.10 {
		t.Error("that is more than 300 MiB or 10 % of a core")
	}
	// One executor observes them all, from the picture that its observers share.
	e := executors[0]
	observe := func(list []runner.Handle) {
		for _, h := range list {
			if _, err := e.Observe(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
	}
	observe(handles[:watchFrom])
	for end := time.Now().Add(time.Minute); e.shared.fleet.Fresh() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(e.shared.fleet.Fresh())
		}
	}
	list := handles[:min(n, 1000)]
	from, before := time.Now(), cpu()
	observe(list)
	t.Logf("looking at one Job took %v (%v of CPU)", time.Since(from)/time.Duration(len(list)), (cpu()-before)/time.Duration(len(list)))
}
