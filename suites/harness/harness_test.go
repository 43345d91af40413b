package harness_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
)

// toy is a suite of n questions whose right answer is "yes".
type toy struct{ n int }

func (s toy) Items(context.Context) ([]suites.Item, error) {
	out := make([]suites.Item, s.n)
	for i := range out {
		out[i] = suites.Item{ID: fmt.Sprintf("q%d", i), Question: fmt.Sprintf("Is %d a number?", i), Reference: "yes"}
	}
	return out, nil
}

func (s toy) Prompt(it suites.Item, repeat int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: fmt.Sprintf("%s %s", it.ID, it.Question)}}}, nil
}

func (s toy) Grader() suites.Grader { return toyRule{} }

type toyRule struct{}

func (toyRule) Rule() suites.Rule { return suites.Rule{Suite: "toy", Name: "yes", Version: "1"} }

func (toyRule) Grade(it suites.Item, text string) suites.Grade {
	g := suites.Grade{Rule: "yes@1", Outcome: suites.NoAnswer}
	switch text {
	case "":
	case it.Reference:
		g.Outcome, g.Score, g.Stage, g.Extracted = suites.Correct, 1, 1, text
	case "no":
		g.Outcome, g.Stage, g.Extracted = suites.Wrong, 1, text
	}
	return g
}

// share is a number from 0 to 1 that depends on its arguments alone.
func share(parts ...any) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return float64(h.Sum64()%100_000) / 100_000
}

// answers is a model that is right on a share of the questions.
func answers(salt string, right float64) func(endpointtest.Asked) endpointtest.Reply {
	return func(a endpointtest.Asked) endpointtest.Reply {
		id, _, _ := strings.Cut(a.Prompt, " ")
		if share(salt, id, *a.Seed) < right {
			return endpointtest.Reply{Text: "yes"}
		}
		return endpointtest.Reply{Text: "no"}
	}
}

func server(t testing.TB, c endpointtest.Config) *endpointtest.Server {
	t.Helper()
	if c.Model == "" {
		c.Model = "m"
	}
	if c.Started.IsZero() {
		c.Started = time.Unix(1_700_000_000, 0)
	}
	s := endpointtest.New(c)
	t.Cleanup(s.Close)
	return s
}

func client(t testing.TB, s *endpointtest.Server) *endpoint.Client {
	t.Helper()
	c, err := endpoint.New(endpoint.Config{URL: s.URL, Retry: endpoint.Retry{Base: time.Millisecond, Attempts: 2, Budget: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// config is a run of two arms over n questions.
func config(t testing.TB, n int, a, b *endpointtest.Server) harness.Config {
	return harness.Config{Name: "toy", Suite: toy{n}, Dir: t.TempDir(), Seed: 7, NoSync: true,
		Arms: []harness.Arm{{Name: "fp8", Server: client(t, a)}, {Name: "nvfp4", Server: client(t, b)}}}
}

func run(t testing.TB, c harness.Config) harness.Result {
	t.Helper()
	res, err := harness.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// content is what a result rests on: one line for each answer.
func content(t testing.TB, c harness.Config, res harness.Result) []string {
	t.Helper()
	var out []string
	err := harness.Answers(t.Context(), c, res, func(a harness.Answer) error {
		out = append(out, fmt.Sprintln(a.Arm, a.ItemID, a.Repeat, a.Text, a.Grade.Outcome, a.Grade.Score, a.Position))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func TestEveryQuestionOnce(t *testing.T) {
	a, b := server(t, endpointtest.Config{Answer: answers("a", 0.8)}), server(t, endpointtest.Config{Answer: answers("b", 0.7)})
	c := config(t, 50, a, b)
	c.Repeats = 3
	res := run(t, c)
	if res.Used != 50 || res.Units != 150 || res.Stopped != "" || res.Paid.Requests != 300 || res.Paid.Repeated != 0 {
		t.Errorf("%+v", res)
	}
	if a.Requests() != 150 || b.Requests() != 150 {
		t.Errorf("%d and %d requests", a.Requests(), b.Requests())
	}
	if n := len(content(t, c, res)); n != 300 {
		t.Errorf("%d answers", n)
	}
	arm := res.Arms[0]
	if arm.MajAt == nil || arm.PassAt == nil || !(*arm.PassAt >= *arm.MajAt) || arm.Outcomes[suites.Correct]+arm.Outcomes[suites.Wrong] != 150 {
		t.Errorf("%+v", arm)
	}
	moments := map[string]int{}
	for _, k := range res.Looks {
		moments[k.Moment]++
	}
	if moments["before"] != 2 || moments["after"] != 2 {
		t.Errorf("looks %v", moments)
	}
	again := run(t, c)
	if a.Requests() != 150 || !reflect.DeepEqual(again.Arms, res.Arms) {
		t.Error("a finished run was asked again")
	}
}

func TestOrderIsDeclared(t *testing.T) {
	items, _ := toy{100}.Items(t.Context())
	reversed := slices.Clone(items)
	slices.Reverse(reversed)
	if !reflect.DeepEqual(harness.Order(items, 1), harness.Order(reversed, 1)) {
		t.Error("the order depends on the data set's")
	}
	if reflect.DeepEqual(harness.Order(items, 1), harness.Order(items, 2)) || reflect.DeepEqual(harness.Order(items, 1), items) {
		t.Error("the order does not depend on the seed")
	}
	for i := range items {
		items[i].Cluster = fmt.Sprint(i % 10)
	}
	ordered := harness.Order(items, 1)
	for i, it := range ordered {
		if it.Cluster != ordered[i/10*10].Cluster {
			t.Fatalf("questions of a passage are apart: %v", ordered)
		}
	}
}

func TestOutcomesApart(t *testing.T) {
	kinds := []endpointtest.Reply{{Text: "yes"}, {Text: "no"}, {Text: "perhaps"}, {Text: "perha", Finish: "length"}, {}, {Null: true, Reasoning: "hm", Finish: "length"}, {Refusal: "I will not"}}
	answer := func(a endpointtest.Asked) endpointtest.Reply {
		var n int
		fmt.Sscanf(a.Prompt, "q%d", &n)
		return kinds[n%len(kinds)]
	}
	a := server(t, endpointtest.Config{Answer: answer})
	c := config(t, 70, a, a)
	c.Arms = c.Arms[:1]
	res := run(t, c)
	want := map[suites.Outcome]int{suites.Correct: 10, suites.Wrong: 10, suites.NoAnswer: 10, suites.Truncated: 20, suites.Empty: 10, suites.Refused: 10}
	if !maps.Equal(res.Arms[0].Outcomes, want) {
		t.Errorf("%v, want %v", res.Arms[0].Outcomes, want)
	}
}

// TestFailedRequests has a server reject every tenth question: that is an outcome,
// which takes the question out of the comparison.
func TestFailedRequests(t *testing.T) {
	good := server(t, endpointtest.Config{Answer: answers("a", 0.8)})
	bad := server(t, endpointtest.Config{Answer: func(a endpointtest.Asked) endpointtest.Reply { return endpointtest.Reply{Text: "yes"} }})
	c := config(t, 100, good, bad)
	c.Arms[1].Server = rejecting{c.Arms[1].Server}
	c.Terms = harness.Terms{Method: "tost", Options: compare.Options{Margin: 0.5, Alpha: 0.05}}
	res := run(t, c)
	if res.Arms[1].Outcomes[suites.Error] != 10 || res.Comparisons[0].Result.Used != 90 || len(res.Warnings) == 0 {
		t.Errorf("%+v", res)
	}
}

// rejecting is a server that rejects questions whose number ends in 3.
type rejecting struct{ harness.Asker }

func (r rejecting) Ask(ctx context.Context, q endpoint.Request) (endpoint.Answer, error) {
	if id, _, _ := strings.Cut(q.Messages[0].Content, " "); strings.HasSuffix(id, "3") {
		return endpoint.Answer{}, &endpoint.Error{Kind: endpoint.Rejected, Status: 400}
	}
	return r.Asker.Ask(ctx, q)
}

// TestServerAtFault has a server that fails every request after a while: none of
// those failures becomes an outcome, and the run can be taken up.
func TestServerAtFault(t *testing.T) {
	var broken atomic.Bool
	var n atomic.Int64
	fault := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if n.Add(1) > 40 && broken.Load() {
			w.WriteHeader(422)
			return true
		}
		return false
	}
	broken.Store(true)
	a, b := server(t, endpointtest.Config{Answer: answers("a", 0.8)}), server(t, endpointtest.Config{Answer: answers("b", 0.8), Fault: fault})
	c := config(t, 200, a, b)
	_, err := harness.Run(t.Context(), c)
	var user interface{ UserError() string }
	if !errors.As(err, &user) || !strings.Contains(err.Error(), "nvfp4") {
		t.Fatalf("%v", err)
	}
	broken.Store(false)
	res := run(t, c)
	if res.Used != 200 || res.Arms[1].Outcomes[suites.Error] != 0 {
		t.Errorf("%+v", res.Arms)
	}
}

func TestEarlyStop(t *testing.T) {
	a, b := server(t, endpointtest.Config{Answer: answers("a", 0.8)}), server(t, endpointtest.Config{Answer: answers("b", 0.5)})
	c := config(t, 2000, a, b)
	c.Terms = harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.02, Alpha: 0.05}}
	res := run(t, c)
	r := res.Comparisons[0].Result
	if r.Verdict != compare.Worse || res.Stopped == "" || res.Used >= 1000 || r.Saved != 2000-r.Used || res.Units != r.Used {
		t.Errorf("%+v", res)
	}
	if n := len(content(t, c, res)); n != 2*res.Used {
		t.Errorf("%d answers for %d questions", n, res.Used)
	}
	// What a run without early stop says of the same beginning.
	full := config(t, 2000, a, b)
	full.Seed, full.Limit = c.Seed, 0
	all := run(t, full)
	head := slices.DeleteFunc(content(t, full, all), func(s string) bool {
		var pos int
		fmt.Sscanf(s[strings.LastIndexByte(strings.TrimSpace(s), ' '):], "%d", &pos)
		return pos >= res.Used
	})
	if !slices.Equal(head, content(t, c, res)) {
		t.Error("the early stop changed the answers before it")
	}
}

func TestBudget(t *testing.T) {
	a, b := server(t, endpointtest.Config{Answer: answers("a", 0.8)}), server(t, endpointtest.Config{Answer: answers("b", 0.8)})
	c := config(t, 400, a, b)
	c.Budget.Tokens = 2000 // an answer takes seven
	res := run(t, c)
	if !strings.Contains(res.Stopped, "2000 tokens") || res.Paid.Tokens > 2100 || res.Paid.Tokens < 1500 || res.Used == 0 {
		t.Errorf("%+v", res)
	}
	c.Budget.Tokens = 0
	if res = run(t, c); res.Used != 400 || res.Paid.Repeated != 0 {
		t.Errorf("%+v", res)
	}
}

// TestAnotherServer restarts a server with another model under the run's feet.
func TestAnotherServer(t *testing.T) {
	t.Run("version", func(t *testing.T) { anotherServer(t, "m", "0.99") })
	t.Run("model", func(t *testing.T) { anotherServer(t, "other", "0.14") })
}

func anotherServer(t *testing.T, model, version string) {
	var n atomic.Int64
	var b *endpointtest.Server
	start := time.Unix(1_700_000_000, 0)
	ready := make(chan struct{})
	a := server(t, endpointtest.Config{Answer: answers("a", 0.8), Started: start})
	b = server(t, endpointtest.Config{Answer: func(q endpointtest.Asked) endpointtest.Reply {
		<-ready
		if n.Add(1) == 100 {
			b.Become(model, version, start.Add(time.Hour))
		}
		return answers("b", 0.8)(q)
	}, Version: "0.14", Started: start})
	close(ready)
	c := config(t, 300, a, b)
	c.Check = 5 * time.Millisecond
	_, err := harness.Run(t.Context(), c)
	var void *harness.VoidError
	if !errors.As(err, &void) || void.Arm != "nvfp4" || !void.Change.Material {
		t.Fatalf("%v", err)
	}
	if _, err = harness.Run(t.Context(), c); !errors.As(err, &void) {
		t.Fatalf("went on with another server: %v", err)
	}
	b.Become("m", "0.14", start.Add(2*time.Hour))
	res := run(t, c)
	// A server that does not know its model any more answers nothing that could be void.
	if res.Used != 300 || version != "0.14" && res.Paid.Void == 0 {
		t.Errorf("%+v", res.Paid)
	}
	marked, restarted := 0, false
	for _, k := range res.Looks {
		if k.Void {
			marked++
		} else if k.Change.Changed() {
			restarted = true
		}
	}
	if marked != 2 || !restarted {
		t.Errorf("%d looks void, restart seen %v", marked, restarted)
	}
}

func TestInterrupted(t *testing.T) {
	a := server(t, endpointtest.Config{Answer: answers("a", 0.8)})
	b := server(t, endpointtest.Config{Answer: func(q endpointtest.Asked) endpointtest.Reply {
		r := answers("b", 0.8)(q)
		r.Delay = time.Millisecond
		return r
	}})
	c := config(t, 300, a, b)
	for i := 0; ; i++ {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+10*i)*time.Millisecond)
		res, err := harness.Run(ctx, c)
		cancel()
		if err == nil {
			if res.Used != 300 || len(content(t, c, res)) != 600 {
				t.Errorf("%+v", res)
			}
			if sent := a.Requests() + b.Requests(); sent > res.Paid.Requests || res.Paid.Requests-600 != res.Paid.Repeated {
				t.Errorf("%d requests came, %d were noted, %d of them again", sent, res.Paid.Requests, res.Paid.Repeated)
			}
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	for body, n := range b.Counts() {
		if n > 20 {
			t.Errorf("%s was asked %d times", body, n)
		}
	}
}

func TestDeclarationHolds(t *testing.T) {
	a := server(t, endpointtest.Config{Answer: answers("a", 0.8)})
	c := config(t, 20, a, a)
	run(t, c)
	for name, change := range map[string]func(*harness.Config){
		"seed":    func(c *harness.Config) { c.Seed++ },
		"data":    func(c *harness.Config) { c.Suite = toy{21} },
		"repeats": func(c *harness.Config) { c.Repeats = 2 },
		"terms":   func(c *harness.Config) { c.Terms.Margin = 0.01 },
	} {
		other := c
		change(&other)
		_, err := harness.Run(t.Context(), other)
		var user interface{ UserError() string }
		if !errors.As(err, &user) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestShardsAndMerge(t *testing.T) {
	a, b := server(t, endpointtest.Config{Answer: answers("a", 0.8)}), server(t, endpointtest.Config{Answer: answers("b", 0.78)})
	whole := config(t, 101, a, b)
	whole.Terms = harness.Terms{Method: "wor_e", Options: compare.Options{Margin: 0.05, Alpha: 0.05}}
	want := run(t, whole)
	var dirs []string
	for i := range 3 {
		c := whole
		c.Dir, c.Shard = t.TempDir(), harness.Shard{Index: i, Of: 3}
		run(t, c)
		dirs = append(dirs, c.Dir)
	}
	got, err := harness.Merge(t.Context(), whole, dirs[2], dirs[0], dirs[1])
	if err != nil {
		t.Fatal(err)
	}
	got.Looks, want.Looks, got.Paid, want.Paid, got.Stopped, want.Stopped = nil, nil, harness.Paid{}, harness.Paid{}, "", ""
	x, _ := json.Marshal(got)
	y, _ := json.Marshal(want)
	if string(x) != string(y) {
		t.Errorf("merged\n%s\nwant\n%s", x, y)
	}
	if part, err := harness.Merge(t.Context(), whole, dirs[0]); err != nil || part.Used != 33 {
		t.Errorf("the first shard alone: %d questions, %v", part.Used, err)
	}
	once := whole
	once.Terms.Method = "tost"
	dir := t.TempDir()
	c := once
	c.Dir, c.Shard = dir, harness.Shard{Index: 0, Of: 3}
	if r := run(t, c); len(r.Comparisons) != 0 || r.Used != 33 {
		t.Errorf("a shard alone compares: %+v", r.Comparisons)
	}
	if part, err := harness.Merge(t.Context(), once, dir); err != nil || len(part.Comparisons) != 0 || len(part.Warnings) != 1 {
		t.Errorf("a method that decides once compared the first shard: %+v, %v", part.Comparisons, err)
	}
	other := whole
	other.Seed = 8
	if _, err := harness.Merge(t.Context(), other, dirs...); err == nil {
		t.Error("shards of another order were merged")
	}
}

func TestContextTooSmall(t *testing.T) {
	a := server(t, endpointtest.Config{Answer: answers("a", 0.8), MaxLen: 4096})
	c := config(t, 20, a, a)
	c.Sampling.MaxTokens = 131072
	_, err := harness.Run(t.Context(), c)
	var user interface{ UserError() string }
	if !errors.As(err, &user) || a.Requests() != 0 {
		t.Errorf("%v after %d requests", err, a.Requests())
	}
}
