package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"text/tabwriter"

	"github.com/oklog/ulid/v2"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/results/atomicfile"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/results/schema"
)

// inspectWeightsPart is what reading the weights gave.
type inspectWeightsPart struct {
	Against  string         `json:"against,omitempty"`
	Revision string         `json:"against_revision,omitempty"`
	Sample   int            `json:"sample,omitempty"`
	Seed     uint64         `json:"seed,omitempty"`
	Verdicts map[string]int `json:"verdicts"`
	Layers   []model.Layer  `json:"layers"` // worst first
	Plot     string         `json:"plot,omitempty"`
	RunID    string         `json:"run_id,omitempty"` // of the committed table
	Table    string         `json:"table,omitempty"`  // pattern for its files
}

// What is read at once over a network: of all weights, and of samples of them.
const (
	pageBytes   = 8 << 20
	sampleBytes = 256 << 10
)

// side is a checkpoint whose weights are to be read.
func (s *subject) side(r *inspection, sample int) (model.Side, error) {
	if r.shards == nil || r.shards.Census == nil {
		why := strings.Join(r.Absent, "; ")
		if len(r.Problems) > 0 {
			why = r.Problems[0].Where + ": " + r.Problems[0].Message
		}
		return model.Side{}, usererrf("name a folder or a model of the hub with safetensors files", "the weights of %s cannot be read: %s", s.ID, why)
	}
	side := model.Side{Checkpoint: r.shards, Source: s.Source}
	if s.Hub != nil {
		side.Source, side.Page = s.Hub.Streaming(), pageBytes
		if sample > 0 { // the next rows are not wanted
			side.Page = sampleBytes
		}
	}
	return side, nil
}

// identity tells whether a checkpoint is still the one that a journal is of.
func (s *subject) identity() ([]string, error) {
	if s.Hub != nil {
		return []string{s.ID, s.Revision}, nil
	}
	folder, ok := s.Source.(model.Folder)
	if !ok {
		return nil, errors.New("a configuration alone has no weights")
	}
	id := []string{string(folder)}
	for _, name := range s.Names {
		info, err := os.Stat(filepath.Join(string(folder), name))
		if err == nil && strings.HasSuffix(name, ".safetensors") {
			id = append(id, fmt.Sprintf("%s %d %d", name, info.Size(), info.ModTime().UnixNano()))
		}
	}
	return id, nil
}

func (a *app) inspectWeights(ctx context.Context, f *inspectFlags, s *subject, r *inspection) error {
	sweep := model.Sweep{Look: model.Look{Blocks: f.sample, Seed: f.seed}}
	var err error
	if f.layers != "" {
		if sweep.Names, err = regexp.Compile(f.layers); err != nil {
			return usererrf("write a regular expression of RE2, such as 'layers\\.(0|31)\\.'", "--layers: %v", err)
		}
	}
	if sweep.Got, err = s.side(r, f.sample); err != nil {
		return err
	}
	if s.Hub != nil {
		sweep.Workers = 4 // as many connections as the hub is asked over
	}
	part := &inspectWeightsPart{Sample: f.sample, Verdicts: map[string]int{}}
	if f.sample > 0 {
		part.Seed = f.seed
	}
	own, err := s.identity()
	if err != nil {
		return err
	}
	var other []string
	if f.against != "" {
		if other, err = a.openBase(ctx, f.against, &sweep, part, r); err != nil {
			return err
		}
	}
	identity := []any{"layers-1", own, other, f.sample, part.Seed}
	j, err := openJournal(filepath.Join(a.cfg.String("paths.state"), "inspect"), identity, a.failpoint())
	if err != nil {
		return err
	}
	err = a.sweep(ctx, &sweep, j, part)
	if err == nil {
		err = a.keepLayers(ctx, f, s, r, part)
	}
	if cerr := j.close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = j.remove()
	}
	return err
}

// openBase opens the checkpoint to compare with.
func (a *app) openBase(ctx context.Context, name string, sweep *model.Sweep, part *inspectWeightsPart, r *inspection) ([]string, error) {
	u := a.ui()
	u.start("base")
	s, err := a.subject(ctx, name)
	if err != nil {
		u.abandon()
		return nil, err
	}
	base, err := s.facts(ctx, false)
	if err != nil {
		u.abandon()
		return nil, err
	}
	side, err := s.side(base, part.Sample)
	if err != nil {
		u.abandon()
		return nil, err
	}
	u.finish(base.trafficText())
	sweep.Base, part.Against, part.Revision = &side, s.ID, s.Revision
	if base.known.Census != nil {
		r.known.BaseSize = base.known.Census.Bytes
	}
	r.known.Base = s.ID
	return s.identity()
}

func (a *app) sweep(ctx context.Context, sweep *model.Sweep, j *layerJournal, part *inspectWeightsPart) error {
	u := a.ui()
	u.start("weights")
	if len(j.done) > 0 {
		u.note(fmt.Sprintf("%d weights were read before; going on from there", len(j.done)))
	}
	sweep.Known, sweep.Keep = j.done, j.keep
	sweep.Progress = func(done, total int64, name string) { u.progress(done, total, "B", name) }
	layers, err := sweep.Run(ctx)
	if err != nil {
		u.abandon()
		if ctx.Err() != nil {
			fmt.Fprintln(a.stderr, "the same command goes on where this one was")
		}
		return err
	}
	if len(layers) == 0 {
		u.abandon()
		return usererrf("`repromill inspect MODEL --weights` without --layers lists the names", "--layers matches no weight")
	}
	part.Layers = layers
	for _, l := range layers {
		part.Verdicts[l.Verdict]++
	}
	u.finish(fmt.Sprintf("%d read", len(layers)))
	return nil
}

// keepLayers judges the base, draws and commits.
func (a *app) keepLayers(ctx context.Context, f *inspectFlags, s *subject, r *inspection, part *inspectWeightsPart) error {
	r.Weights = part
	if part.Against != "" {
		compared := 0
		for _, l := range part.Layers {
			if l.Error != nil {
				compared++
			}
		}
		r.known.BaseFits = compared > 0 && part.Verdicts["broken"]+part.Verdicts["unread"] == 0
	}
	if f.plot != "" {
		if err := a.plotLayers(f.plot, r); err != nil {
			return err
		}
	}
	if !f.save {
		return nil
	}
	return a.saveLayers(ctx, s, r)
}

func (a *app) plotLayers(path string, r *inspection) error {
	var points []plot.Layer
	for _, l := range r.Weights.Layers {
		if l.Error == nil || l.Format == model.FormatBF16 && l.Error.Relative == 0 {
			continue // what was not quantised has no error to show
		}
		layer, _, _ := model.Place(l.Name)
		points = append(points, plot.Layer{
			Name: l.Name, Group: string(l.Format), Index: layer, Error: float64(l.Error.Relative),
			Reference: float64(l.Error.Rounding), Flagged: l.Verdict == "broken" || l.Verdict == "suspicious",
		})
	}
	var b bytes.Buffer
	if err := plot.Layers(&b, filepath.Ext(path), r.Model+" against "+r.Weights.Against, points); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return usererrf("name a file in a folder that can be written", "cannot write the plot: %v", err)
	}
	if err := atomicfile.Write(path, b.Bytes(), atomicfile.Options{Perm: 0o644, Hook: a.failpoint(), Point: "cli:plot"}); err != nil {
		return usererrf("name a file in a folder that can be written", "cannot write the plot: %v", err)
	}
	r.Weights.Plot = path
	return nil
}

// saveLayers commits the layers table as a run of its own.
func (a *app) saveLayers(ctx context.Context, s *subject, r *inspection) error {
	now := a.now()
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	if err != nil {
		return fmt.Errorf("make run id: %w", err)
	}
	data, err := a.dataset()
	if err != nil {
		return err
	}
	tx := data.Begin(id.String(), now)
	common := schema.Common{RunID: id.String(), Kind: schema.Measured, SchemaVersion: schema.Version}
	kind, url := "local", s.URL
	if s.Hub != nil {
		kind = "hf_model"
	}
	run := schema.RunRow{
		Common: common, Status: "succeeded", CreatedAt: now, StartedAt: now, FinishedAt: now, TargetInput: s.ID, TargetKind: kind,
		TargetID: s.ID, TargetRevision: s.Revision, TargetURL: url, Title: "weights of " + s.ID, ToolVersion: createdBy(),
		Reason: layersSentence(r.Weights),
	}
	if err = dataset.Add(tx, run); err == nil {
		err = dataset.Add(tx, layerRows(common, s, r)...)
	}
	if err == nil {
		_, err = tx.Commit(ctx)
	}
	if err != nil {
		return errors.Join(err, tx.Abort())
	}
	r.Weights.RunID, r.Weights.Table = id.String(), data.Glob(schema.Layers)
	return nil
}

func layerRows(common schema.Common, s *subject, r *inspection) []schema.LayerRow {
	rows := make([]schema.LayerRow, 0, len(r.Weights.Layers))
	maths := map[model.Format]string{}
	for _, g := range r.Groups {
		maths[g.Weights] = g.Math
	}
	for i, l := range r.Weights.Layers {
		layer, expert, role := model.Place(l.Name)
		row := schema.LayerRow{
			Common: common, Model: s.ID, Revision: s.Revision, Tensor: l.Name, Role: role, Format: string(l.Format), Math: maths[l.Format],
			Shape: shapeText(l.Shape), Params: schema.Int(l.Params), Bytes: schema.Int(l.Bytes), Against: r.Weights.Against,
			Rank: schema.Int(i + 1), Flag: l.Verdict, Reason: strings.Join(l.Reasons, "; "), File: l.File,
		}
		if layer >= 0 {
			row.LayerIndex = schema.Int(layer)
		}
		if expert >= 0 {
			row.Expert = schema.Int(expert)
		}
		if e := l.Error; e != nil {
			row.RelError, row.MaxAbsError, row.SQNRDB, row.Cosine = finite(e.Relative), finite(e.MaxAbs), finite(e.SQNR), finite(e.Cosine)
			row.RTNRelError, row.RTNSQNRDB = finite(e.Rounding), finite(e.RoundingSQNR())
		}
		if c := l.Scales; c != nil {
			row.ZeroFraction = finite(c.ZeroValues)
			if l.Format != model.FormatBF16 && l.Format != model.FormatFP16 && l.Format != model.FormatFP32 {
				row.ScaleMin, row.ScaleMax, row.ScaleZeros = finite(c.Smallest), finite(c.Largest), schema.Int(c.Zero)
				row.SaturatedFraction = finite(c.Clipped)
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func finite(m model.Measure) (o schema.Opt[float64]) {
	if f := float64(m); f-f == 0 {
		o = schema.Float(f)
	}
	return o
}

func shapeText(shape []int64) string {
	parts := make([]string, len(shape))
	for i, d := range shape {
		parts[i] = fmt.Sprint(d)
	}
	return strings.Join(parts, "x")
}

// layersSentence sums up the verdicts.
func layersSentence(w *inspectWeightsPart) string {
	bad := w.Verdicts["broken"] + w.Verdicts["suspicious"] + w.Verdicts["unread"]
	if bad == 0 {
		return fmt.Sprintf("all %d weights are sound", len(w.Layers))
	}
	return fmt.Sprintf("%d of %d weights are broken, %d suspicious, %d could not be read", w.Verdicts["broken"], len(w.Layers), w.Verdicts["suspicious"], w.Verdicts["unread"])
}

// shownLayers is how many weights are listed for people.
const shownLayers = 12

func (a *app) printWeights(w *inspectWeightsPart) {
	fmt.Fprintf(a.stdout, "\nweights: %s", layersSentence(w))
	if w.Against != "" {
		fmt.Fprintf(a.stdout, ", against %s", clean(w.Against))
	}
	if w.Sample > 0 {
		fmt.Fprintf(a.stdout, ", sampled: %d blocks of rows each, seed %d", w.Sample, w.Seed)
	}
	fmt.Fprintln(a.stdout)
	tw := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "WEIGHT\tFORMAT\tERROR\tROUNDING\tSQNR\tCOSINE\tVERDICT\tWHY")
	left := 0
	for i, l := range w.Layers {
		if i >= shownLayers && l.Verdict == "ok" || i >= 5*shownLayers {
			left++
			continue
		}
		cells := "\t\t\t"
		if e := l.Error; e != nil {
			cells = fmt.Sprintf("%s\t%s\t%s\t%s", percent(e.Relative), percent(e.Rounding), decibels(e.SQNR), fmt.Sprintf("%.5f", float64(e.Cosine)))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", clean(l.Name), l.Format, cells, l.Verdict, clean(oneLine(strings.Join(l.Reasons, "; "))))
	}
	tw.Flush()
	if left > 0 {
		fmt.Fprintf(a.stdout, "… and %d more; --json lists all\n", left)
	}
	if w.Plot != "" {
		fmt.Fprintf(a.stdout, "plot: %s\n", clean(w.Plot))
	}
	if w.RunID != "" {
		fmt.Fprintf(a.stdout, "committed as run %s: %s\n", w.RunID, clean(w.Table))
	}
}

func percent(m model.Measure) string { return fmt.Sprintf("%.3g %%", 100*float64(m)) }

func decibels(m model.Measure) string {
	if f := float64(m); f-f != 0 {
		return "exact"
	}
	return fmt.Sprintf("%.1f dB", float64(m))
}
