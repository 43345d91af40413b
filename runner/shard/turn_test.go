package shard

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/load/simserver"
	"github.com/repromill/repromill/suites/throughput"
)

// stand is a turn with a simulated server.
type stand struct {
	folder Folder
	suite  Suite
	server atomic.Pointer[httptest.Server]
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s, err := throughput.Propose(throughput.Wish{ISL: []int{16}, OSL: []int{6}, Concurrencies: []int{1, 2}, Requests: 8, Rounds: 1, Floors: []float64{1}},
		[]spec.Arm{{Name: "fp8", TP: 1}, {Name: "nvfp4", TP: 1}}, 7, true)
	if err != nil {
		t.Fatal(err)
	}
	h := simserver.New(simserver.Config{StepBase: 2 * time.Millisecond, Model: "nvfp4"})
	ctx, end := context.WithCancel(context.Background())
	go h.Run(ctx)
	srv := httptest.NewServer(h)
	t.Cleanup(func() { srv.Close(); end() })
	x := &stand{folder: Folder(filepath.Join(t.TempDir(), "turn"))}
	x.suite = Suite{Suite: s, Of: 1, Turn: &throughput.Turns(s, 0)[1], Endpoints: map[string]string{"nvfp4": srv.URL + "/v1"}}
	if _, err := x.folder.Declare(x.suite); err != nil {
		t.Fatal(err)
	}
	x.server.Store(srv)
	return x
}

func (x *stand) client(pod string, hook func(string)) Client {
	return Client{Folder: x.folder, Pod: pod, Node: "n1", Turns: &throughput.Bench{Hook: hook}, Out: &bytes.Buffer{}, Now: time.Now, Hook: hook}
}

// measured is that the turn is complete, by one pod alone, after so many others.
func (x *stand) measured(t *testing.T, pod string, lost int) {
	t.Helper()
	dir, n, err := x.folder.Measured()
	if err != nil || n != lost || filepath.Base(dir) != pod {
		t.Errorf("measured in %s after %d others, %v; want %s after %d", filepath.Base(dir), n, err, pod, lost)
	}
	e, ok, err := x.folder.End(0)
	if err != nil || !ok || e.Pod != pod || e.Node != "n1" || e.Cells != 2 || e.Requests < 16 || e.Answers != 0 {
		t.Errorf("ended as %+v, %v, %v", e, ok, err)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
		t.Errorf("its folder holds %v", files)
	}
}

// TestTurn: a turn is measured by a pod as a whole, and by a second not at all.
func TestTurn(t *testing.T) {
	x := newStand(t)
	if _, _, err := x.folder.Measured(); err == nil {
		t.Error("a turn that nobody measured is complete")
	}
	for range 2 {
		if code, err := x.client("a", nil).Run(t.Context()); code != ExitDone || err != nil {
			t.Fatalf("exit %d, %v", code, err)
		}
		x.measured(t, "a", 0)
	}
	log, err := os.ReadFile(x.folder.Log())
	if err != nil || !strings.Contains(string(log), "nvfp4: closed-c2") || !strings.Contains(string(log), "is complete: 2 cells") || strings.Contains(string(log), "fp8: closed-c1") && !strings.Contains(string(log), "nvfp4: closed-c1") {
		t.Errorf("%s, %v", log, err)
	}
}

// TestTurnPreempted: what a pod measured that was ended is nothing, and counted.
func TestTurnPreempted(t *testing.T) {
	x := newStand(t)
	for n, pod := range []string{"a", "b"} {
		ctx, preempt := context.WithCancel(t.Context())
		c := x.client(pod, nil)
		c.Out = saying{"closed-c2", preempt}
		if code, err := c.Run(ctx); code != ExitAgain || !errors.Is(err, context.Canceled) {
			t.Fatalf("pod %d: exit %d, %v", n, code, err)
		}
		if _, done, _ := x.folder.End(0); done {
			t.Fatal("half a turn has ended")
		}
	}
	if code, err := x.client("c", nil).Run(t.Context()); code != ExitDone || err != nil {
		t.Fatalf("exit %d, %v", code, err)
	}
	x.measured(t, "c", 2)
}

// saying calls do when something is said.
type saying struct {
	what string
	do   func()
}

func (s saying) Write(b []byte) (int, error) {
	if strings.Contains(string(b), s.what) {
		s.do()
	}
	return len(b), nil
}

// TestTurnTaken: a pod that was cut off leaves the turn to the one that has it.
func TestTurnTaken(t *testing.T) {
	x := newStand(t)
	c := x.client("cut-off", nil)
	c.Out = saying{"closed-c1", func() {
		if _, err := x.folder.take(0, "next", true); err != nil {
			t.Error(err)
		}
	}}
	if code, err := c.Run(t.Context()); code != ExitAgain || !errors.Is(err, errTaken) {
		t.Fatalf("exit %d, %v", code, err)
	}
	if code, err := x.client("next", nil).Run(t.Context()); code != ExitDone || err != nil {
		t.Fatalf("exit %d, %v", code, err)
	}
	x.measured(t, "next", 1)
}

// TestTurnWithoutServer: where the server is gone in the middle, another pod may have
// more luck.
func TestTurnWithoutServer(t *testing.T) {
	x := newStand(t)
	c := x.client("a", nil)
	c.Out = saying{"closed-c2", func() { go x.server.Load().CloseClientConnections(); go x.server.Load().Listener.Close() }}
	if code, err := c.Run(t.Context()); code != ExitAgain || err == nil || x.folder.Trouble(0) == "" {
		t.Fatalf("exit %d, %v", code, err)
	}
	if _, done, _ := x.folder.End(0); done {
		t.Error("a turn without a server has ended")
	}
}

// TestTurnKilledAtEveryStep: the pod after one that died measures all of it, unless
// all was there.
func TestTurnKilledAtEveryStep(t *testing.T) {
	for _, point := range []string{"shard:take:before", "shard:take:after", "throughput:turn:before", "throughput:turn:after", "shard:end:before", "shard:end:after"} {
		x := newStand(t)
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was not reached", point)
				}
			}()
			x.client("killed", func(p string) {
				if p == point {
					panic(p)
				}
			}).Run(t.Context())
		}()
		if code, err := x.client("next", nil).Run(t.Context()); code != ExitDone || err != nil {
			t.Fatalf("%s: exit %d, %v", point, code, err)
		}
		switch point {
		case "shard:end:after":
			x.measured(t, "killed", 0)
		case "shard:take:before":
			x.measured(t, "next", 0)
		default:
			x.measured(t, "next", 1)
		}
	}
}
