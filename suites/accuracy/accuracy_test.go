package accuracy_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/endpoint/endpointtest"
	"github.com/repromill/repromill/suites/harness"
)

func arms() []spec.Arm {
	return []spec.Arm{{Name: "fp8", Model: "org/m-FP8"}, {Name: "nvfp4", Model: "org/m-NVFP4"}}
}

func find(t *testing.T, list []spec.Suite, id string) spec.Suite {
	t.Helper()
	i := slices.IndexFunc(list, func(s spec.Suite) bool { return s.ID == id })
	if i < 0 {
		t.Fatalf("no suite %s", id)
	}
	return list[i]
}

func TestPropose(t *testing.T) {
	list, err := accuracy.Propose(catalog.All(), accuracy.Wish{}, arms())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range catalog.All() {
		if there := slices.ContainsFunc(list, func(s spec.Suite) bool { return s.ID == d.Suite }); there == d.Named {
			t.Errorf("%s is proposed: %v, only by name: %v", d.Suite, there, d.Named)
		}
	}
	mmlu, aime, hle := find(t, list, "mmlu-pro"), find(t, list, "aime-2025"), find(t, list, "hle")
	if !mmlu.Selected || mmlu.Variant != "boxed" || mmlu.Grader.Rule != "boxed" || mmlu.Compare.Method != "wor_e" || mmlu.Compare.Look != 16 || len(mmlu.Dataset.Files) != 2 || mmlu.Sampling["max_tokens"] != 131072.0 {
		t.Errorf("%+v", mmlu)
	}
	if aime.Selected || aime.Status != "auto" || aime.Compare.Method != "tost" || aime.Outlook.Enough || aime.Outlook.RepeatsNeeded < 200 {
		t.Errorf("%+v", aime)
	}
	if hle.Status != "blocked" || len(hle.Reasons) == 0 || hle.Selected {
		t.Errorf("%+v", hle)
	}
	p := spec.Plan{Suites: list}
	p.Seal()
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	list, err = accuracy.Propose(catalog.All(), accuracy.Wish{Suites: []string{"aime-2025:matharena", "scicode"}, Repeats: 4, MaxTokens: 100, Margin: 0.02, Method: "signflip"}, arms())
	if err != nil || len(list) != 2 {
		t.Fatalf("%d suites, %v", len(list), err)
	}
	aime = find(t, list, "aime-2025")
	if !aime.Selected || aime.Grader.Rule != "boxed-or-last" || aime.Repeats != 4 || aime.Sampling["max_tokens"] != 100.0 || aime.Compare.Method != "signflip" {
		t.Errorf("%+v", aime)
	}
	for name, w := range map[string]accuracy.Wish{"suite": {Suites: []string{"x"}}, "variant": {Suites: []string{"mmlu-pro:x"}}, "method": {Method: "x"}, "margin": {Margin: 2}, "tokens": {Tokens: -1}, "flags": {Flags: map[string]string{"fp8": "vllm serve 'x", "nvfp4": "y"}}} {
		_, err := accuracy.Propose(catalog.All(), w, arms())
		var user interface{ UserError() string }
		if !errors.As(err, &user) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnfairSettings(t *testing.T) {
	list, err := accuracy.Propose(catalog.All(), accuracy.Wish{Flags: map[string]string{"fp8": "vllm serve org/m-FP8", "org/m-NVFP4": "vllm serve org/m-NVFP4 --kv-cache-dtype fp8"}}, arms())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list[0].Settings, func(s spec.Setting) bool { return s.Setting == "kv_cache_dtype" })
	if i < 0 || list[0].Settings[i].Class != "unfair" || !slices.Equal(list[0].Settings[i].Values, []string{"", "fp8"}) {
		t.Errorf("%+v", list[0].Settings)
	}
}

// TestGPUsOfArms: the number of GPUs that flags multiply to stands in the plan, so
// that estimates count them and whoever submits it knows what no node holds.
func TestGPUsOfArms(t *testing.T) {
	list, err := accuracy.Propose(catalog.All(), accuracy.Wish{Flags: map[string]string{"fp8": "vllm serve org/m-FP8 -tp 8 --pipeline-parallel-size=2"}}, arms())
	if err != nil {
		t.Fatal(err)
	}
	if a := list[0].Arms; a[0].TP != 8 || a[0].GPUs != 16 || a[1].TP != 0 || a[1].GPUs != 0 {
		t.Errorf("the arms are %+v", a)
	}
}

func TestMissingEndpoints(t *testing.T) {
	list := []spec.Suite{{ID: "s", Arms: arms()}}
	for _, c := range []struct {
		at   map[string]string
		want string
	}{
		{map[string]string{"fp8": "http://a", "nvfp4": "http://b"}, ""},
		{map[string]string{"org/m-FP8": "http://a", "nvfp4": "http://b"}, ""},
		{map[string]string{"fp8": "http://a"}, "nvfp4"},
		{map[string]string{"fp8": "http://a", "nvfp4": "http://b", "bf16": "http://c"}, "bf16"},
	} {
		err := accuracy.Serving{Endpoints: c.at}.Missing(list)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.at, err)
		}
	}
}

// TestJudgedByTheServedModel runs a judged suite whose model is one of several that
// its server has.
func TestJudgedByTheServedModel(t *testing.T) {
	var judged []string
	judge := endpointtest.New(endpointtest.Config{Model: "judge", Answer: func(a endpointtest.Asked) endpointtest.Reply {
		judged = append(judged, a.Prompt)
		if strings.Contains(a.Prompt, "four") {
			return endpointtest.Reply{Text: "CORRECT"}
		}
		return endpointtest.Reply{Text: "INCORRECT"}
	}, Slots: 1})
	defer judge.Close()
	model := endpointtest.New(endpointtest.Config{Model: "org/m", Answer: func(a endpointtest.Asked) endpointtest.Reply {
		if strings.Contains(a.Prompt, "2+2") {
			return endpointtest.Reply{Text: "four"}
		}
		return endpointtest.Reply{Text: "seven"}
	}})
	defer model.Close()
	d := suites.Definition{Facts: suites.Facts{Suite: "judged", Questions: 2, Repeats: 1, Within: 0.05, Needs: []suites.Need{suites.Judge}},
		Variants: []suites.Variant{{Name: "v", Rule: "judge"}}, Graders: []suites.Grader{judgeRule{}},
		Open: func(context.Context, suites.Env) (suites.Suite, error) { return sums{}, nil }}
	b := &accuracy.Bench{Catalog: suites.Catalog{d}, Hub: func() (*data.Hub, error) { return data.New(data.Config{}), nil }, Now: time.Now}
	list, err := accuracy.Propose(b.Catalog, accuracy.Wish{}, arms()[:1])
	if err != nil || list[0].Status != "judge_needed" {
		t.Fatalf("%+v, %v", list, err)
	}
	list, err = accuracy.Propose(b.Catalog, accuracy.Wish{Judge: true}, []spec.Arm{{Name: "a", Model: "org/m"}})
	if err != nil {
		t.Fatal(err)
	}
	at := accuracy.Serving{Endpoints: map[string]string{"a": model.URL}}
	if why := b.Refusal(list[0], at); !strings.Contains(why, "judge") {
		t.Errorf("without a judge: %q", why)
	}
	at.Judge = judge.URL
	dir := t.TempDir()
	j := accuracy.Job{Suite: list[0], Serving: at, Dir: dir}
	res, err := b.Run(t.Context(), j)
	if err != nil {
		t.Fatal(err)
	}
	if o := res.Arms[0].Outcomes; o[suites.Correct] != 1 || o[suites.Wrong] != 1 || len(judged) != 2 || len(res.Warnings) != 0 {
		t.Errorf("%v, judged %v, warnings %v", o, judged, res.Warnings)
	}
	n := 0
	if err := b.Answers(t.Context(), j, res, func(a harness.Answer) error { n++; return nil }); err != nil || n != 2 {
		t.Errorf("%d answers, %v", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "declared.json")); err != nil {
		t.Error(err)
	}
}

type sums struct{}

func (sums) Items(context.Context) ([]suites.Item, error) {
	return []suites.Item{{ID: "a", Question: "2+2", Reference: "4"}, {ID: "b", Question: "2+3", Reference: "5"}}, nil
}

func (sums) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.Question}}}, nil
}

func (sums) Grader() suites.Grader { return judgeRule{} }

func (sums) JudgePrompt(it suites.Item, text string) (suites.Prompt, bool) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.Reference + "? " + text}}}, text != ""
}

func (sums) GradeJudged(_ suites.Item, text, reply string) suites.Grade {
	g := suites.Grade{Rule: "judge@1", Outcome: suites.Wrong, Stage: 1, Extracted: text}
	if reply == "CORRECT" {
		g.Outcome, g.Score = suites.Correct, 1
	}
	return g
}

type judgeRule struct{}

func (judgeRule) Rule() suites.Rule { return suites.Rule{Suite: "judged", Name: "judge", Version: "1"} }
func (judgeRule) Grade(suites.Item, string) suites.Grade {
	return suites.Grade{Rule: "judge@1", Outcome: suites.NoAnswer}
}
