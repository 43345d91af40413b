package nightly

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/results/stat"
)

// Source gives the committed rows of a run. A run without results gives an error
// that wraps [fs.ErrNotExist].
type Source interface {
	Rows(ctx context.Context, runID string) (Rows, error)
	// Identity changes whenever the rows may have; empty where that is not known.
	Identity(runID string) string
}

// Rows is what of a run's results a history is made of.
type Rows struct {
	Metrics     []schema.MetricRow
	Comparisons []schema.ComparisonRow
	Servers     []schema.ServerRow
	// Scores are those of every arm by item, for pairing with another night: suite
	// and arm first.
	Scores map[[2]string]map[string]float64
	// Simulated are the arms, by suite and arm, whose scores are of a simulation.
	Simulated map[[2]string]bool
}

// FromDataset is a [Source] over committed results.
func FromDataset(d *dataset.Dataset) Source {
	return &source{data: d, files: map[string]manifestFiles{}}
}

type source struct {
	data  *dataset.Dataset
	mu    sync.Mutex
	files map[string]manifestFiles // by run
}

// manifestFiles are the files that a manifest names, as long as it is the same file.
type manifestFiles struct {
	manifest string
	paths    []string
}

// Identity is of the manifest and of the files that are read: a committed run is
// not changed, but it may be repaired, compacted or replaced.
func (s *source) Identity(id string) string {
	manifest := identity(filepath.Join(s.data.Root(), "_runs", id, "manifest.json"))
	s.mu.Lock()
	have, ok := s.files[id]
	s.mu.Unlock()
	if !ok || have.manifest != manifest {
		m, err := s.data.Manifest(id)
		if err != nil {
			return ""
		}
		have = manifestFiles{manifest: manifest}
		for _, f := range m.Files {
			switch f.Table {
			case schema.Metrics, schema.Comparisons, schema.Servers, schema.Samples:
				have.paths = append(have.paths, filepath.Join(s.data.Root(), filepath.FromSlash(f.Path)))
			}
		}
		s.mu.Lock()
		s.files[id] = have
		s.mu.Unlock()
	}
	all := []string{manifest}
	for _, path := range have.paths {
		// Rows that were merged with those of others are found by an index beside them.
		all = append(all, cmp.Or(identity(path), identity(filepath.Join(filepath.Dir(path), "_merged.json"))))
	}
	if slices.Contains(all, "") {
		return ""
	}
	return strings.Join(all, " ")
}

// identity tells one content of a file from another, as far as the file system
// does; empty where there is no file.
func identity(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	var inode uint64
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = st.Ino
	}
	return fmt.Sprintf("%d-%d-%d", info.Size(), info.ModTime().UnixNano(), inode)
}

func (s *source) Rows(ctx context.Context, id string) (r Rows, err error) {
	if _, err := s.data.Manifest(id); err != nil {
		return r, err
	}
	if r.Metrics, err = dataset.Read[schema.MetricRow](ctx, s.data, id); err != nil {
		return r, err
	}
	if r.Comparisons, err = dataset.Read[schema.ComparisonRow](ctx, s.data, id); err != nil {
		return r, err
	}
	if r.Servers, err = dataset.Read[schema.ServerRow](ctx, s.data, id); err != nil {
		return r, err
	}
	r.Scores, r.Simulated = map[[2]string]map[string]float64{}, map[[2]string]bool{}
	err = dataset.Each(ctx, s.data, id, func(rows []schema.SampleRow) error {
		for _, row := range rows {
			if !row.Score.Valid {
				continue
			}
			key := [2]string{row.Suite, row.Arm}
			if r.Scores[key] == nil {
				r.Scores[key] = map[string]float64{}
			}
			if row.Simulated {
				r.Simulated[key] = true
			}
			r.Scores[key][fmt.Sprint(row.ItemID, "#", row.Repeat)] = row.Score.V
		}
		return nil
	})
	return r, err
}

// History makes the series of a schedule out of what its nights committed. A
// slot without a result, or that nobody ran, is a night that is missing.
func (n *Nightly) History(ctx context.Context, r *Reader) ([]regress.Series, error) {
	accepted, err := n.Accepted()
	if err != nil {
		return nil, err
	}
	var out []regress.Series
	for i := range n.cfg.Schedule.Series {
		e := &n.cfg.Schedule.Series[i]
		list, err := n.historyOf(ctx, r, e)
		if err != nil {
			return nil, err
		}
		for j := range list {
			list[j].Accepted = accepted[e.Name]
		}
		out = append(out, list...)
	}
	return out, nil
}

func (n *Nightly) historyOf(ctx context.Context, r *Reader, e *Entry) ([]regress.Series, error) {
	b := &builder{entry: e, from: r, at: map[regress.Key]int{}, first: map[[2]string]reference{}}
	nights := n.Nights(e.Name)
	if len(nights) == 0 {
		return nil, nil
	}
	known := map[int64]Night{}
	for _, v := range nights {
		known[v.Slot.Unix()] = v
	}
	// Slots by the expression, and those run under an earlier one.
	slots := []time.Time{}
	for _, s := range n.cfg.Schedule.Between(e, nights[0].Slot.Add(-time.Second), n.cfg.Now(), 5000) {
		slots = append(slots, s.At.UTC())
	}
	for _, v := range nights {
		slots = append(slots, v.Slot)
	}
	slices.SortFunc(slots, time.Time.Compare)
	slots = slices.CompactFunc(slots, time.Time.Equal)
	running := n.running(e)
	for _, at := range slots {
		v, ok := known[at.Unix()]
		switch {
		case running[at.Unix()], !ok && n.early(at):
			continue // it is not over
		case !ok:
			b.missing(at, "nobody ran it")
		case v.Skipped != "":
			b.missing(at, v.Skipped)
		case !v.over():
			b.missing(at, "it was begun and never came to an end")
		default:
			if err := b.night(ctx, v); err != nil {
				return nil, err
			}
		}
	}
	return b.series, nil
}

// Fingerprint changes whenever the report of a schedule may: with its state, with
// what was accepted, with the rows of any run, and every minute, since slots pass.
func (n *Nightly) Fingerprint(src Source) (string, error) {
	accepted, err := n.Accepted()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	// Maps are encoded in the order of their keys.
	if err := json.NewEncoder(h).Encode([]any{n.state, accepted, n.cfg.Schedule, n.cfg.Now().Unix() / 60}); err != nil {
		return "", fmt.Errorf("encode nightly state: %w", err)
	}
	for _, e := range n.cfg.Schedule.Series {
		for _, v := range n.Nights(e.Name) {
			for _, r := range v.Runs {
				fmt.Fprintln(h, r.ID, src.Identity(r.ID))
			}
		}
	}
	return string(h.Sum(nil)), nil
}

// running are the slots of an entry that are still to be run.
func (n *Nightly) running(e *Entry) map[int64]bool {
	out := map[int64]bool{}
	for _, d := range n.Due() {
		if d.Entry == e {
			out[d.At.Unix()] = true
		}
	}
	return out
}

// early reports whether a slot that nobody has begun may still be begun in time.
func (n *Nightly) early(at time.Time) bool {
	return n.cfg.Now().Sub(at) < 2*time.Minute+time.Duration(n.cfg.Schedule.Jitter)
}

// builder collects the series of one entry.
type builder struct {
	entry  *Entry
	from   *Reader
	series []regress.Series
	at     map[regress.Key]int
	first  map[[2]string]reference
}

// reference is the night that later ones are paired with.
type reference struct{ segment, run string }

func (b *builder) missing(at time.Time, why string) {
	for i := range b.series {
		b.series[i].Nights = append(b.series[i].Nights, regress.Night{Slot: at, Missing: why})
	}
}

// to returns tonight's night of a series, which is made where it is new.
func (b *builder) to(k regress.Key, lower bool, at time.Time, run, segment string) *regress.Night {
	i, ok := b.at[k]
	if !ok {
		i = len(b.series)
		b.at[k] = i
		b.series = append(b.series, regress.Series{Key: k, LowerIsBetter: lower})
	}
	s := &b.series[i]
	if len(s.Nights) == 0 || !s.Nights[len(s.Nights)-1].Slot.Equal(at) {
		s.Nights = append(s.Nights, regress.Night{Slot: at, Run: run, Segment: segment})
	}
	return &s.Nights[len(s.Nights)-1]
}

// night adds the results of a slot. Series that gave nothing tonight are missing.
func (b *builder) night(ctx context.Context, v Night) error {
	var failed []string
	for _, role := range []string{"candidate", "canary"} {
		for _, r := range v.Runs {
			if r.Role != role {
				continue
			}
			if r.Failed != "" {
				failed = append(failed, r.Failed)
				continue
			}
			d, err := b.from.digest(ctx, r.ID)
			if err == nil && role == "canary" {
				b.canary(d, v.Slot)
			} else if err == nil {
				err = b.candidate(ctx, d, v.Slot, r.ID)
			}
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, fs.ErrNotExist):
				failed = append(failed, "run "+r.ID+" committed no results")
			case err != nil:
				// One damaged file hides one night, not the others.
				failed = append(failed, err.Error())
			}
		}
	}
	why := cmp.Or(strings.Join(slices.Compact(failed), "; "), "the run gave no such number")
	for i := range b.series {
		s := &b.series[i]
		last := &s.Nights[len(s.Nights)-1]
		if !last.Slot.Equal(v.Slot) {
			s.Nights = append(s.Nights, regress.Night{Slot: v.Slot, Missing: why})
		}
	}
	return ctx.Err()
}

func (b *builder) candidate(ctx context.Context, d *digest, at time.Time, run string) error {
	for _, m := range d.speeds {
		k := m.key
		k.Suite = cmp.Or(k.Suite, b.entry.Name)
		n := b.to(k, m.lower, at, run, m.segment)
		n.Candidate = append(n.Candidate, m.value)
		n.Simulated = n.Simulated || m.simulated
	}
	for _, c := range d.compared {
		if n := b.to(c.key, false, at, run, c.segment); n.Paired == nil {
			n.Paired, n.Simulated = c.paired, c.simulated
		}
	}
	return b.against(ctx, d, at, run)
}

// against pairs every arm's answers with those of the first night of its segment.
func (b *builder) against(ctx context.Context, d *digest, at time.Time, run string) error {
	for _, a := range d.arms {
		name := [2]string{a.suite, a.arm}
		ref, ok := b.first[name]
		if !ok || ref.segment != a.segment {
			ref = reference{a.segment, run}
			b.first[name] = ref
		}
		paired, err := b.from.paired(ctx, run, ref.run, name)
		if err != nil {
			return err
		}
		if n := b.to(a.key, false, at, run, a.segment); n.Paired == nil {
			n.Paired, n.Simulated = paired, a.simulated
		}
	}
	return nil
}

func (b *builder) canary(d *digest, at time.Time) {
	for _, m := range d.speeds {
		for i := range b.series {
			s := &b.series[i]
			n := &s.Nights[len(s.Nights)-1]
			if n.Slot.Equal(at) && s.Key.Metric == m.key.Metric && s.Key.Task == m.key.Task && len(n.Candidate) > 0 {
				n.Canary = append(n.Canary, m.value)
			}
		}
	}
}

// speeds are the numbers of which it is known which way is better. Where there is
// one over all repetitions, it stands for them.
func speeds(rows []schema.MetricRow) []schema.MetricRow {
	whole := map[string]bool{}
	id := func(m schema.MetricRow) string {
		return strings.Join([]string{m.Suite, m.Task, m.Arm, m.PlanRun, m.Metric, m.SKU}, "\x00")
	}
	var out []schema.MetricRow
	for _, m := range rows {
		if !m.Value.Valid || !m.LowerIsBetter.Valid || m.Status != "ok" || !(m.Value.V > 0) {
			continue
		}
		if m.Repetition < 0 {
			whole[id(m)] = true
		}
		out = append(out, m)
	}
	return slices.DeleteFunc(out, func(m schema.MetricRow) bool { return m.Repetition >= 0 && whole[id(m)] })
}

// compared is a comparison of arms as a night.
func compared(c schema.ComparisonRow) *regress.Paired {
	p := c.PValue.V
	if !c.PValue.Valid || !(p >= 0 && p <= 1) {
		p = stat.McNemar(int(c.B.V), int(c.C.V), 1)
	}
	return &regress.Paired{Items: int(c.N.V), Diff: c.Diff.V, Lo: c.CILo.V, Hi: c.CIHi.V, P: p, Resolves: c.MDE.V}
}

// pair compares two sets of scores on the items that both have.
func pair(now, then map[string]float64) *regress.Paired {
	var n, lost, won, sum, squares float64
	for item, s := range now {
		t, ok := then[item]
		if !ok {
			continue
		}
		n++
		d := s - t
		sum += d
		squares += d * d
		switch {
		case d < 0:
			lost++
		case d > 0:
			won++
		}
	}
	if n == 0 {
		return &regress.Paired{P: 1, Resolves: 1}
	}
	mean := sum / n
	se := math.Sqrt(max(0, squares/n-mean*mean) / n)
	// With no discordant pairs at all, one would have been seen at a rate of 3/n.
	half := max(1.96*se, 3/n)
	return &regress.Paired{Items: int(n), Diff: mean, Lo: mean - half, Hi: mean + half, P: stat.McNemar(int(lost), int(won), 1), Resolves: max(2.8*se, 3/n)}
}

func serverOf(rows []schema.ServerRow, arm string) (out schema.ServerRow) {
	for _, r := range rows {
		if r.Arm == arm || len(rows) == 1 {
			return r
		}
	}
	return out
}

// segment is what a night ran on; a change of it opens a new segment.
func segment(s schema.ServerRow) string {
	return strings.Join([]string{s.Driver, s.Engine, s.EngineVersion, s.Image, s.Kernel, s.KVDtype, s.Revision}, "|")
}

// major is the engine with its major version; a minor one for versions below 1,
// where it stands for as much.
func major(s schema.ServerRow) string {
	parts := strings.SplitN(s.EngineVersion, ".", 3)
	v := parts[0]
	if v == "0" && len(parts) > 1 {
		v += "." + parts[1]
	}
	return strings.TrimSpace(s.Engine + " " + v)
}
