package ptq

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/runner/engine/kernel"
)

func digest(v any) string {
	b, _ := json.Marshal(v) // strings and numbers
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// largest is the largest magnitude; false where a value is not finite.
func largest(x []float32) (float32, bool) {
	m := kernel.AMax(x)
	return m, !(m != m || math.IsInf(float64(m), 0))
}

// over is a scale that takes a largest magnitude to the end of a range; 1 where
// there is nothing.
func over(amax, most float32) float32 {
	if amax == 0 {
		return 1
	}
	return amax / most
}

// weightScale is the scale that all of a weight shares.
func (j *job) weightScale(name string) float32 {
	amax := j.state.Weights[fused(name)]
	if j.cfg.Format == FP8 {
		return over(amax, model.MaxE4M3)
	}
	return over(amax, model.MaxE2M1*model.MaxE4M3)
}

func (j *job) inputScale(name string) float32 {
	amax := j.state.Inputs[fused(name)]
	if j.cfg.Format == FP8 {
		return over(amax, model.MaxE4M3)
	}
	return over(amax, model.MaxE2M1*model.MaxE4M3)
}

// entry is a tensor of a file that is written.
type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`

	name   string
	copied *model.Tensor // as it was; nil for what is made
	stored *model.Stored // whose weight or scales this is
	value  float32       // of a scalar
}

// layout lists the tensors of an output file in the order of their data, with
// those that belong to a weight beside it.
func (j *job) layout(shard *model.Shard) []*entry {
	byName := map[string]*model.Stored{}
	for _, s := range j.linears {
		byName[s.Weight.Name] = s
	}
	var out []*entry
	for i := range shard.Header.Tensors {
		t := &shard.Header.Tensors[i]
		s := byName[t.Name]
		if s == nil && j.cfg.Format == BF16 && j.belongs(t.Name) {
			continue
		}
		if s == nil {
			out = append(out, &entry{name: t.Name, DType: t.DType, Shape: t.Shape, copied: t})
			continue
		}
		if j.cfg.Format == BF16 {
			out = append(out, &entry{name: s.Name + ".weight", DType: "BF16", Shape: s.Shape, stored: s})
			continue
		}
		rows, cols := s.Shape[0], s.Shape[1]
		scalar := func(suffix string, v float32) {
			out = append(out, &entry{name: s.Name + suffix, DType: "F32", Shape: []int64{}, value: v})
		}
		if j.cfg.Format == FP8 {
			out = append(out, &entry{name: t.Name, DType: "F8_E4M3", Shape: []int64{rows, cols}, stored: s})
			scalar(".weight_scale", j.weightScale(s.Name))
		} else {
			out = append(out, &entry{name: t.Name, DType: "U8", Shape: []int64{rows, cols / 2}, stored: s},
				&entry{name: s.Name + ".weight_scale", DType: "F8_E4M3", Shape: []int64{rows, cols / model.BlockNVFP4}, stored: s})
			scalar(".weight_scale_2", j.weightScale(s.Name))
		}
		if j.cfg.Format.calibrated() {
			scalar(".input_scale", j.inputScale(s.Name))
		}
	}
	var at int64
	for _, e := range out {
		n := elementBytes(e)
		e.Offsets = [2]int64{at, at + n}
		at += n
	}
	return out
}

func elementBytes(e *entry) int64 {
	if e.copied != nil {
		return e.copied.Bytes()
	}
	n := int64(1)
	for _, d := range e.Shape {
		n *= d
	}
	switch e.DType {
	case "F32":
		n *= 4
	case "BF16":
		n *= 2
	}
	return n
}

// shard writes one file, unless it is there.
func (j *job) shard(ctx context.Context, shard model.Shard) error {
	path := filepath.Join(j.work, shard.File)
	entries := j.layout(&shard)
	for _, e := range entries {
		n := e.Offsets[1] - e.Offsets[0]
		j.result.BytesOut += n
		if e.copied != nil {
			j.result.Kept++
		}
	}
	if _, err := os.Stat(path); err == nil {
		j.result.Resumed++
		j.progress(shard.Header)
		return nil
	}
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	for _, e := range entries {
		header[e.name] = e
	}
	h, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("encode header: %w", err)
	}
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	temp := path + ".tmp"
	f, err := os.Create(temp)
	if err != nil {
		return fmt.Errorf("create file of weights: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...)); err != nil {
		return fmt.Errorf("write header: %w", err)
	}
	w := &writer{j: j, f: f, base: int64(len(h)) + 8}
	for i, e := range entries {
		if err := w.write(ctx, e, entries[i:]); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync file of weights: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close file of weights: %w", err)
	}
	return atomicfile.Rename(temp, path, j.options("shard"))
}

func (j *job) progress(h *model.Header) {
	for i := range h.Tensors {
		j.done += h.Tensors[i].Bytes()
	}
	j.say(j.done, j.result.BytesIn, "B", "rounded")
}

// writer fills one file.
type writer struct {
	j    *job
	f    *os.File
	base int64 // where the data begin
}

// write writes one tensor; of a quantised weight also its block scales, which
// come next in the file.
func (w *writer) write(ctx context.Context, e *entry, rest []*entry) error {
	at := w.base + e.Offsets[0]
	switch {
	case e.copied != nil:
		src, err := w.j.file(w.j.ck.FileOf(find(w.j.ck, e.name)))
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(w.f, at), &reader{ctx, io.NewSectionReader(src, e.copied.Begin, e.copied.Bytes())}); err != nil {
			return fmt.Errorf("copy %s: %w", e.name, err)
		}
		w.count(e.copied.Bytes())
	case e.stored != nil && strings.HasSuffix(e.name, ".weight_scale"): // with its weight
	case e.stored != nil:
		scales := int64(0)
		if w.j.cfg.Format == NVFP4 || w.j.cfg.Format == W4A4 {
			scales = w.base + rest[1].Offsets[0]
		}
		if err := w.weight(ctx, e.stored, at, scales); err != nil {
			return err
		}
		w.count(e.stored.Weight.Bytes())
	default:
		if _, err := w.f.WriteAt(binary.LittleEndian.AppendUint32(nil, math.Float32bits(e.value)), at); err != nil {
			return fmt.Errorf("write %s: %w", e.name, err)
		}
	}
	return nil
}

func (w *writer) count(n int64) {
	w.j.done += n
	w.j.say(w.j.done, w.j.result.BytesIn, "B", "rounded")
}

// find is a tensor of the census by its name.
func find(ck *model.Checkpoint, name string) *model.Tensor {
	for i := range ck.Census.Stored {
		if t := ck.Census.Stored[i].Weight; t.Name == name {
			return t
		}
	}
	return nil
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// weight rounds a weight row by row.
func (w *writer) weight(ctx context.Context, s *model.Stored, at, scalesAt int64) error {
	src, err := w.j.weight(s)
	if err != nil {
		return err
	}
	global := w.j.weightScale(s.Name)
	step := rowsAtOnce(src.Cols)
	buf := make([]float32, step*src.Cols)
	for row := 0; row < src.Rows; row += step {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(step, src.Rows-row)
		if err := src.ReadRows(buf, row, n); err != nil {
			return err
		}
		data, scales, err := w.j.round(buf[:n*src.Cols], n, src.Cols, global)
		if err != nil {
			return err
		}
		for _, p := range []struct {
			b  []byte
			at int64
		}{{data, at}, {scales, scalesAt}} {
			if _, err := w.f.WriteAt(p.b, p.at); err != nil {
				return fmt.Errorf("write %s: %w", s.Name, err)
			}
		}
		at, scalesAt = at+int64(len(data)), scalesAt+int64(len(scales))
	}
	return nil
}

// round gives the codes of rows, and of NVFP4 the scales of their blocks.
func (j *job) round(x []float32, rows, cols int, global float32) (data, scales []byte, err error) {
	if j.cfg.Format == BF16 {
		return bf16(x), nil, nil
	}
	if j.cfg.Format == FP8 {
		data = make([]byte, len(x))
		for i, v := range x {
			data[i] = model.EncodeE4M3(v / global)
		}
		return data, nil, nil
	}
	q, err := model.QuantizeNVFP4With(x, rows, cols, global)
	if err != nil {
		return nil, nil, err
	}
	return q.Packed, q.Scales, nil
}

// finish writes what stands beside the weights and gives the folder its name.
func (j *job) finish(ctx context.Context) error {
	if err := j.metadata(); err != nil {
		return err
	}
	entries, err := os.ReadDir(j.cfg.Dir)
	if err != nil {
		return fmt.Errorf("list checkpoint: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if !beside(name) {
			continue
		}
		f, err := j.src.Open(ctx, name)
		if err != nil {
			continue // a folder
		}
		b, err := io.ReadAll(io.NewSectionReader(f, 0, min(f.Size(), maxBeside+1)))
		_ = f.Close() // only read from
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		if len(b) > maxBeside {
			continue
		}
		if err := atomicfile.Write(filepath.Join(j.work, name), b, j.options("beside")); err != nil {
			return fmt.Errorf("copy %s: %w", name, err)
		}
	}
	if err := os.Remove(filepath.Join(j.work, stateFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove state: %w", err)
	}
	if err := atomicfile.SyncDir(j.work); err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := atomicfile.Rename(j.work, j.cfg.Out, j.options("folder")); err != nil {
		return err
	}
	var values, bytes int64
	for _, s := range j.linears {
		n := s.Params
		values += n
		switch j.cfg.Format {
		case BF16:
			bytes += 2 * n
		case FP8:
			bytes += n + 4
		default:
			bytes += n/2 + n/model.BlockNVFP4 + 4
		}
	}
	j.result.Bits = float64(8*bytes) / float64(values)
	return nil
}

// maxBeside bounds files that are copied: tokenizers, not weights.
const maxBeside = 64 << 20

// beside tells whether a file belongs to the checkpoint and is neither weights
// nor written anew.
func beside(name string) bool {
	switch name {
	case "config.json", "hf_quant_config.json", "model.safetensors.index.json", stateFile:
		return false
	}
	return slices.Contains([]string{".json", ".txt", ".model", ".jinja", ".md"}, filepath.Ext(name)) || name == "LICENSE"
}
