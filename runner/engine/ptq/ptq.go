// Package ptq quantises a checkpoint after training: the linear weights of its
// layers to FP8 or NVFP4 by rounding to the nearest, in the layout in which
// NVIDIA's Model Optimizer writes checkpoints and vLLM loads them. Scales of the
// inputs come from running the model over a text.
//
// Weights pass through as a stream of rows. What has been written survives a
// kill: the next call with the same source and settings goes on where it ended,
// and the folder of the result appears only when it is whole.
package ptq

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/results/atomicfile"
)

// Format is what weights and their inputs become.
type Format string

// The formats.
const (
	NVFP4 Format = "nvfp4"      // W4A16: weights alone
	W4A4  Format = "nvfp4-w4a4" // weights and inputs
	FP8   Format = "fp8"        // W8A8: one scale for a weight, one for its inputs
	// BF16 is the way back: the values of a quantised checkpoint, for programs that
	// do not read its format. What rounding took is gone; inputs are not rounded.
	BF16 Format = "bf16"
)

// Formats lists the formats to which a checkpoint is quantised.
var Formats = []Format{NVFP4, W4A4, FP8}

// Algo is what Model Optimizer calls a format.
func (f Format) Algo() string {
	switch f {
	case NVFP4:
		return "W4A16_NVFP4"
	case W4A4:
		return "NVFP4"
	case FP8:
		return "FP8"
	}
	return ""
}

// calibrated tells whether inputs have a scale.
func (f Format) calibrated() bool { return f == W4A4 || f == FP8 }

// Config says what to quantise. Dir, Out and Format are required.
type Config struct {
	Dir, Out string
	Format   Format
	// Text is what the model is run over where inputs are rounded, cut into
	// pieces of SampleTokens; "" means a built-in text.
	Text         string
	SampleTokens int // of one piece, 0 means 512 or the context
	MaxSamples   int // 0 means 64
	Threads      int // 0 means 1

	Version string // of the program, for the metadata
	// Progress, when not nil, hears how much of how much is done: bytes of weights
	// (unit "B") or samples of text.
	Progress func(done, all int64, unit, what string)
	Hook     func(point string) // around durable steps; may be nil
}

// Result is what was written.
type Result struct {
	Out        string  `json:"out"`
	Format     Format  `json:"format"`
	Algo       string  `json:"quant_algo"`
	Quantised  int     `json:"quantised"` // weights
	Kept       int     `json:"kept"`      // tensors left as they were
	BytesIn    int64   `json:"bytes_in"`
	BytesOut   int64   `json:"bytes_out"`
	Calibrated int     `json:"calibration_tokens,omitempty"`
	Random     bool    `json:"calibrated_on_random_tokens,omitempty"` // for want of a tokenizer
	Resumed    int     `json:"resumed_files,omitempty"`
	Bits       float64 `json:"bits_per_weight"` // of the quantised ones, with scales
}

// Error is a mistake in what was asked for.
type Error struct{ Why, Fix string }

func (e *Error) Error() string { return e.Why }

// UserError is what the user can do.
func (e *Error) UserError() string { return e.Fix }

// linear are the weights that are quantised.
var linear = regexp.MustCompile(`^model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)$`)

// fused names the group of weights that an engine multiplies as one matrix, and
// that therefore share a scale.
func fused(name string) string {
	for _, g := range []struct{ suffix, group string }{{"q_proj", "qkv"}, {"k_proj", "qkv"}, {"v_proj", "qkv"}, {"gate_proj", "gate_up"}, {"up_proj", "gate_up"}} {
		if base, ok := strings.CutSuffix(name, g.suffix); ok {
			return base + g.group
		}
	}
	return name
}

// job is one quantisation under way.
type job struct {
	cfg     Config
	ck      *model.Checkpoint
	src     model.Folder
	work    string // the folder that becomes Out
	files   map[string]model.File
	linears []*model.Stored
	state   state
	result  Result
	done    int64
}

// state is what is known of the whole checkpoint; it is kept beside the files.
type state struct {
	Source  string             `json:"source"` // what the work was begun with
	Weights map[string]float32 `json:"weights"`
	Inputs  map[string]float32 `json:"inputs"` // largest magnitudes by group
	Tokens  int                `json:"tokens"`
}

const stateFile = "quantize.state.json"

// Quantize writes a quantised checkpoint. Errors: [*Error], those of reading the
// checkpoint, and those of the disk.
func Quantize(ctx context.Context, cfg Config) (*Result, error) {
	if !slices.Contains(Formats, cfg.Format) && cfg.Format != BF16 {
		return nil, &Error{fmt.Sprintf("%q is no format", cfg.Format), "formats are nvfp4, nvfp4-w4a4 and fp8, and bf16 for the values of what is quantised"}
	}
	out, err := filepath.Abs(cfg.Out)
	if err != nil {
		return nil, fmt.Errorf("find output folder: %w", err)
	}
	cfg.Out = out
	if _, err := os.Lstat(out); err == nil {
		return nil, &Error{fmt.Sprintf("%s exists already", out), "name another folder with -o, or remove it"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look at output folder: %w", err)
	}
	j := &job{cfg: cfg, src: model.Folder(cfg.Dir), work: out + ".partial", files: map[string]model.File{}}
	defer j.close()
	if err := j.open(ctx); err != nil {
		return nil, err
	}
	if err := j.prepare(ctx); err != nil {
		return nil, err
	}
	for _, s := range j.ck.Shards {
		if err := j.shard(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := j.finish(ctx); err != nil {
		return nil, err
	}
	return &j.result, nil
}

func (j *job) close() {
	for _, f := range j.files {
		_ = f.Close() // only read from
	}
}

func (j *job) say(done, all int64, unit, what string) {
	if j.cfg.Progress != nil {
		j.cfg.Progress(done, all, unit, what)
	}
}

// open reads the headers and finds the weights to quantise.
func (j *job) open(ctx context.Context) error {
	var err error
	if j.ck, err = model.ReadCheckpoint(ctx, j.src, model.CheckpointConfig{ID: filepath.Base(j.cfg.Dir)}); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return &Error{fmt.Sprintf("%s is no checkpoint: %v", j.cfg.Dir, err), "name a folder with config.json and safetensors"}
		}
		return fmt.Errorf("read checkpoint: %w", err)
	}
	for _, p := range j.ck.Problems {
		return &Error{fmt.Sprintf("the checkpoint is not whole: %s: %s", p.Where, p.Message), "`repromill inspect DIR` lists what is wrong; download it again"}
	}
	if j.cfg.Format == BF16 {
		return j.openQuantised()
	}
	if j.ck.Model.Quant != nil {
		return &Error{fmt.Sprintf("the checkpoint is quantised already (%s)", j.ck.Model.Quant.Method), "quantise the BF16 checkpoint that it was made of"}
	}
	for i := range j.ck.Census.Stored {
		s := &j.ck.Census.Stored[i]
		if !linear.MatchString(s.Name) {
			continue
		}
		if len(s.Shape) != 2 || s.Format != model.FormatBF16 && s.Format != model.FormatFP16 && s.Format != model.FormatFP32 {
			return &Error{fmt.Sprintf("%s is stored as %s %v", s.Name, s.Format, s.Shape), "quantise a checkpoint in BF16, FP16 or FP32"}
		}
		if j.cfg.Format != FP8 && s.Shape[1]%model.BlockNVFP4 != 0 {
			return &Error{fmt.Sprintf("rows of %s have %d values, which are not made of blocks of 16", s.Name, s.Shape[1]), "quantise to fp8"}
		}
		j.linears = append(j.linears, s)
	}
	if len(j.linears) == 0 {
		return &Error{"the checkpoint has no linear layers of the kind of Llama and Qwen (model.layers.N.self_attn.q_proj)", "quantise it with NVIDIA's Model Optimizer"}
	}
	j.result = Result{Out: j.cfg.Out, Format: j.cfg.Format, Algo: j.cfg.Format.Algo(), Quantised: len(j.linears), BytesIn: j.ck.Census.Bytes}
	return nil
}

func (j *job) file(name string) (model.File, error) {
	if f := j.files[name]; f != nil {
		return f, nil
	}
	f, err := j.src.Open(context.Background(), name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	j.files[name] = f
	return f, nil
}

// weight opens a stored weight for reading by rows.
func (j *job) weight(s *model.Stored) (*model.Weight, error) {
	var failed error
	w, err := model.OpenWeight(s, func(t *model.Tensor) io.ReaderAt {
		f, err := j.file(j.ck.FileOf(t))
		failed = cmp.Or(failed, err)
		return f
	})
	return w, cmp.Or(failed, err)
}

// rowsAtOnce is how many rows are read together.
func rowsAtOnce(cols int) int { return max(1, (1<<18)/max(1, cols)) }

// prepare makes the working folder, or takes up one that the same work left, and
// finds the scales.
func (j *job) prepare(ctx context.Context) error {
	source, err := j.fingerprint()
	if err != nil {
		return err
	}
	path := filepath.Join(j.work, stateFile)
	if b, err := os.ReadFile(path); err == nil {
		var s state
		if json.Unmarshal(b, &s) == nil && s.Source == source {
			j.state = s
			j.result.Calibrated = s.Tokens
			return nil
		}
	}
	// What another source or setting left is of no use.
	if err := os.RemoveAll(j.work); err != nil {
		return fmt.Errorf("clear working folder: %w", err)
	}
	if err := atomicfile.MkdirAll(j.work, 0o755); err != nil {
		return fmt.Errorf("make working folder: %w", err)
	}
	j.state = state{Source: source, Weights: map[string]float32{}, Inputs: map[string]float32{}}
	if j.cfg.Format != BF16 {
		if err := j.weigh(ctx); err != nil {
			return err
		}
	}
	if j.cfg.Format.calibrated() {
		if err := j.calibrate(ctx); err != nil {
			return err
		}
	}
	b, err := json.Marshal(j.state)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := atomicfile.Write(path, b, j.options("state")); err != nil {
		return fmt.Errorf("keep state: %w", err)
	}
	return nil
}

func (j *job) options(point string) atomicfile.Options {
	return atomicfile.Options{Hook: j.cfg.Hook, Point: "ptq:" + point}
}

// fingerprint tells one piece of work from another: the settings, and name, size
// and time of the files.
func (j *job) fingerprint() (string, error) {
	parts := []any{j.cfg.Format, j.cfg.Text, j.cfg.SampleTokens, j.cfg.MaxSamples, j.cfg.Version}
	names := []string{"config.json", "tokenizer.json"}
	for _, s := range j.ck.Shards {
		names = append(names, s.File)
	}
	for _, n := range names {
		info, err := os.Stat(filepath.Join(j.cfg.Dir, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("look at %s: %w", n, err)
		}
		parts = append(parts, n, info.Size(), info.ModTime().UnixNano())
	}
	return digest(parts), nil
}

// weigh finds the largest magnitude of every group of weights.
func (j *job) weigh(ctx context.Context) error {
	for i, s := range j.linears {
		j.say(int64(i), int64(len(j.linears)), "weights", "looked at")
		w, err := j.weight(s)
		if err != nil {
			return err
		}
		step := rowsAtOnce(w.Cols)
		buf := make([]float32, step*w.Cols)
		for row := 0; row < w.Rows; row += step {
			if err := ctx.Err(); err != nil {
				return err
			}
			n := min(step, w.Rows-row)
			if err := w.ReadRows(buf, row, n); err != nil {
				return err
			}
			m, ok := largest(buf[:n*w.Cols])
			if !ok {
				return &Error{fmt.Sprintf("%s holds values that are not finite", s.Name), "`repromill inspect DIR --weights` shows where; the checkpoint is broken"}
			}
			g := fused(s.Name)
			j.state.Weights[g] = max(j.state.Weights[g], m)
		}
	}
	return nil
}
