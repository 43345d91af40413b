package accuracy_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
)

// TestSizing opens a suite that counts tokens: with the baseline's tokenizer, over a
// server that is down for a moment, within the smallest context of all arms.
func TestSizing(t *testing.T) {
	answer := func(endpointtest.Asked) endpointtest.Reply { return endpointtest.Reply{Text: "four"} }
	base := endpointtest.New(endpointtest.Config{Model: "org/m-FP8", MaxLen: 9000, Answer: answer})
	defer base.Close()
	cand := endpointtest.New(endpointtest.Config{Model: "org/m-NVFP4", MaxLen: 8000, Answer: answer})
	defer cand.Close()
	counts, has := 0, true
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/tokenize" {
			if !has {
				http.NotFound(w, r)
				return
			}
			if counts++; counts == 1 {
				http.Error(w, "starting", http.StatusServiceUnavailable)
				return
			}
		}
		base.Config.Handler.ServeHTTP(w, r)
	}))
	defer front.Close()
	var limit, tokens int
	d := suites.Definition{Facts: suites.Facts{Suite: "judged", Questions: 2, Repeats: 1, Within: 0.05, Needs: []suites.Need{suites.Tokenizer}},
		Variants: []suites.Variant{{Name: "v", Rule: "judge", Questions: 1}}, Graders: []suites.Grader{judgeRule{}},
		Open: func(ctx context.Context, env suites.Env) (suites.Suite, error) {
			var err error
			if limit, err = env.Limit(ctx); err == nil {
				tokens, err = env.Count(ctx, "one two three")
			}
			if info, serr := os.Stat(env.Dir); err == nil && (serr != nil || !info.IsDir()) {
				t.Errorf("no folder: %v", serr)
			}
			return plain{}, err
		}}
	b := &accuracy.Bench{Catalog: suites.Catalog{d}, Hub: func() (*data.Hub, error) { return data.New(data.Config{}), nil }}
	list, err := accuracy.Propose(b.Catalog, accuracy.Wish{Suites: []string{"judged"}}, arms())
	if err != nil || list[0].Questions != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	j := accuracy.Job{Suite: list[0], Dir: filepath.Join(t.TempDir(), "run"), Serving: accuracy.Serving{Endpoints: map[string]string{"fp8": front.URL, "nvfp4": cand.URL}}}
	res, err := b.Run(t.Context(), j)
	if err != nil || limit != 8000 || tokens != 3 || counts != 2 || res.Questions != 1 {
		t.Errorf("limit %d, %d tokens after %d requests, %d questions, %v", limit, tokens, counts, res.Questions, err)
	}
	has, j.Dir = false, t.TempDir()
	var user interface{ UserError() string }
	if _, err := b.Run(t.Context(), j); !errors.As(err, &user) || !strings.Contains(err.Error(), "has no /tokenize") {
		t.Errorf("without a tokenizer: %v", err)
	}
}

// plain is a suite without a judge.
type plain struct{ suites.Suite }

func (plain) Items(context.Context) ([]suites.Item, error) {
	return []suites.Item{{ID: "a", Question: "2+2", Reference: "4"}, {ID: "b", Question: "2+3", Reference: "5"}}, nil
}

func (plain) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.Question}}}, nil
}

func (plain) Grader() suites.Grader { return judgeRule{} }
