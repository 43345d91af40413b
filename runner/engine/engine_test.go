package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/decoder"
	"github.com/repromill/repromill/runner/engine/enginetest"
	"github.com/repromill/repromill/runner/engine/token"
)

// start runs an engine of the small model.
func start(t *testing.T, change func(*Config)) *Engine {
	t.Helper()
	m, err := decoder.Load(t.Context(), model.Folder(enginetest.Folder(t, enginetest.Tiny)), decoder.LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Load(enginetest.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Model: m, Tokenizer: tok, Threads: 2, MaxModelLen: 128, MaxBatch: 16, StepTokens: 64}
	if change != nil {
		change(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

func prompt(n, seed int) []int32 {
	r := rand.New(rand.NewPCG(uint64(n), uint64(seed)))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(3 + r.IntN(256))
	}
	return out
}

// answer is all of a stream.
type answer struct {
	text   string
	ids    []int32
	finish string
	reason any
	tokens []Token
	prompt []Token
}

func ask(ctx context.Context, e *Engine, r Request) (a answer, err error) {
	s, err := e.Submit(ctx, r)
	if err != nil {
		return a, err
	}
	for {
		p, ok := s.Next(ctx)
		if p.Err != nil || !ok {
			return a, p.Err
		}
		a.text += p.Text
		a.tokens, a.prompt = append(a.tokens, p.Tokens...), append(a.prompt, p.Prompt...)
		for _, t := range p.Tokens {
			a.ids = append(a.ids, t.ID)
		}
		if p.Finish != "" {
			a.finish, a.reason = p.Finish, p.StopReason
		}
	}
}

func plainRequest(n, seed, most int) Request {
	return Request{Prompt: prompt(n, seed), MaxTokens: most, IgnoreEOS: true, Logprobs: -1}
}

// TestAnswersDependOnTheRequestAlone asks everything one by one and at once,
// with a cache so small that requests lose it and are computed again.
func TestAnswersDependOnTheRequestAlone(t *testing.T) {
	var requests []Request
	for i := range 40 {
		r := plainRequest(1+i*2, i, 1+(i*7)%30)
		if i%2 == 1 {
			seed := uint64(i)
			r.Sampling = Sampling{Temperature: 1.2, TopP: 0.95, Seed: &seed}
		}
		requests = append(requests, r)
	}
	alone := start(t, func(c *Config) { c.MaxBatch, c.Threads = 1, 1 })
	small := start(t, func(c *Config) { c.CacheBytes = 160 * c.Model.Config.BytesPerToken() })
	var want []answer
	for _, r := range requests {
		a, err := ask(t.Context(), alone, r)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.ids) != r.MaxTokens || a.finish != "length" {
			t.Fatalf("%d tokens of %d, finish %s", len(a.ids), r.MaxTokens, a.finish)
		}
		want = append(want, a)
	}
	got := make([]answer, len(requests))
	var wait sync.WaitGroup
	for i, r := range requests {
		wait.Go(func() {
			var err error
			if got[i], err = ask(t.Context(), small, r); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i := range want {
		if !slices.Equal(got[i].ids, want[i].ids) || got[i].text != want[i].text {
			t.Errorf("request %d: %v among others, %v alone", i, got[i].ids, want[i].ids)
		}
	}
	st := small.Stats()
	if st.Preemptions == 0 {
		t.Error("no request lost its cache: the test does not test that")
	}
	if st.Finished["length"] != int64(len(requests)) || st.OutputTokens != alone.Stats().OutputTokens || st.Running+st.Waiting != 0 {
		t.Errorf("counted %+v", st)
	}
	if all, free := small.cache.Blocks(); all != free {
		t.Errorf("%d of %d blocks are free at the end", free, all)
	}
}

// TestHundredsOfClients come at once; a third leaves in the midst of the answer.
func TestHundredsOfClients(t *testing.T) {
	e := start(t, func(c *Config) { c.CacheBytes = 1000 * c.Model.Config.BytesPerToken() })
	const clients = 400
	var left, whole int
	var mu sync.Mutex
	var wait sync.WaitGroup
	for i := range clients {
		wait.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := e.Submit(ctx, plainRequest(5+i%20, i, 12))
			if err != nil {
				t.Error(err)
				return
			}
			for n := 0; ; n++ {
				if i%3 == 0 && n == 2 {
					cancel()
					mu.Lock()
					left++
					mu.Unlock()
					return
				}
				p, ok := s.Next(ctx)
				if p.Err != nil {
					t.Error(p.Err)
				}
				if !ok || p.Finish != "" {
					break
				}
			}
			mu.Lock()
			whole++
			mu.Unlock()
		})
	}
	wait.Wait()
	deadline := time.Now().Add(20 * time.Second)
	for st := e.Stats(); ; st = e.Stats() {
		if st.Running+st.Waiting == 0 && st.Finished["abort"]+st.Finished["length"] == clients {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", st)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if left+whole != clients || e.Stats().CacheUsage != 0 {
		t.Errorf("%d left, %d have their answers, %g of the cache is used", left, whole, e.Stats().CacheUsage)
	}
}

func TestWaitingIsBounded(t *testing.T) {
	e := start(t, func(c *Config) { c.MaxBatch, c.MaxWaiting = 1, 2 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	refused := 0
	for i := range 50 {
		if _, err := e.Submit(ctx, plainRequest(100, i, 20)); errors.Is(err, ErrBusy) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused < 40 {
		t.Errorf("%d of 50 were refused", refused)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	e := start(t, nil)
	for name, change := range map[string]func(*Request){
		"no prompt":          func(r *Request) { r.Prompt = nil },
		"a long prompt":      func(r *Request) { r.Prompt = prompt(129, 1) },
		"a full prompt":      func(r *Request) { r.Prompt = prompt(128, 1) },
		"a long answer":      func(r *Request) { r.MaxTokens = 128 },
		"no answer":          func(r *Request) { r.MaxTokens = 0 },
		"less than nothing":  func(r *Request) { r.MaxTokens = -1 },
		"a token too large":  func(r *Request) { r.Prompt = []int32{320} },
		"a negative token":   func(r *Request) { r.Prompt = []int32{-1} },
		"a temperature":      func(r *Request) { r.Sampling.Temperature = -1 },
		"no temperature":     func(r *Request) { r.Sampling.Temperature = math.NaN() },
		"a top_p":            func(r *Request) { r.Sampling.TopP = 1.5 },
		"a top_k":            func(r *Request) { r.Sampling.TopK = -2 },
		"an empty stop":      func(r *Request) { r.Stop = []string{""} },
		"many stops":         func(r *Request) { r.Stop = slices.Repeat([]string{"x"}, 100) },
		"many probabilities": func(r *Request) { r.Logprobs = 1000 },
		"more least tokens":  func(r *Request) { r.MinTokens = 50 },
	} {
		r := plainRequest(10, 1, 10)
		change(&r)
		_, err := e.Submit(t.Context(), r)
		var refused *RequestError
		if !errors.As(err, &refused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStops(t *testing.T) {
	e := start(t, nil)
	free, err := ask(t.Context(), e, plainRequest(10, 3, 40))
	if err != nil {
		t.Fatal(err)
	}
	// A stop string from the middle of the answer, over several tokens.
	runes := []rune(free.text)
	stop := string(runes[len(runes)/2 : len(runes)/2+3])
	r := plainRequest(10, 3, 40)
	r.Stop = []string{"never seen", stop}
	got, err := ask(t.Context(), e, r)
	if err != nil {
		t.Fatal(err)
	}
	if want := free.text[:strings.Index(free.text, stop)]; got.text != want || got.finish != "stop" || got.reason != stop {
		t.Errorf("stopped at %q after %q (%s), want %q", got.reason, got.text, got.finish, want)
	}
	// A token that ends the answer.
	r = plainRequest(10, 3, 40)
	end := free.ids[5]
	r.StopIDs = []int32{end}
	at := slices.Index(free.ids, end)
	if got, err = ask(t.Context(), e, r); err != nil || len(got.ids) != at+1 || got.finish != "stop" || got.reason != end {
		t.Errorf("%d tokens, %s by %v, %v; want %d", len(got.ids), got.finish, got.reason, err, at+1)
	}
	// The same, but not before some tokens.
	r.MinTokens = at + 2
	if got, err = ask(t.Context(), e, r); err != nil || len(got.ids) < at+2 || slices.Contains(got.ids[:at+2], end) {
		t.Errorf("%v with at least %d tokens, %v", got.ids, at+2, err)
	}
	// Text that only begins like a stop string comes in the end.
	r = plainRequest(10, 3, 40)
	r.Stop = []string{string(runes[len(runes)-2:]) + "beyond"}
	if got, err = ask(t.Context(), e, r); err != nil || got.text != free.text {
		t.Errorf("%q, want %q (%v)", got.text, free.text, err)
	}
}

// TestLogprobs holds the probabilities of a prompt, read in chunks, to those of
// the same tokens as an answer.
func TestLogprobs(t *testing.T) {
	e := start(t, func(c *Config) { c.StepTokens, c.MaxBatch = 16, 4 })
	r := plainRequest(5, 9, 50)
	r.Logprobs = 3
	first, err := ask(t.Context(), e, r)
	if err != nil {
		t.Fatal(err)
	}
	r.Prompt = append(r.Prompt, first.ids...)
	r.MaxTokens, r.PromptLogprobs = 0, true
	second, err := ask(t.Context(), e, r)
	if err != nil {
		t.Fatal(err)
	}
	if len(second.prompt) != 55 || second.prompt[0].Logprob != nil || len(second.tokens) != 0 {
		t.Fatalf("%d tokens of the prompt, %d of the answer", len(second.prompt), len(second.tokens))
	}
	for i, want := range first.tokens {
		got := second.prompt[5+i]
		if got.ID != want.ID || *got.Logprob != *want.Logprob || !slices.Equal(got.Top, want.Top) {
			t.Fatalf("token %d: %v, want %v", i, got, want)
		}
		if len(want.Top) != 3 || want.Top[0].ID != want.ID || want.Top[0].Value < want.Top[1].Value || want.Logprob.Rank != 1 {
			t.Fatalf("token %d: %+v", i, want)
		}
	}
}

func TestEngineThatEnds(t *testing.T) {
	m, err := decoder.Load(t.Context(), model.Folder(enginetest.Folder(t, enginetest.Tiny)), decoder.LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Load(enginetest.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	e, err := New(Config{Model: m, Tokenizer: tok, Threads: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := e.Submit(t.Context(), plainRequest(5, 1, 200))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	if _, ok := s.Next(t.Context()); !ok {
		t.Fatal("no token came")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for {
		p, ok := s.Next(t.Context())
		if errors.Is(p.Err, ErrStopped) {
			break
		}
		if !ok {
			t.Fatal("the answer ended without saying why")
		}
	}
	if _, err := e.Submit(t.Context(), plainRequest(5, 1, 2)); !errors.Is(err, ErrStopped) {
		t.Errorf("%v", err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// TestMemoryIsBounded: without being asked, a context is no longer than what the
// cache holds.
func TestMemoryIsBounded(t *testing.T) {
	m, err := decoder.Load(t.Context(), model.Folder(enginetest.Folder(t, enginetest.Tiny)), decoder.LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Load(enginetest.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	per := m.Config.BytesPerToken()
	for _, c := range []struct {
		cfg           Config
		length, cache int64
	}{
		{Config{}, 256, 256 * 256},
		{Config{MaxBatch: 2}, 256, 512},
		{Config{CacheBytes: 100 * per}, 100, 112}, // whole blocks
		{Config{MaxModelLen: 64, MaxBatch: 1}, 64, 64},
		{Config{MaxModelLen: 64, CacheBytes: 1000 * per}, 64, 1008},
	} {
		c.cfg.Model, c.cfg.Tokenizer = m, tok
		e, err := New(c.cfg)
		if err != nil {
			t.Fatal(err)
		}
		e.runner.Close()
		if got := e.Config(); int64(got.MaxModelLen) != c.length || int64(e.Blocks())*decoder.Block != c.cache {
			t.Errorf("%+v: context %d with a cache of %d, want %d and %d", c.cfg.CacheBytes, got.MaxModelLen, e.Blocks()*decoder.Block, c.length, c.cache)
		}
	}
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	m, err := decoder.Load(t.Context(), model.Folder(enginetest.Folder(t, enginetest.Tiny)), decoder.LoadConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := token.Load(enginetest.Tokenizer())
	if err != nil {
		t.Fatal(err)
	}
	large, err := token.Load([]byte(`{"model":{"type":"WordLevel","vocab":{"a":400}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []Config{{Model: m, Tokenizer: tok, MaxModelLen: 1000}, {Model: m, Tokenizer: tok, CacheBytes: 1000}, {Model: m, Tokenizer: large}} {
		if _, err := New(c); err == nil {
			t.Errorf("configuration %d was taken", i)
		}
	}
}

// TestChoose draws many tokens and compares their shares with probabilities that
// are worked out by hand: .5, .25, .15, .1.
func TestChoose(t *testing.T) {
	logits := []float32{float32(math.Log(.15)), float32(math.Log(.5)), float32(math.Log(.1)), float32(math.Log(.25))}
	const n = 100_000
	for name, c := range map[string]struct {
		s    Sampling
		want [4]float64
	}{
		"greedy":      {Sampling{}, [4]float64{0, 1, 0, 0}},
		"all":         {Sampling{Temperature: 1}, [4]float64{.15, .5, .1, .25}},
		"hot":         {Sampling{Temperature: 100}, [4]float64{.2496, .2526, .2486, .2509}},
		"top_k":       {Sampling{Temperature: 1, TopK: 2}, [4]float64{0, 2. / 3, 0, 1. / 3}},
		"top_p":       {Sampling{Temperature: 1, TopP: .8}, [4]float64{.15 / .9, .5 / .9, 0, .25 / .9}},
		"top_p exact": {Sampling{Temperature: 1, TopP: .4}, [4]float64{0, 1, 0, 0}},
		"min_p":       {Sampling{Temperature: 1, MinP: .4}, [4]float64{0, 2. / 3, 0, 1. / 3}},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var got [4]float64
			for range n {
				got[c.s.choose(logits, r)] += 1. / n
			}
			for i := range got {
				// Five standard errors.
				if d := math.Abs(got[i] - c.want[i]); d > 5*math.Sqrt(c.want[i]*(1-c.want[i])/n)+1e-9 {
					t.Errorf("token %d: share %.4f, want %.4f", i, got[i], c.want[i])
				}
			}
		})
	}
	nan := []float32{float32(math.NaN()), 1, float32(math.Inf(1))}
	for _, s := range []Sampling{{}, {Temperature: 1}, {Temperature: 1, TopP: .5}} {
		if id := s.choose(nan, rand.New(rand.NewPCG(1, 2))); id < 0 || int(id) >= len(nan) {
			t.Errorf("%v gives the token %d", s, id)
		}
	}
}

// BenchmarkEngine answers many clients at once with a model of 1.4 million
// parameters: prompts of 200 tokens, answers of 20.
func BenchmarkEngine(b *testing.B) {
	shape := enginetest.Tiny
	shape.Hidden, shape.Intermediate, shape.Layers, shape.Context = 128, 384, 6, 2048
	dir := enginetest.Folder(b, shape)
	m, err := decoder.Load(b.Context(), model.Folder(dir), decoder.LoadConfig{})
	if err != nil {
		b.Fatal(err)
	}
	tok, err := token.Load(enginetest.Tokenizer())
	if err != nil {
		b.Fatal(err)
	}
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			e, err := New(Config{Model: m, Tokenizer: tok, Threads: 2})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			go func() { _ = e.Run(ctx) }()
			for b.Loop() {
				var wait sync.WaitGroup
				for i := range clients {
					wait.Go(func() {
						if _, err := ask(ctx, e, plainRequest(200, i, 20)); err != nil {
							b.Error(err)
						}
					})
				}
				wait.Wait()
			}
			b.ReportMetric(float64(20*clients*b.N)/b.Elapsed().Seconds(), "output-tokens/s")
		})
	}
}
