package export

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// EveryEvalVersion is the version of the schemas that [EveryEval] follows.
//
// Source: evaleval/every_eval_ever 9bce413, every_eval_ever/schemas/eval.schema.json
// and instance_level_eval.schema.json.
const EveryEvalVersion = "0.3.0"

// Evaluator says who evaluates, which results do not know.
type Evaluator struct {
	Organization string // source_organization_name; empty is "unknown"
	Relationship string // first_party, third_party, collaborative or other; empty is other
}

// Relationships lists what Evaluator.Relationship may be.
func Relationships() []string {
	return []string{"first_party", "third_party", "collaborative", "other"}
}

type strs = map[string]string

// everyEval is an aggregate document.
type everyEval struct {
	SchemaVersion string         `json:"schema_version"`
	EvaluationID  string         `json:"evaluation_id"`
	EvaluatedAt   string         `json:"evaluation_timestamp,omitempty"`
	RetrievedAt   string         `json:"retrieved_timestamp"` // Unix seconds
	Source        map[string]any `json:"source_metadata"`
	Library       eeLibrary      `json:"eval_library"`
	Model         eeModel        `json:"model_info"`
	Results       []eeResult     `json:"evaluation_results"`
	Detailed      *eeDetailed    `json:"detailed_evaluation_results,omitempty"`
}

type eeLibrary struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type eeModel struct {
	Name      string     `json:"name"`
	ID        string     `json:"id"`
	Developer string     `json:"developer,omitempty"`
	Engine    *eeLibrary `json:"inference_engine,omitempty"`
	Details   strs       `json:"additional_details"`
}

type eeResult struct {
	ID         string         `json:"evaluation_result_id"`
	Name       string         `json:"evaluation_name"`
	Source     map[string]any `json:"source_data"`
	At         string         `json:"evaluation_timestamp,omitempty"`
	Metric     map[string]any `json:"metric_config"`
	Score      eeScore        `json:"score_details"`
	Generation map[string]any `json:"generation_config,omitempty"`
}

type eeScore struct {
	Score       float64        `json:"score"`
	Details     strs           `json:"details,omitempty"`
	Uncertainty map[string]any `json:"uncertainty,omitempty"`
}

type eeDetailed struct {
	Format    string `json:"format"`
	Path      string `json:"file_path"`
	Algorithm string `json:"hash_algorithm"`
	Checksum  string `json:"checksum"`
	Rows      int64  `json:"total_rows"`
}

// eeSample is a line of the samples file. Questions are not stored; their hashes
// stand in their place.
type eeSample struct {
	SchemaVersion string         `json:"schema_version"`
	EvaluationID  string         `json:"evaluation_id"`
	ModelID       string         `json:"model_id"`
	Name          string         `json:"evaluation_name"`
	ResultID      string         `json:"evaluation_result_id"`
	SampleID      string         `json:"sample_id"`
	SampleHash    string         `json:"sample_hash"`
	Interaction   string         `json:"interaction_type"`
	Input         map[string]any `json:"input"`
	Output        map[string]any `json:"output"`
	Messages      any            `json:"messages"` // null in a single turn
	Attribution   []eeAnswer     `json:"answer_attribution"`
	Evaluation    map[string]any `json:"evaluation"`
	Tokens        map[string]any `json:"token_usage,omitempty"`
	Performance   map[string]any `json:"performance,omitempty"`
	Error         string         `json:"error,omitempty"`
	Metadata      strs           `json:"metadata"`
}

type eeAnswer struct {
	Turn     int    `json:"turn_idx"`
	Source   string `json:"source"`
	Value    string `json:"extracted_value"`
	Method   string `json:"extraction_method"`
	Terminal bool   `json:"is_terminal"`
}

// eeTask is one suite of one arm while it is written.
type eeTask struct {
	doc    everyEval
	rel    string // of the aggregate, without its extension
	f      *os.File
	w      *bufio.Writer
	sum    hash.Hash
	rows   int64
	items  task // scores by item
	counts map[string]int64
}

// EveryEval writes a run's answers and scores in the two-file form of Every Eval
// Ever: for each suite and arm data/<suite>/<developer>/<model>/<uuid>.json and
// the same with _samples.jsonl below dir. The names follow from the run, so that a
// second export into the same folder is an error that is [fs.ErrExist]. It
// returns the paths written.
//
// Answers that a request's failure left without a score are no samples; how many
// there are stands in the score's details.
func EveryEval(ctx context.Context, d *dataset.Dataset, runID, dir string, who Evaluator) (paths []string, err error) {
	c, err := newEEContext(ctx, d, runID, who)
	if err != nil {
		return nil, err
	}
	tasks := map[string]*eeTask{}
	defer func() {
		for _, t := range tasks {
			err = errors.Join(err, t.f.Close())
		}
	}()
	err = dataset.Each(ctx, d, runID, func(rows []schema.SampleRow) error {
		for i := range rows {
			r := &rows[i]
			t := tasks[r.Arm+"\x00"+r.Suite]
			if t == nil {
				if t, err = c.begin(dir, r); err != nil {
					return err
				}
				tasks[r.Arm+"\x00"+r.Suite] = t
				paths = append(paths, t.f.Name())
			}
			if err := t.add(r); err != nil {
				return fmt.Errorf("write %s: %w", t.f.Name(), err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(tasks)) {
		t := tasks[key]
		if len(t.items.scores) == 0 { // nothing that a reader of scores could use
			paths = slices.DeleteFunc(paths, func(p string) bool { return p == t.f.Name() })
			if err := os.Remove(t.f.Name()); err != nil {
				return nil, fmt.Errorf("export: %w", err)
			}
			continue
		}
		name, err := t.finish(dir)
		if err != nil {
			return nil, err
		}
		paths = append(paths, name)
	}
	slices.Sort(paths)
	return paths, nil
}

// uuid4 is a version 4 UUID (RFC 9562) whose bits follow from text, so that the
// same suite of the same run has the same name everywhere.
func uuid4(text string) string {
	s := sha256.Sum256([]byte(text))
	s[6], s[8] = s[6]&0x0f|0x40, s[8]&0x3f|0x80
	h := hex.EncodeToString(s[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func (c *eeContext) begin(dir string, r *schema.SampleRow) (*eeTask, error) {
	t := &eeTask{doc: c.document(r), sum: sha256.New(), counts: map[string]int64{}, items: task{suite: r.Suite, scores: map[string][]float64{}}}
	developer, name := c.owner(r.Model)
	t.rel = "data/" + folder(r.Suite) + "/" + folder(developer) + "/" + folder(name) + "/" + uuid4(c.m.RunID+"\x00"+r.Suite+"\x00"+r.Arm)
	path := filepath.Join(dir, filepath.FromSlash(t.rel))
	if _, err := os.Lstat(path + ".json"); err == nil {
		return nil, fmt.Errorf("export: %w", &fs.PathError{Op: "create", Path: path + ".json", Err: fs.ErrExist})
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	f, err := os.OpenFile(path+"_samples.jsonl", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	t.f, t.w = f, bufio.NewWriterSize(f, 1<<16)
	return t, nil
}

func (t *eeTask) add(r *schema.SampleRow) error {
	t.counts[r.Outcome]++
	if !r.Score.Valid {
		return nil
	}
	t.items.scores[r.ItemID] = append(t.items.scores[r.ItemID], r.Score.V)
	result := &t.doc.Results[0]
	hashed := sha256.Sum256([]byte(r.PromptSHA + r.Reference))
	s := eeSample{SchemaVersion: EveryEvalVersion, EvaluationID: t.doc.EvaluationID, ModelID: t.doc.Model.ID, Name: result.Name, ResultID: result.ID,
		SampleID: r.ItemID, SampleHash: hex.EncodeToString(hashed[:]), Interaction: "single_turn",
		Input:       map[string]any{"raw": "sha256:" + r.PromptSHA, "reference": []string{r.Reference}},
		Output:      map[string]any{"raw": []string{r.Output}},
		Attribution: []eeAnswer{},
		Evaluation:  map[string]any{"score": r.Score.V, "is_correct": r.Outcome == "correct"},
		Error:       r.Error,
		Metadata:    details("repeat", strconv.FormatInt(r.Repeat, 10), "outcome", r.Outcome, "category", r.Category, "cluster", r.Cluster, "finish_reason", r.FinishReason, "rule", r.Rule, "rule_version", r.RuleVersion, "output_sha256", r.OutputSHA, "simulated", strconv.FormatBool(r.Simulated)),
	}
	if r.Reasoning != "" {
		s.Output["reasoning_trace"] = []string{r.Reasoning}
	}
	if r.Extracted != "" {
		s.Attribution = append(s.Attribution, eeAnswer{Source: "output.raw", Value: r.Extracted, Method: firstText(r.Stage, r.Rule, "custom"), Terminal: true})
	}
	if r.PromptTokens.Valid && r.OutputTokens.Valid {
		s.Tokens = map[string]any{"input_tokens": r.PromptTokens.V, "output_tokens": r.OutputTokens.V, "total_tokens": r.PromptTokens.V + r.OutputTokens.V}
		if r.CachedTokens.Valid {
			s.Tokens["input_tokens_cache_read"] = r.CachedTokens.V
		}
		if r.ReasoningTokens.Valid {
			s.Tokens["reasoning_tokens"] = r.ReasoningTokens.V
		}
	}
	if r.LatencyS.Valid {
		s.Performance = map[string]any{"latency_ms": r.LatencyS.V * 1000}
		if r.TTFTS.Valid {
			s.Performance["time_to_first_token_ms"] = r.TTFTS.V * 1000
		}
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	t.rows++
	t.sum.Write(line)
	_, err = t.w.Write(line)
	return err
}

// finish writes the aggregate, which names the samples with their hash and
// number, last.
func (t *eeTask) finish(dir string) (string, error) {
	if err := t.w.Flush(); err != nil {
		return "", fmt.Errorf("write %s: %w", t.f.Name(), err)
	}
	mean, stderr := t.items.mean()
	n := len(t.items.scores)
	result := &t.doc.Results[0]
	result.Score.Score = mean
	for outcome, k := range t.counts {
		result.Score.Details[outcome] = strconv.FormatInt(k, 10)
	}
	if n > 1 {
		result.Score.Uncertainty = map[string]any{"num_samples": n, "standard_error": map[string]any{"value": stderr, "method": "analytic, over questions"},
			"confidence_interval": map[string]any{"lower": math.Max(0, mean-1.959964*stderr), "upper": math.Min(1, mean+1.959964*stderr), "confidence_level": 0.95, "method": "normal approximation"}}
	}
	if result.Source["source_type"] == "hf_dataset" {
		result.Source["samples_number"] = n
	}
	t.doc.Detailed = &eeDetailed{"jsonl", t.rel + "_samples.jsonl", "sha256", hex.EncodeToString(t.sum.Sum(nil)), t.rows}
	b, err := json.MarshalIndent(t.doc, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode evaluation: %w", err)
	}
	name := filepath.Join(dir, filepath.FromSlash(t.rel)) + ".json"
	if err := atomicfile.Write(name, append(b, '\n'), atomicfile.Options{}); err != nil {
		return "", fmt.Errorf("export: %w", err)
	}
	return name, nil
}

// details makes an object of texts out of pairs, without those that are empty.
func details(pairs ...string) strs {
	out := strs{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if strings.TrimSpace(pairs[i+1]) != "" {
			out[pairs[i]] = pairs[i+1]
		}
	}
	return out
}

func firstText(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}
