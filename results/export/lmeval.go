// Package export writes what was measured in the formats of other tools.
package export

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// lmSample is a line of lm-evaluation-harness's samples file. Questions and
// prompts are not stored, since some data sets forbid it; their hashes are.
//
// Source: EleutherAI/lm-evaluation-harness 4e7e0d4, lm_eval/evaluator.py
// (example, requests logged per document).
type lmSample struct {
	DocID      int64             `json:"doc_id"`
	Doc        map[string]string `json:"doc"`
	Target     string            `json:"target"`
	Arguments  map[string]any    `json:"arguments"`
	Resps      [][]string        `json:"resps"`
	Filtered   []string          `json:"filtered_resps"`
	Filter     string            `json:"filter"`
	Metrics    []string          `json:"metrics"`
	DocHash    string            `json:"doc_hash"`
	PromptHash string            `json:"prompt_hash"`
	TargetHash string            `json:"target_hash"`
	ExactMatch *float64          `json:"exact_match"` // null where no answer was received
	// Beyond lm-eval's own fields, which its readers leave alone.
	ItemID  string `json:"item_id"`
	Repeat  int64  `json:"repeat"`
	Arm     string `json:"arm"`
	Outcome string `json:"outcome"`
	Finish  string `json:"finish_reason,omitempty"`
	Rule    string `json:"rule"`
	Version string `json:"rule_version"`
}

// task is one suite of one arm while it is written.
type task struct {
	suite, arm, model, filter, version string
	name                               string // of the samples file
	w                                  *bufio.Writer
	f                                  *os.File
	scores                             map[string][]float64
	answers                            int64
}

// LMEval writes a run's answers and scores as lm-evaluation-harness does: for each
// arm a folder with samples_<task>_<time>.jsonl and results_<time>.json. It
// returns the paths written. The folder dir must not hold files of the same names.
func LMEval(ctx context.Context, d *dataset.Dataset, runID, dir string) (paths []string, err error) {
	m, err := d.Manifest(runID)
	if err != nil {
		return nil, err
	}
	stamp := m.Created.UTC().Format("2006-01-02T15-04-05.000000")
	tasks := map[string]*task{}
	defer func() {
		for _, t := range tasks {
			err = errors.Join(err, t.f.Close())
		}
	}()
	err = dataset.Each(ctx, d, runID, func(rows []schema.SampleRow) error {
		for i := range rows {
			r := &rows[i]
			key := r.Arm + "\x00" + r.Suite
			t := tasks[key]
			if t == nil {
				if t, err = begin(dir, stamp, r); err != nil {
					return err
				}
				tasks[key] = t
				paths = append(paths, t.name)
			}
			if err := t.add(r); err != nil {
				return fmt.Errorf("write %s: %w", t.name, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	arms := map[string][]*task{}
	for _, t := range tasks {
		if err := t.w.Flush(); err != nil {
			return nil, fmt.Errorf("write %s: %w", t.name, err)
		}
		arms[t.arm] = append(arms[t.arm], t)
	}
	for arm, list := range arms {
		name := filepath.Join(dir, folder(arm), "results_"+stamp+".json")
		if err := writeResults(name, runID, m.Created, list); err != nil {
			return nil, err
		}
		paths = append(paths, name)
	}
	slices.Sort(paths)
	return paths, nil
}

// folder makes the name of an arm fit for a path.
func folder(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, s)
	if s = strings.TrimLeft(s, "."); s == "" {
		return "_"
	}
	return s
}

func begin(dir, stamp string, r *schema.SampleRow) (*task, error) {
	t := &task{suite: r.Suite, arm: r.Arm, model: r.Model, filter: r.Rule, version: r.RuleVersion, scores: map[string][]float64{}}
	t.name = filepath.Join(dir, folder(r.Arm), "samples_"+folder(r.Suite)+"_"+stamp+".jsonl")
	if err := os.MkdirAll(filepath.Dir(t.name), 0o755); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	f, err := os.OpenFile(t.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	t.f, t.w = f, bufio.NewWriterSize(f, 1<<16)
	return t, nil
}

func (t *task) add(r *schema.SampleRow) error {
	sum := sha256.Sum256([]byte(r.Reference))
	s := lmSample{DocID: r.Position, Doc: map[string]string{"item_id": r.ItemID, "category": r.Category, "answer": r.Reference}, Target: r.Reference,
		Arguments: map[string]any{}, Resps: [][]string{{r.Output}}, Filtered: []string{r.Extracted}, Filter: r.Rule, Metrics: []string{"exact_match"},
		DocHash: r.DatasetSHA, PromptHash: r.PromptSHA, TargetHash: hex.EncodeToString(sum[:]), ExactMatch: r.Score.Ptr(),
		ItemID: r.ItemID, Repeat: r.Repeat, Arm: r.Arm, Outcome: r.Outcome, Finish: r.FinishReason, Rule: r.Rule, Version: r.RuleVersion}
	if r.Score.Valid {
		t.scores[r.ItemID] = append(t.scores[r.ItemID], r.Score.V)
	}
	t.answers++
	enc := json.NewEncoder(t.w)
	enc.SetEscapeHTML(false)
	return enc.Encode(s)
}

// mean is the mean over questions of the mean over repeats, with its standard
// error over questions.
func (t *task) mean() (mean, stderr float64) {
	var own []float64
	for _, list := range t.scores {
		sum := 0.0
		for _, v := range list {
			sum += v
		}
		own = append(own, sum/float64(len(list)))
	}
	slices.Sort(own) // the order of a map must not show in the last digit
	n := float64(len(own))
	for _, v := range own {
		mean += v / n
	}
	for _, v := range own {
		stderr += (v - mean) * (v - mean)
	}
	if n < 2 {
		return mean, 0
	}
	return mean, math.Sqrt(stderr / (n - 1) / n)
}

func writeResults(name, runID string, at time.Time, list []*task) error {
	results, versions, samples, higher, configs := map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}
	for _, t := range list {
		mean, stderr := t.mean()
		task := strings.ReplaceAll(t.suite, "-", "_")
		results[task] = map[string]any{"alias": task, "exact_match," + t.filter: mean, "exact_match_stderr," + t.filter: stderr}
		versions[task] = t.version
		samples[task] = map[string]int64{"original": int64(len(t.scores)), "effective": t.answers}
		higher[task] = map[string]bool{"exact_match": true}
		configs[task] = map[string]any{"task": task, "output_type": "generate_until", "repeats": int(math.Ceil(float64(t.answers) / float64(max(len(t.scores), 1)))),
			"metadata": map[string]string{"version": t.version, "rule": t.filter, "run_id": runID}}
	}
	b, err := json.MarshalIndent(map[string]any{"results": results, "versions": versions, "n-samples": samples, "higher_is_better": higher, "configs": configs,
		"model_name": list[0].model, "model_source": "repromill", "date": float64(at.UnixMilli()) / 1000,
		"config": map[string]any{"model": "local-chat-completions", "model_args": "model=" + list[0].model}}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := atomicfile.Write(name, append(b, '\n'), atomicfile.Options{}); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}
