package samples_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/samples"
)

func read(t *testing.T, in string) []samples.Sample {
	t.Helper()
	var out []samples.Sample
	if err := samples.Read(strings.NewReader(in), func(s samples.Sample) error { out = append(out, s); return nil }); err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	return out
}

func TestFormats(t *testing.T) {
	score := 1.0
	for name, c := range map[string]struct {
		in   string
		want samples.Sample
	}{
		"ours": {`{"item_id":"q1","arm":"fp8","repeat":2,"output":"x","reference":"B","outcome":"correct","score":1,"rule":"official","rule_version":"1","finish_reason":"stop"}`,
			samples.Sample{Arm: "fp8", Repeat: 2, Text: "x", HasText: true, Finish: "stop", Outcome: suites.Correct, Score: &score, Rule: "official@1", Item: suites.Item{ID: "q1", Reference: "B"}}},
		"MMLU-Pro result file": {`[{"question_id":7,"options":["a","b","N/A"],"answer":"B","answer_index":1,"category":"law","model_outputs":"x","pred":"B"}]`,
			samples.Sample{Text: "x", HasText: true, Item: suites.Item{ID: "7", Reference: "B", NOptions: 2, Category: "law"}}},
		"lm-eval samples": {`{"doc_id":3,"doc":{"question_id":70,"options":["a","b"],"answer":"A"},"target":"B","resps":[["x"]],"exact_match":1.0}`,
			samples.Sample{Text: "x", HasText: true, Score: &score, Item: suites.Item{ID: "70", Reference: "B", NOptions: 2}}},
		"null content": {`{"id":"1","response":null,"gold":16}`,
			samples.Sample{HasText: true, Item: suites.Item{ID: "1", Reference: "16"}}},
		"CRLF and a byte order mark": {"\ufeff{\"id\":\"1\",\"response\":\"x\\r\\n\"}\r\n\r\n",
			samples.Sample{Text: "x\r\n", HasText: true, Item: suites.Item{ID: "1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Row = 1
			got := read(t, c.in)
			if diff := cmp.Diff([]samples.Sample{c.want}, got); diff != "" {
				t.Error(diff)
			}
			var zipped bytes.Buffer
			zw := gzip.NewWriter(&zipped)
			_, _ = zw.Write([]byte(c.in))
			zw.Close()
			if diff := cmp.Diff(got, read(t, zipped.String())); diff != "" {
				t.Errorf("compressed: %s", diff)
			}
		})
	}
}

func TestParquet(t *testing.T) {
	var file bytes.Buffer
	w, err := schema.NewWriter[schema.SampleRow](&file, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := []schema.SampleRow{{Suite: "mmlu-pro", ItemID: "1", Arm: "fp8", Outcome: "wrong", Score: schema.Float(0), Rule: "official", RuleVersion: "1", Output: "x", Position: 4, Reference: "C"}}
	if err := w.Write(rows); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var got []samples.Sample
	if err := samples.Read(bytes.NewReader(file.Bytes()), func(s samples.Sample) error { got = append(got, s); return nil }); err != nil {
		t.Fatal(err)
	}
	zero, four := 0.0, int64(4)
	want := []samples.Sample{{Row: 1, Item: suites.Item{ID: "1", Reference: "C"}, Arm: "fp8", Text: "x", HasText: true, Outcome: suites.Wrong, Score: &zero, Rule: "official@1", Position: &four}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnusableInputIsTheUsers(t *testing.T) {
	for name, in := range map[string]string{
		"empty": "", "blank": " \n", "no JSON": "hello", "cut": `{"id":"1","response":"x`, "no id": `{"response":"x"}`, "array": `["x"]`,
		"cut array": `[{"id":"1"}`, "list for an id": `{"id":[1]}`, "gzip": "\x1f\x8bxxxx", "parquet": "PAR1xxxxPAR1", "number": "7", "score": `{"id":1,"score":"high"}`,
	} {
		err := samples.Read(strings.NewReader(in), func(samples.Sample) error { return nil })
		var input *samples.InputError
		if !errors.As(err, &input) || input.UserError() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop := errors.New("stop")
	if err := samples.Read(strings.NewReader(`{"id":1}`), func(samples.Sample) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("callback's error became %v", err)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"id":"1","response":null}`, `[{"id":1,"options":["a"]}]`, "\x1f\x8b\x08", "PAR1", `{"doc":{"id":3},"resps":[[null]],"score":1e999}`, `{"id":"1"}` + "\r\n{"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := samples.Read(bytes.NewReader(b), func(s samples.Sample) error {
			if s.Row < 1 || s.Item.ID == "" {
				t.Errorf("row %+v", s)
			}
			return nil
		})
		var input *samples.InputError
		if err != nil && !errors.As(err, &input) {
			t.Errorf("%v", err)
		}
	})
}
