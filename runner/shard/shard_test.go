package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
)

// numbers is a suite of questions whose right answer is "yes".
type numbers int

func (n numbers) Items(context.Context) ([]suites.Item, error) {
	out := make([]suites.Item, n)
	for i := range out {
		out[i] = suites.Item{ID: fmt.Sprintf("q%d", i), Question: fmt.Sprintf("Is %d a number?", i), Reference: "yes"}
	}
	return out, nil
}

func (numbers) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.ID + " " + it.Question}}}, nil
}

func (numbers) Grader() suites.Grader { return rule{} }

type rule struct{}

func (rule) Rule() suites.Rule { return suites.Rule{Suite: "numbers", Name: "yes", Version: "1"} }

func (rule) Grade(it suites.Item, text string) suites.Grade {
	if text == it.Reference {
		return suites.Grade{Rule: "yes@1", Outcome: suites.Correct, Score: 1, Stage: 1, Extracted: text}
	}
	return suites.Grade{Rule: "yes@1", Outcome: suites.Wrong, Stage: 1, Extracted: text}
}

// site is a suite in blocks with two servers.
type site struct {
	folder    Folder
	suite     Suite
	questions int
	servers   map[string]*endpointtest.Server
	down      atomic.Bool // every request is refused
	progress  func(harness.Progress)
	scores    bool // arms are not compared, so that all is asked
}

func newSite(t *testing.T, questions, of int) *site {
	t.Helper()
	s := &site{folder: Folder(filepath.Join(t.TempDir(), "shards")), questions: questions, servers: map[string]*endpointtest.Server{}}
	s.suite = Suite{Suite: spec.Suite{ID: "numbers", Name: "numbers", Arms: []spec.Arm{{Name: "base"}, {Name: "cand"}}}, Of: of, Endpoints: map[string]string{}}
	for arm, right := range map[string]float64{"base": 0.9, "cand": 0.5} {
		srv := endpointtest.New(endpointtest.Config{Model: arm, Version: "1", Started: time.Unix(1_790_000_000, 0), Slots: 4,
			Answer: func(a endpointtest.Asked) endpointtest.Reply {
				id, _, _ := strings.Cut(a.Prompt, " ")
				h := fnv.New64a()
				fmt.Fprint(h, arm, id)
				text := "no"
				if float64(h.Sum64()%1000) < 1000*right {
					text = "yes"
				}
				return endpointtest.Reply{Text: text, Delay: time.Millisecond}
			},
			Fault: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
				if s.down.Load() {
					w.WriteHeader(http.StatusServiceUnavailable)
					return true
				}
				return false
			}})
		t.Cleanup(srv.Close)
		s.servers[arm], s.suite.Endpoints[arm] = srv, srv.URL+"/v1"
	}
	if _, err := s.folder.Declare(s.suite); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) config(t *testing.T, j accuracy.Job) harness.Config {
	t.Helper()
	c := harness.Config{Name: "numbers", Suite: numbers(s.questions), Dir: j.Dir, Shard: j.Shard, From: j.From, Seed: 7, NoSync: true, Progress: func(p harness.Progress) {
		if s.progress != nil {
			s.progress(p)
		}
		if j.Progress != nil {
			j.Progress(p)
		}
	}, Terms: harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.05, Alpha: 0.05, Look: 16}}, Check: 20 * time.Millisecond}
	if s.scores {
		c.Terms = harness.Terms{}
	}
	for _, arm := range []string{"base", "cand"} {
		cl, err := endpoint.New(endpoint.Config{URL: s.suite.Endpoints[arm], Retry: endpoint.Retry{Attempts: 2, Base: time.Millisecond, MaxBackoff: time.Millisecond, Budget: 10 * time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cl.Close)
		c.Arms = append(c.Arms, harness.Arm{Name: arm, Server: cl})
	}
	return c
}

type asking struct {
	*site
	t *testing.T
}

func (a asking) Run(ctx context.Context, j accuracy.Job) (harness.Result, error) {
	return harness.Run(ctx, a.config(a.t, j))
}

func (s *site) client(t *testing.T, index int, pod string) Client {
	return Client{Folder: s.folder, Index: index, Pod: pod, Node: "n1", Suites: asking{s, t}, Out: &bytes.Buffer{}, Now: time.Now}
}

func (s *site) done(t *testing.T, c Client) {
	t.Helper()
	if code, err := c.Run(t.Context()); code != ExitDone || err != nil {
		t.Fatalf("block %d: exit %d, %v", c.Index, code, err)
	}
}

func (s *site) merge(t *testing.T, parts bool) harness.Result {
	t.Helper()
	dirs, err := s.folder.Answers(s.suite.Of, parts)
	if err != nil {
		t.Fatal(err)
	}
	res, err := harness.Merge(t.Context(), s.config(t, accuracy.Job{From: dirs}), dirs...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// whole is the same suite asked by one process that nothing interrupts.
func (s *site) whole(t *testing.T) harness.Result {
	t.Helper()
	res, err := harness.Run(t.Context(), s.config(t, accuracy.Job{Dir: t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func same(t *testing.T, got, want harness.Result) {
	t.Helper()
	if got.Used != want.Used || !reflect.DeepEqual(got.Arms, want.Arms) || !reflect.DeepEqual(got.Comparisons, want.Comparisons) {
		t.Errorf("over %d questions: %+v %+v\nwant over %d: %+v %+v", got.Used, got.Arms, got.Comparisons, want.Used, want.Arms, want.Comparisons)
	}
}

// TestBlocksAreTheWhole: blocks decide as one run does, as soon as one would.
func TestBlocksAreTheWhole(t *testing.T) {
	s := newSite(t, 300, 5)
	want := s.whole(t)
	for i := range 5 {
		s.done(t, s.client(t, i, fmt.Sprint("pod", i)))
		if got := s.merge(t, false); got.Decided() != (60*(i+1) >= want.Used) {
			t.Errorf("after %d blocks it is decided: %v; one run took %d questions", i+1, got.Decided(), want.Used)
		}
	}
	got := s.merge(t, false)
	same(t, got, want)
	if got.Paid.Requests != 600 || got.Paid.Repeated != 0 || !got.Complete() == (got.Used == 300) {
		t.Errorf("paid %+v", got.Paid)
	}
	e, ok, err := s.folder.End(3)
	if err != nil || !ok || e.Answers != 120 || e.Requests != 120 || e.Pod != "pod3" {
		t.Errorf("block 4 ended as %+v, %v, %v", e, ok, err)
	}
	s.done(t, s.client(t, 3, "another")) // finds it done
	if again, _, _ := s.folder.End(3); again != e {
		t.Errorf("the end changed to %+v", again)
	}
}

// TestAPodIsFollowedByAnother: answers of a pod that was ended are taken over, and
// what was in flight is counted.
func TestAPodIsFollowedByAnother(t *testing.T) {
	s := newSite(t, 200, 1)
	s.scores = true
	want := s.whole(t)
	for arm := range s.servers { // count from here on
		s.servers[arm].Counts()
	}
	before := s.servers["base"].Requests() + s.servers["cand"].Requests()
	for n := range 3 {
		ctx, stop := context.WithCancel(t.Context())
		limit := s.servers["base"].Requests() + 30
		watch := make(chan struct{})
		go func() {
			defer close(watch)
			for ctx.Err() == nil && s.servers["base"].Requests() < limit {
				time.Sleep(time.Millisecond)
			}
			stop()
		}()
		if code, err := s.client(t, 0, fmt.Sprint("pod", n)).Run(ctx); code != ExitAgain || !errors.Is(err, context.Canceled) {
			t.Fatalf("exit %d, %v", code, err)
		}
		<-watch
	}
	s.done(t, s.client(t, 0, "last"))
	got := s.merge(t, false)
	same(t, got, want)
	came := s.servers["base"].Requests() + s.servers["cand"].Requests() - before
	e, _, _ := s.folder.End(0)
	if came > got.Paid.Requests || e.Repeated != got.Paid.Repeated || got.Paid.Repeated < came-400 || got.Paid.Repeated > 3*64 {
		t.Errorf("%d requests came; counted are %+v, %+v", came, got.Paid, e)
	}
}

// TestTwoPodsAtOnce: a pod that was cut off and goes on spoils nothing.
func TestTwoPodsAtOnce(t *testing.T) {
	s := newSite(t, 200, 1)
	s.scores = true
	want := s.whole(t)
	first := make(chan error, 1)
	half := s.servers["base"].Requests() + 60
	go func() {
		_, err := s.client(t, 0, "cut-off").Run(t.Context())
		first <- err
	}()
	for s.servers["base"].Requests() < half {
		time.Sleep(time.Millisecond)
	}
	s.done(t, s.client(t, 0, "next"))
	<-first // it ended too, whether or not it noticed
	same(t, s.merge(t, true), want)
	if e, _, _ := s.folder.End(0); e.Pod != "next" && e.Pod != "cut-off" {
		t.Errorf("ended by %+v", e)
	}
}

// TestServerGone: a client waits for a server that its kubelet starts again, says
// so, and gives up where none comes.
func TestServerGone(t *testing.T) {
	s := newSite(t, 150, 1)
	s.scores = true
	want := s.whole(t)
	var seen atomic.Bool
	s.progress = func(p harness.Progress) {
		if p.Done > 0 && seen.CompareAndSwap(false, true) {
			s.down.Store(true)
			time.AfterFunc(300*time.Millisecond, func() {
				s.servers["cand"].Become("cand", "1", time.Unix(1_790_000_500, 0))
				s.down.Store(false)
			})
		}
	}
	s.down.Store(true)
	time.AfterFunc(100*time.Millisecond, func() { s.down.Store(false) })
	s.done(t, s.client(t, 0, "patient"))
	same(t, s.merge(t, false), want)

	gone := newSite(t, 10, 1)
	gone.suite.Patience = time.Millisecond
	os.Remove(gone.folder.path(fileSuite))
	if _, err := gone.folder.Declare(gone.suite); err != nil {
		t.Fatal(err)
	}
	gone.down.Store(true)
	code, err := gone.client(t, 0, "impatient").Run(t.Context())
	if code != ExitAgain || err == nil || !strings.Contains(gone.folder.Trouble(0), "has been down for") {
		t.Errorf("exit %d, %v, trouble %q", code, err, gone.folder.Trouble(0))
	}
}

// TestRestartedServerIsSeen: another process of the same server changes no answer,
// and is told.
func TestRestartedServerIsSeen(t *testing.T) {
	s := newSite(t, 400, 1)
	s.scores = true
	var seen atomic.Bool
	s.progress = func(harness.Progress) {}
	go func() {
		for s.servers["cand"].Requests() < 100 {
			time.Sleep(time.Millisecond)
		}
		s.servers["cand"].Become("cand", "1", time.Unix(1_790_000_500, 0))
		seen.Store(true)
	}()
	s.done(t, s.client(t, 0, "pod"))
	if e, _, _ := s.folder.End(0); !seen.Load() || e.Restarts != 1 || e.Void != 0 {
		t.Errorf("ended %+v", e)
	}
}

// TestAnotherServer: answers of a server that became another system are void, and
// the block does not end.
func TestAnotherServer(t *testing.T) {
	s := newSite(t, 400, 2)
	s.scores = true
	s.done(t, s.client(t, 0, "pod0"))
	go func() {
		for s.servers["cand"].Requests() < 240 {
			time.Sleep(time.Millisecond)
		}
		s.servers["cand"].Become("cand", "2", time.Unix(1_790_000_500, 0))
	}()
	code, err := s.client(t, 1, "pod1").Run(t.Context())
	if code != ExitVoid || err == nil || !strings.Contains(s.folder.Trouble(1), "version: 1 → 2") {
		t.Fatalf("exit %d, %v", code, err)
	}
	if res := s.merge(t, true); res.Used < 200 || res.Used >= 400 || res.Paid.Void == 0 {
		t.Errorf("over %d questions, paid %+v", res.Used, res.Paid)
	}
	// A block that began with the other system is void as a whole.
	s = newSite(t, 100, 2)
	s.scores = true
	s.done(t, s.client(t, 0, "pod0"))
	s.servers["cand"].Become("cand", "2", time.Unix(1_790_000_500, 0))
	s.done(t, s.client(t, 1, "pod1"))
	if res := s.merge(t, false); res.Used != 50 || res.Paid.Void != 50 || len(res.Warnings) == 0 || !strings.Contains(res.Warnings[0], "another system than in the blocks before") {
		t.Errorf("over %d questions, paid %+v, %q", res.Used, res.Paid, res.Warnings)
	}
}

type result struct {
	res harness.Result
	err error
}

func (r result) Run(context.Context, accuracy.Job) (harness.Result, error) { return r.res, r.err }

// TestNothingAsked: a client that has asked nothing has done nothing, whatever it
// believes.
func TestNothingAsked(t *testing.T) {
	s := newSite(t, 100, 2)
	for name, c := range map[string]struct {
		r    result
		code int
	}{
		"no request":   {result{res: harness.Result{Questions: 100, Repeats: 1, Shard: harness.Shard{Index: 1, Of: 2}}}, ExitAgain},
		"half of it":   {result{res: harness.Result{Questions: 100, Repeats: 1, Units: 25, Shard: harness.Shard{Index: 1, Of: 2}}}, ExitAgain},
		"no questions": {result{res: harness.Result{Repeats: 1, Shard: harness.Shard{Index: 1, Of: 2}}}, ExitAgain},
		"volume full":  {result{err: &fs.PathError{Op: "write", Path: "answers", Err: errors.New("no space left on device")}}, ExitAgain},
		"bad plan":     {result{err: &harness.UserError{Msg: "too long", Fix: "shorten"}}, ExitRefused},
	} {
		cl := s.client(t, 1, "pod-"+strings.ReplaceAll(name, " ", "-"))
		cl.Suites = c.r
		if code, err := cl.Run(t.Context()); code != c.code || err == nil || s.folder.Trouble(1) == "" {
			t.Errorf("%s: exit %d, %v", name, code, err)
		}
		if _, done, _ := s.folder.End(1); done {
			t.Errorf("%s: the block has ended", name)
		}
	}
}

// TestNotNeeded: a pod that begins after the decision asks nothing.
func TestNotNeeded(t *testing.T) {
	s := newSite(t, 100, 2)
	if err := s.folder.Stop("the comparison is decided"); err != nil {
		t.Fatal(err)
	}
	if err := s.folder.Stop("something else"); err != nil || s.folder.Stopped() != "the comparison is decided" {
		t.Errorf("%v, %q", err, s.folder.Stopped())
	}
	s.done(t, s.client(t, 1, "late"))
	if n := s.servers["base"].Requests(); n != 0 {
		t.Errorf("%d requests came", n)
	}
}

// TestOneBlock: a block that is the whole decides by itself.
func TestOneBlock(t *testing.T) {
	s := newSite(t, 300, 1)
	want := s.whole(t)
	s.done(t, s.client(t, 0, "pod"))
	same(t, s.merge(t, false), want)
	if n := s.servers["base"].Requests(); want.Used > 100 || n >= 300 {
		t.Errorf("%d requests for %d questions", n, want.Used)
	}
}

// TestKilledAtEveryStep: whatever a pod was at when it died, the next one gives the
// same answers.
func TestKilledAtEveryStep(t *testing.T) {
	for _, point := range []string{"shard:take:before", "shard:take:after", "shard:end:before", "shard:end:after"} {
		s := newSite(t, 60, 1)
		s.scores = true
		want := s.whole(t)
		c := s.client(t, 0, "killed")
		c.Hook = func(p string) {
			if p == point {
				panic(p)
			}
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was not reached", point)
				}
			}()
			c.Run(t.Context())
		}()
		s.done(t, s.client(t, 0, "next"))
		same(t, s.merge(t, false), want)
	}
}
