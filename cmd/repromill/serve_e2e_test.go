//go:build e2e

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
)

// served is a server of the real program that can be killed and started again
// at the same address.
type served struct {
	*bench
	addr string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func newServed(t *testing.T, bin string) *served {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{bench: newBench(t, bin), addr: ln.Addr().String()}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.end(syscall.SIGTERM)
		}
		if t.Failed() {
			t.Logf("server:\n%s", s.log.String())
		}
	})
	return s
}

func (s *served) url() string { return "http://" + s.addr }

func mirror(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../examples/mirror")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *served) start(args ...string) {
	s.t.Helper()
	s.cmd = s.command(nil, append([]string{"serve", "--listen", s.addr, "--mirror", mirror(s.t), "--drain", "1s"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := http.Get(s.url() + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the server does not get ready:\n%s", s.log.String())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *served) end(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	_ = s.cmd.Wait()
	s.cmd = nil
}

// post sends JSON until the server answers, which it may not while it is down.
func (s *served) post(ctx context.Context, path, body string, headers ...string) (int, []byte, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url()+path, strings.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i+1 < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil {
				return resp.StatusCode, b, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quickPlan is the demo's plan with its smallest run.
func (s *served) quickPlan() string {
	s.t.Helper()
	var p spec.Plan
	if err := json.Unmarshal([]byte(s.output("plan", "--mirror", mirror(s.t), "2604.08075", "--json")), &p); err != nil {
		s.t.Fatal(err)
	}
	for i := range p.Runs {
		p.Runs[i].Selected = p.Runs[i].ID == "smoke"
	}
	p.Seal()
	b, err := json.Marshal(map[string]any{"plan": p, "approve": true})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(b)
}

// TestKillServe submits from several clients while the server is killed again
// and again: every submission becomes one run, each is finished once, and what
// is committed is whole.
func TestKillServe(t *testing.T) {
	const submissions, kills = 8, 6
	s := newServed(t, buildOnce(t))
	body := s.quickPlan()
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	ids := make([]string, submissions)
	for i := range submissions {
		wg.Go(func() {
			status, b, err := s.post(ctx, "/v1/runs", body, "Idempotency-Key", fmt.Sprint("load-", i))
			var run struct{ ID string }
			if err != nil || json.Unmarshal(b, &run) != nil || status != 201 && status != 200 {
				t.Errorf("submission %d: %d %s %v", i, status, b, err)
			}
			ids[i] = run.ID
		})
	}
	rng := rand.New(rand.NewSource(1))
	for range kills {
		time.Sleep(time.Duration(100+rng.Intn(900)) * time.Millisecond)
		s.end(syscall.SIGKILL)
		s.start()
	}
	wg.Wait()
	st, err := store.Open(ctx, filepath.Join(s.dir, "state", "repromill", "store.db"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for _, id := range ids {
		for {
			run, err := st.Run(ctx, id)
			if err != nil {
				t.Fatal(err)
			}
			if run.State == store.Done {
				break
			}
			if run.State == store.Failed {
				t.Fatalf("run %s failed: %s", id, run.Error)
			}
			time.Sleep(50 * time.Millisecond)
		}
		// Beginning the same command twice is allowed to no kill: it is adopted.
		list, err := st.Attempts(ctx, id)
		if err != nil || len(list) != 1 {
			t.Errorf("run %s has %d attempts, %v", id, len(list), err)
		}
	}
	if problems, err := st.Check(ctx); err != nil || len(problems) > 0 {
		t.Errorf("store: %v %v", problems, err)
	}
	runs, err := st.List(ctx, store.Filter{})
	if err != nil || len(runs) != submissions {
		t.Errorf("%d runs, want %d, %v", len(runs), submissions, err)
	}
	s.end(syscall.SIGTERM)
	s.output("results", "verify")
}

// TestKillServeLeavesCommands ends the server by SIGTERM while a command runs,
// which goes on and is adopted by the next server.
func TestKillServeLeavesCommands(t *testing.T) {
	s := newServed(t, buildOnce(t))
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, b, err := s.post(ctx, "/v1/runs", `{"target":"2604.08075","approve":true}`)
	var run struct{ ID string }
	if err != nil || json.Unmarshal(b, &run) != nil {
		t.Fatalf("%s %v", b, err)
	}
	st, err := store.Open(ctx, filepath.Join(s.dir, "state", "repromill", "store.db"), store.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	for {
		list, err := st.Attempts(ctx, run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 && list[0].Handle != "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.end(syscall.SIGTERM)
	if r, err := st.Run(ctx, run.ID); err != nil || r.State != store.Interrupted && r.State != store.Done {
		t.Errorf("after SIGTERM the run is %s, %v", r.State, err)
	}
	s.start()
	for {
		r, err := st.Run(ctx, run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.State == store.Done {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if list, err := st.Attempts(ctx, run.ID); err != nil || len(list) != 1 {
		t.Errorf("%d attempts, %v; the first should have been adopted", len(list), err)
	}
}

// TestKillServeOnce refuses a second server on one state folder, and strangers
// without keys.
func TestKillServeOnce(t *testing.T) {
	s := newServed(t, buildOnce(t))
	s.start()
	for _, args := range [][]string{{"--listen", "127.0.0.1:0"}, {"--listen", "0.0.0.0:0", "--host", "mill.example"}} {
		out, err := s.command(nil, append([]string{"serve", "--mirror", mirror(t)}, args...)...).CombinedOutput()
		var exit *exec.ExitError
		if !asExit(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "another server") {
			t.Errorf("%v: %v %s", args, err, out)
		}
	}
	s.end(syscall.SIGKILL)
	out, err := s.command(nil, "serve", "--mirror", mirror(t), "--listen", "0.0.0.0:0", "--host", "mill.example").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "keys create") {
		t.Errorf("without keys: %v %s", err, out)
	}
	s.start() // the lock of a killed server is free
}

func asExit(err error, to **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	*to = e
	return ok
}

// shots is where pictures of pages go.
func shots(t *testing.T) string {
	if dir := os.Getenv("REPROMILL_SHOTS"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	return t.TempDir()
}
