package calibrate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// Row is one measurement.
type Row struct {
	Line      int    // in the file
	Source    string // repository and path
	Model     string
	Family    string
	Precision string
	SKU       string
	GPUs      int
	TP        int
	Parallel  string // as stated: TP, TP+EP, DEP, …
	ISL, OSL  int
	// Concurrency of the closed loop; 0 is offline, everything at once.
	Concurrency int
	Throughput  float64 // output tokens per second of all GPUs
	TTFT, TPOT  float64 // seconds; 0 where not stated
	Framework   string  // as stated, with its version
	Measured    string

	// Structure as the file states it, for models without a configuration; 0
	// where it does not.
	TotalB, ActiveB                  float64
	Layers, Hidden, KVHeads, HeadDim int
}

// FileError says what is wrong with a file of rows.
type FileError struct {
	Line int
	Why  string
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return "measured rows: " + e.Why
	}
	return fmt.Sprintf("measured rows, line %d: %s", e.Line, e.Why)
}

// UserError is what the user can do.
func (e *FileError) UserError() string {
	return "the file is CSV with a header that names at least " + strings.Join(required, ", ")
}

var required = []string{"model", "precision(weights/act/kv)", "sku", "num_gpus", "isl", "osl", "concurrency_or_scenario", "output_tokens_per_s_total"}

// MaxRows bounds what is read from one file.
const MaxRows = 200_000

// ReadRows reads measured rows. Columns are found by their names, in any order;
// tp, pp, parallel, framework, family, ttft_ms, tpot_ms, total_params_b,
// active_params_b, layers, hidden, kv_heads, head_dim, source_repo, source_path
// and measured are used where they exist. Its error is a [*FileError].
func ReadRows(r io.Reader) ([]Row, error) {
	cr := csv.NewReader(r)
	cr.FieldsPerRecord = -1
	cr.ReuseRecord = true
	head, err := cr.Read()
	if err != nil {
		return nil, &FileError{1, csvWhy(err)}
	}
	col := map[string]int{}
	for i, h := range head {
		col[strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff")))] = i
	}
	if at, ok := col["precision"]; ok && !has(col, required[1]) {
		col[required[1]] = at
	}
	for _, name := range required {
		if !has(col, name) {
			return nil, &FileError{1, fmt.Sprintf("column %q is missing", name)}
		}
	}
	var rows []Row
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, &FileError{csvLine(err), csvWhy(err)}
		}
		line, _ := cr.FieldPos(0)
		if len(rows) == MaxRows {
			return nil, &FileError{line, fmt.Sprintf("more than %d rows", MaxRows)}
		}
		p := parser{rec: rec, col: col}
		row := p.row()
		if p.err != nil {
			return nil, &FileError{line, p.err.Error()}
		}
		row.Line = line
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return nil, &FileError{0, "there are none"}
	}
	return rows, nil
}

func has(col map[string]int, name string) bool { _, ok := col[name]; return ok }

// csvLine is the line of a mistake, 0 where it has none.
func csvLine(err error) int {
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		return pe.Line
	}
	return 0
}

func csvWhy(err error) string {
	var pe *csv.ParseError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// parser reads the fields of one record and keeps the first error.
type parser struct {
	rec []string
	col map[string]int
	err error
}

func (p *parser) str(name string) string {
	if i, ok := p.col[name]; ok && i < len(p.rec) {
		return strings.Clone(strings.TrimSpace(p.rec[i]))
	}
	return ""
}

func (p *parser) num(name string, lo, hi float64, optional bool) float64 {
	s := p.str(name)
	if s == "" && optional {
		return 0
	}
	v, err := strconv.ParseFloat(s, 64)
	if (err != nil || math.IsNaN(v) || v < lo || v > hi) && p.err == nil {
		p.err = fmt.Errorf("%s is %.40q, not a number from %g to %g", name, s, lo, hi)
	}
	return v
}

func (p *parser) count(name string, lo, hi int, optional bool) int {
	v := p.num(name, float64(lo), float64(hi), optional)
	if v != math.Trunc(v) && p.err == nil {
		p.err = fmt.Errorf("%s is %v, not a whole number", name, v)
	}
	return int(v)
}

func (p *parser) row() Row {
	r := Row{
		Model: p.str("model"), Family: p.str("family"), Precision: p.str(required[1]), SKU: p.str("sku"),
		GPUs: p.count("num_gpus", 1, 4096, false), TP: p.count("tp", 1, 4096, true), Parallel: p.str("parallel"),
		ISL: p.count("isl", 1, 1e8, false), OSL: p.count("osl", 1, 1e8, false),
		Throughput: p.num("output_tokens_per_s_total", 1e-6, 1e9, false),
		TTFT:       p.num("ttft_ms", 0, 1e9, true) / 1e3, TPOT: p.num("tpot_ms", 0, 1e9, true) / 1e3,
		Framework: p.str("framework"), Measured: p.str("measured"),
		TotalB: p.num("total_params_b", 0, 1e6, true), ActiveB: p.num("active_params_b", 0, 1e6, true),
		Layers: p.count("layers", 0, 1e5, true), Hidden: p.count("hidden", 0, 1e7, true),
		KVHeads: p.count("kv_heads", 0, 1e5, true), HeadDim: p.count("head_dim", 0, 1e5, true),
	}
	r.Source = strings.Trim(p.str("source_repo")+" "+p.str("source_path"), " ")
	if r.TP == 0 {
		r.TP = r.GPUs
	}
	if r.Family == "" {
		r.Family = r.Model
	}
	if r.Model == "" && p.err == nil {
		p.err = errors.New("model is empty")
	}
	if pp := p.count("pp", 1, 4096, true); pp > 1 && p.err == nil {
		p.err = errors.New("pipeline parallelism is not modelled: leave out rows with pp > 1")
	}
	scenario := strings.ToLower(p.str("concurrency_or_scenario"))
	n := strings.TrimPrefix(scenario, "closed_loop_")
	if strings.HasPrefix(scenario, "offline") {
		return r
	}
	c, err := strconv.ParseUint(n, 10, 20)
	if (err != nil || c == 0) && p.err == nil {
		p.err = fmt.Errorf("concurrency_or_scenario is %.40q, not offline_max, closed_loop_N or N", scenario)
	}
	r.Concurrency = int(c)
	return r
}

// Engine names the engine of a framework string such as "vllm-0.12.0": vllm,
// sglang, trtllm, trtllm-engine, or other. TensorRT-LLM's builder ("-engine") and
// its PyTorch flow are different programs.
func Engine(framework string) string {
	f := strings.ToLower(framework)
	switch {
	case strings.Contains(f, "vllm"):
		return "vllm"
	case strings.Contains(f, "sglang"):
		return "sglang"
	case strings.Contains(f, "trt") && strings.Contains(f, "engine"):
		return "trtllm-engine"
	case strings.Contains(f, "trt") || strings.Contains(f, "tensorrt"):
		return "trtllm"
	}
	return "other"
}

var engines = []string{"vllm", "sglang", "trtllm", "trtllm-engine", "other"}
