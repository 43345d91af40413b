package fetch

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// childEnv holds the orders of a process that the tests start: this same
// binary, as another user of the same cache folder.
const childEnv = "FETCH_TEST_CHILD"

type orders struct {
	CacheDir, Record, Endpoint string
	URLs                       []string
	Every                      time.Duration
	// KillAt is the point at which the process kills itself, and KillBody
	// means in the middle of a body.
	KillAt   string
	KillBody bool
	// Forever asks for the URLs over and over, without the cache.
	Forever bool
}

func TestMain(m *testing.M) {
	if raw := os.Getenv(childEnv); raw != "" {
		if err := child(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(raw string) error {
	var o orders
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		return err
	}
	kill := func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	c, err := New(Config{
		CacheDir: o.CacheDir, Record: o.Record, Endpoints: map[Site]string{Arxiv: o.Endpoint},
		Limits: map[Site]Limit{Arxiv: {Every: o.Every, Conns: 1}},
		Hook: func(point string) {
			if point == o.KillAt {
				kill()
			}
		},
		Progress: func(p Progress) {
			if p.Phase == "body" && o.KillBody {
				kill()
			}
		},
	})
	if err != nil {
		return err
	}
	for {
		for _, u := range o.URLs {
			r := Request{URL: u}
			if o.Forever {
				r.MaxAge = -1
			}
			res, err := c.Get(context.Background(), r)
			if err != nil {
				return err
			}
			fmt.Printf("%s %v\n", res.SHA256, res.FromCache)
		}
		if !o.Forever {
			return nil
		}
	}
}

func start(t *testing.T, o orders) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestLimitHoldsAcrossProcesses has five processes ask one site, and takes the
// times where the site would: at its door.
func TestLimitHoldsAcrossProcesses(t *testing.T) {
	const every = 60 * time.Millisecond
	type span struct{ begin, end time.Time }
	var mu sync.Mutex
	var spans []span
	var open, most int
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		begin := time.Now()
		open++
		most = max(most, open)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		_, _ = w.Write([]byte(r.URL.Path))
		mu.Lock()
		open--
		spans = append(spans, span{begin, time.Now()})
		mu.Unlock()
	})
	dir := t.TempDir()
	var cmds []*exec.Cmd
	var outs []*strings.Builder
	for p := range 5 {
		var urls []string
		for i := range 4 {
			urls = append(urls, fmt.Sprintf("https://arxiv.org/abs/%d.%d", p, i))
		}
		cmd, out := start(t, orders{CacheDir: dir, Endpoint: srv.URL, URLs: urls, Every: every})
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outs[i])
		}
	}
	if len(spans) != 20 || most != 1 {
		t.Fatalf("%d requests, %d at once; want 20, one at a time", len(spans), most)
	}
	for i := 1; i < len(spans); i++ {
		if gap := spans[i].begin.Sub(spans[i-1].begin); gap < every {
			t.Errorf("request %d came %s after the one before it, want %s", i, gap, every)
		}
	}
}

// TestOneFetchForManyProcesses starts processes that want the same page.
func TestOneFetchForManyProcesses(t *testing.T) {
	srv, n := serve(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		_, _ = w.Write([]byte(r.URL.Path))
	})
	dir := t.TempDir()
	var cmds []*exec.Cmd
	var outs []*strings.Builder
	for range 6 {
		cmd, out := start(t, orders{CacheDir: dir, Endpoint: srv.URL, URLs: []string{"https://arxiv.org/abs/1", "https://arxiv.org/abs/2"}})
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	fresh := 0
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v\n%s", i, err, outs[i])
		}
		fresh += strings.Count(outs[i].String(), "false")
		if strings.Count(outs[i].String(), "\n") != 2 {
			t.Errorf("process %d said %q", i, outs[i])
		}
	}
	if n.get() != 2 || fresh != 2 {
		t.Errorf("%d requests, %d fresh answers; want 2 of each", n.get(), fresh)
	}
}

// page is a body that is long enough for a note about its progress.
func page(path string) string { return strings.Repeat(path+"\n", 3<<20/(len(path)+1)) }

// TestKilledAtEveryStep kills a process at each durable step; the next one gets
// the whole answer, and what was left behind can be pruned.
func TestKilledAtEveryStep(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(page(r.URL.Path))) })
	for _, o := range []orders{
		{KillBody: true}, {KillAt: "fetch:limit:before"}, {KillAt: "fetch:limit:after"}, {KillAt: "fetch:blob:before"}, {KillAt: "fetch:blob:after"},
		{KillAt: "fetch:meta:before"}, {KillAt: "fetch:meta:after"}, {KillAt: "fetch:record:before"}, {KillAt: "fetch:record:after"},
	} {
		t.Run(o.KillAt, func(t *testing.T) {
			o.CacheDir, o.Record, o.Endpoint = t.TempDir(), filepath.Join(t.TempDir(), "m"), srv.URL
			o.URLs = []string{"https://arxiv.org/abs/1"}
			cmd, out := start(t, o)
			var exit *exec.ExitError
			if err := cmd.Wait(); err == nil || !isKilled(err, &exit) {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			ck := newClock()
			ck.t = time.Now()
			c, err := New(Config{CacheDir: o.CacheDir, Record: o.Record, Endpoints: map[Site]string{Arxiv: srv.URL}, Now: ck.Now, Sleep: ck.Sleep})
			if err != nil {
				t.Fatal(err)
			}
			res, err := c.Get(t.Context(), Request{URL: o.URLs[0]})
			if err != nil || string(res.Body) != page("/abs/1") {
				t.Fatalf("after the kill: %v", err)
			}
			if late := strings.HasPrefix(o.KillAt, "fetch:record") || o.KillAt == "fetch:meta:after"; res.FromCache != late {
				t.Errorf("from the cache %v, want %v", res.FromCache, late)
			}
			ck.Advance(2 * pruneGrace)
			if _, err := c.Prune(t.Context(), PruneOptions{}); err != nil {
				t.Error(err)
			}
			noTemps(t, c)
			if again, err := c.Get(t.Context(), Request{URL: o.URLs[0]}); err != nil || !again.FromCache {
				t.Errorf("the whole answer was pruned: %v", err)
			}
			offline, err := New(Config{Mirror: o.Record})
			if err != nil {
				t.Fatal(err)
			}
			if res, err := offline.Get(t.Context(), Request{URL: o.URLs[0]}); err != nil || string(res.Body) != page("/abs/1") {
				t.Errorf("the mirror: %v", err)
			}
		})
	}
}

func isKilled(err error, exit **exec.ExitError) bool {
	e, ok := err.(*exec.ExitError)
	if !ok {
		return false
	}
	*exit = e
	ws, ok := e.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// TestKilledAtRandom kills processes that write all the time, and looks at
// everything that is visible in the cache afterwards.
func TestKilledAtRandom(t *testing.T) {
	srv, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(page(r.URL.Path))) })
	dir := t.TempDir()
	urls := []string{"https://arxiv.org/abs/1", "https://arxiv.org/abs/2", "https://arxiv.org/abs/3"}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 4 {
		var cmds []*exec.Cmd
		for range 3 {
			cmd, _ := start(t, orders{CacheDir: dir, Endpoint: srv.URL, URLs: urls, Forever: true})
			cmds = append(cmds, cmd)
		}
		for _, cmd := range cmds {
			time.Sleep(time.Duration(20+rng.IntN(120)) * time.Millisecond)
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
		}
		c, _ := client(t, srv, func(cfg *Config) {
			cfg.CacheDir, cfg.Endpoints, cfg.Now = dir, map[Site]string{Arxiv: srv.URL}, time.Now
		})
		metas, err := filepath.Glob(filepath.Join(dir, "http", "meta", "*", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metas {
			e, err := c.cache.find(strings.TrimSuffix(filepath.Base(m), ".json"))
			if err != nil || e == nil {
				t.Errorf("%s: %v", m, err)
			} else if _, ok := c.cache.body(e, false); !ok {
				t.Errorf("%s has no sound body", m)
			}
		}
		for _, u := range urls {
			if res, err := c.Get(t.Context(), Request{URL: u}); err != nil || string(res.Body) != page(strings.TrimPrefix(u, "https://arxiv.org")) {
				t.Errorf("%s: %v", u, err)
			}
		}
	}
}
