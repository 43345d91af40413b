package samples_test

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/samples"
)

func set(t *testing.T, name, in string) *samples.Set {
	t.Helper()
	s := samples.NewSet(name, "")
	for _, x := range read(t, in) {
		if err := s.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestPair(t *testing.T) {
	a := set(t, "a", `{"id":"1","score":1,"position":2}
{"id":"2","outcome":"wrong","position":1}
{"id":"3","score":0.5,"position":0}
{"id":"4","outcome":"error","position":3}`)
	b := set(t, "b", `{"id":"3","score":1,"repeat":0}
{"id":"3","score":0,"repeat":1}
{"id":"2","outcome":"correct"}
{"id":"1","score":1}
{"id":"5","score":1}`)
	p, err := samples.Pair(a, b, 1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range p.Pairs {
		got = append(got, x.ID)
	}
	if strings.Join(got, " ") != "3 2 1" || p.Order != "as asked" {
		t.Errorf("order %v, %s", got, p.Order)
	}
	if x := p.Pairs[0]; x.Base != .5 || x.Cand != .5 {
		t.Errorf("repeats: %+v", x)
	}
	if w := strings.Join(p.Warnings, "\n"); !strings.Contains(w, "1 questions of b have no counterpart") || !strings.Contains(w, "1 requests of a failed") || !strings.Contains(w, "more repeats") {
		t.Errorf("warnings: %s", w)
	}
	q, err := samples.Pair(b, a, 1)
	again, _ := samples.Pair(b, a, 1)
	if err != nil || q.Order != "permuted with seed 1" || q.Pairs[0] != again.Pairs[0] || q.Pairs[1] != again.Pairs[1] {
		t.Errorf("%v, %v, then %v", err, q, again)
	}
}

func TestPairRefusesWhatIsNoComparison(t *testing.T) {
	for name, c := range map[string][3]string{
		"rules":     {`{"id":"1","score":1,"rule":"official@1"}`, `{"id":"1","score":1,"rule":"lm-eval@1"}`, "graded under"},
		"gold":      {`{"id":"1","score":1,"gold":"A"}`, `{"id":"1","score":1,"gold":"B"}`, "right answer"},
		"prompts":   {`{"id":"1","score":1,"prompt_sha":"x"}`, `{"id":"1","score":1,"prompt_sha":"y"}`, "another prompt"},
		"questions": {`{"id":"1","score":1}`, `{"id":"2","score":1}`, "no question in common"},
	} {
		_, err := samples.Pair(set(t, "a", c[0]), set(t, "b", c[1]), 0)
		if err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string][2]string{
		"twice":    {`{"id":"1","score":1}` + "\n" + `{"id":"1","score":0}`, "is there twice"},
		"arms":     {`{"id":"1","score":1,"arm":"x"}` + "\n" + `{"id":"2","score":0,"arm":"y"}`, "more than one arm"},
		"no score": {`{"id":"1","response":"x"}`, "no score"},
		"range":    {`{"id":"1","score":80}`, "the score is 80"},
	} {
		s := samples.NewSet("a", "")
		var err error
		for _, x := range read(t, c[0]) {
			if err == nil {
				err = s.Add(x)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
