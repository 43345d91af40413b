package export

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

var day = time.Date(2026, 11, 21, 3, 4, 5, 6000, time.UTC)

func store(t *testing.T) *dataset.Dataset {
	t.Helper()
	d, err := dataset.Open(t.TempDir(), dataset.Config{Now: func() time.Time { return day.Add(time.Hour) }, Tool: "repromill test"})
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range []string{"RUN1", "RUN2"} {
		tx := d.Begin(id, day.AddDate(0, 0, i))
		c := schema.Common{Kind: schema.Measured, Simulated: true}
		var rows []schema.SampleRow
		for _, arm := range []string{"fp8", "nvfp4"} {
			for n := range 10 {
				r := schema.SampleRow{Common: c, Suite: "mmlu-pro", Arm: arm, Model: "org/tiny-" + arm, Revision: "abc", Precision: arm, ItemID: fmt.Sprint("q", n), Outcome: "correct", Score: schema.Float(1),
					Reference: "B", Extracted: "B", Stage: "answer is", Rule: "tiger-lab", RuleVersion: "1", Output: "The answer is (B).", PromptSHA: "ff", DatasetSHA: "dd",
					PromptTokens: schema.Int(10), OutputTokens: schema.Int(5), LatencyS: schema.Float(0.25), AskedAt: day, FinishReason: "stop"}
				switch n {
				case 7:
					r.Outcome, r.Score, r.Extracted = "no_answer", schema.Float(0), ""
				case 8:
					r.Outcome, r.Score = "wrong", schema.Float(0)
				case 9:
					r.Outcome, r.Score, r.Error = "error", schema.Opt[float64]{}, "connection, \"reset\"\nby peer"
				}
				rows = append(rows, r)
			}
		}
		err := errors.Join(
			dataset.Add(tx, schema.RunRow{Common: c, Status: "succeeded", Title: "  padded", StartedAt: day, ToolVersion: "v9"}),
			dataset.Add(tx, rows...),
			dataset.Add(tx, schema.ServerRow{Common: c, ServerID: "s", Arm: "fp8", Engine: "vllm", EngineVersion: "0.11.0", SKU: "h200", GPUs: schema.Int(1)}),
			dataset.Add(tx, schema.RequestRow{Common: c, Suite: "load", Arm: "a", Cell: "c", Status: "ok", ITLS: []float64{0.5, math.NaN()}, E2ES: schema.Float(1e-9)},
				schema.RequestRow{Common: c, Suite: "load", Arm: "a", Cell: "c", RequestID: 1, Status: "ok", ITLS: []float64{}}),
			tx.Attach("plan.json", []byte(`{"suites":[{"id":"mmlu-pro","name":"MMLU-Pro","variant":"zero-shot","dataset":{"repo":"TIGER-Lab/MMLU-Pro","split":"test","revision":"r1"},"sampling":{"temperature":0,"max_tokens":512,"seed":7}}]}`)))
		if err == nil {
			_, err = tx.Commit(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestCSV(t *testing.T) {
	d := store(t)
	for _, table := range schema.Tables() {
		var b bytes.Buffer
		n, err := CSV(context.Background(), &b, d, []string{"RUN1", "RUN2"}, table)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := csv.NewReader(&b).ReadAll()
		cols, _ := schema.Columns(table)
		if err != nil || int64(len(rows)) != n+1 || len(rows[0]) != len(cols)+len(schema.Partitions(table)) || rows[0][0] != "run_id" {
			t.Errorf("%s: %d rows, %v", table, len(rows), err)
		}
	}
	var b bytes.Buffer
	if n, err := CSV(context.Background(), &b, d, []string{"RUN1"}, schema.Requests); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	lines := strings.Split(b.String(), "\r\n")
	for _, want := range []string{`"[0.5,null]"`, ",1e-09,", ",true,", ",2026-11-21,load"} {
		if !strings.Contains(lines[1], want) {
			t.Errorf("%s lacks %s", lines[1], want)
		}
	}
	if !strings.Contains(lines[2], ",[],") || strings.Contains(lines[2], "1e-09") {
		t.Errorf("%s: an empty list is not [] or a NULL is not empty", lines[2])
	}
	b.Reset()
	if _, err := CSV(context.Background(), &b, d, []string{"RUN1"}, schema.Samples); err != nil || !strings.Contains(b.String(), `"connection, ""reset""`+"\nby peer\"") || !strings.Contains(b.String(), ",2026-11-21T03:04:05.000006Z,") {
		t.Errorf("%v\n%s", err, b.String())
	}
	b.Reset()
	if _, err := CSV(context.Background(), &b, d, []string{"RUN1"}, schema.Runs); err != nil || !strings.Contains(b.String(), `,"  padded",`) {
		t.Errorf("%v\n%s", err, b.String())
	}
	if _, err := CSV(context.Background(), &b, d, []string{"NONE"}, schema.Runs); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if got := string(appendCSV(nil, "")) + string(appendCSV(nil, nil)); got != `""` {
		t.Errorf("an empty text and a NULL are %q", got)
	}
}

// TestEveryEval holds the documents to what the published schemas require:
// required fields, closed vocabularies, and the ties between the two files.
func TestEveryEval(t *testing.T) {
	d, dir := store(t), t.TempDir()
	paths, err := EveryEval(context.Background(), d, "RUN1", dir, Evaluator{Organization: "Example Lab"})
	if err != nil || len(paths) != 4 {
		t.Fatal(paths, err)
	}
	place := regexp.MustCompile(`^data/[^/]+/[^/]+/[^/]+/[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-4[0-9A-Fa-f]{3}-[89ABab][0-9A-Fa-f]{3}-[0-9A-Fa-f]{12}_samples\.jsonl$`)
	for _, p := range paths {
		if !strings.HasSuffix(p, ".json") {
			continue
		}
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var doc everyEval
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		var free map[string]any
		_ = json.Unmarshal(b, &free)
		for _, k := range []string{"schema_version", "evaluation_id", "retrieved_timestamp", "source_metadata", "model_info", "eval_library", "evaluation_results"} {
			if free[k] == nil {
				t.Errorf("%s lacks %s", p, k)
			}
		}
		if doc.SchemaVersion != "0.3.0" || doc.Source["evaluator_relationship"] != "other" || doc.Model.Details["deployment_type"] == "" || doc.Model.Details["model_availability"] != "open_weights" || doc.Library.Version != "v9" {
			t.Errorf("%s: %s", p, b)
		}
		r := doc.Results[0]
		if math.Abs(r.Score.Score-7.0/9) > 1e-12 || r.Score.Uncertainty["num_samples"] != 9.0 || r.Score.Details["error"] != "1" || r.Metric["lower_is_better"] != false {
			t.Errorf("score: %+v", r)
		}
		if r.Source["hf_repo"] != "TIGER-Lab/MMLU-Pro" || r.Source["samples_number"] != 9.0 || fmt.Sprint(r.Generation) != "map[additional_details:map[seed:7] generation_args:map[max_tokens:512 temperature:0]]" {
			t.Errorf("source and sampling: %+v", r)
		}
		det := doc.Detailed
		lines, err := os.ReadFile(filepath.Join(dir, det.Path))
		if err != nil || !place.MatchString(det.Path) || fmt.Sprintf("%x", sha256.Sum256(lines)) != det.Checksum || det.Rows != 9 {
			t.Fatalf("samples: %+v, %v", det, err)
		}
		sc, n := bufio.NewScanner(bytes.NewReader(lines)), int64(0)
		for sc.Scan() {
			n++
			var s map[string]any
			if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
			for _, k := range []string{"schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id", "interaction_type", "input", "output", "answer_attribution", "evaluation"} {
				if s[k] == nil {
					t.Errorf("line %d lacks %s", n, k)
				}
			}
			if m, there := s["messages"]; m != nil || !there || s["evaluation_id"] != doc.EvaluationID || s["model_id"] != doc.Model.ID || s["evaluation_result_id"] != r.ID {
				t.Errorf("line %d does not go with its aggregate: %v", n, s)
			}
		}
		if n != det.Rows {
			t.Errorf("%d lines, %d stated", n, det.Rows)
		}
	}
	if _, err := EveryEval(context.Background(), d, "RUN1", dir, Evaluator{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second export: %v", err)
	}
	if _, err := EveryEval(context.Background(), d, "NONE", dir, Evaluator{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no run: %v", err)
	}
}
