package calibrate

import (
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/model"
)

// Configs are the configurations that rows are matched with.
type Configs struct{ models []*model.Model }

// ReadConfigs reads every *.json of a folder, named OWNER--NAME.config.json or
// anything else. A file that is no configuration is an error.
func ReadConfigs(dir fs.FS) (*Configs, error) {
	names, err := fs.Glob(dir, "*.json")
	if err != nil {
		return nil, fmt.Errorf("list configurations: %w", err)
	}
	slices.Sort(names)
	c := &Configs{}
	for _, name := range names {
		b, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read configuration: %w", err)
		}
		id := strings.TrimSuffix(strings.TrimSuffix(path.Base(name), ".json"), ".config")
		m, err := model.Parse(model.Input{ID: strings.Replace(id, "--", "/", 1), Config: b})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c.models = append(c.models, m)
	}
	return c, nil
}

// Add adds a configuration.
func (c *Configs) Add(m *model.Model) { c.models = append(c.models, m) }

// Has reports whether there is a configuration of a model by its id.
func (c *Configs) Has(id string) bool {
	return slices.ContainsFunc(c.models, func(m *model.Model) bool { return strings.EqualFold(m.ID, id) })
}

// find returns the configuration that a row means: by its structure where the
// row states it, and by its name otherwise. Among several, the one whose own
// format is the row's.
func (c *Configs) find(r *Row, p serving.Precision) *model.Model {
	type hit struct {
		m     *model.Model
		score float64
	}
	var hits []hit
	for _, m := range c.models {
		score := nameScore(r.Model, m.ID)
		if strings.EqualFold(r.Model, m.ID) {
			score = 5
		}
		switch {
		case r.Layers > 0 && r.Hidden > 0:
			if m.Layers != r.Layers || m.Hidden != r.Hidden || (r.TotalB > 0 && math.Abs(r.TotalB*1e9/float64(m.Params.Total)-1) > 0.03) {
				continue
			}
		case score < 0.6:
			continue
		}
		for _, f := range m.Formats {
			if f.Algo != "" && f.Weights == p.Weights {
				score += 2
			}
		}
		if len(m.Formats) == 0 {
			score -= 0.5
		}
		hits = append(hits, hit{m, score})
	}
	if len(hits) == 0 {
		return nil
	}
	return slices.MaxFunc(hits, func(a, b hit) int { return cmp.Compare(a.score, b.score) }).m
}

// nameScore is the share of the words of a row's model that an id has.
func nameScore(row, id string) float64 {
	_, name, ok := strings.Cut(id, "/")
	if !ok {
		name = id
	}
	have := nameWords(name)
	want := nameWords(row)
	if len(want) == 0 {
		return 0
	}
	n := 0
	for _, w := range want {
		if slices.Contains(have, w) {
			n++
		}
	}
	return float64(n) / float64(len(want))
}

func nameWords(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.'
	})
}

// shapeOf is the shape of a row's model. Without a configuration it is a plain
// decoder of the size that the row states.
func (c *Configs) shapeOf(r *Row) (*serving.Shape, error) {
	p, err := serving.ParsePrecision(r.Precision)
	if err != nil {
		return nil, err
	}
	if m := c.find(r, p); m != nil {
		return serving.NewShape(m, p)
	}
	if r.Layers == 0 || r.Hidden == 0 || r.TotalB == 0 || r.KVHeads == 0 || r.HeadDim == 0 {
		return nil, &serving.InputError{Problem: fmt.Sprintf("no configuration is %q, and its row does not state its size", r.Model),
			Fix: "put the model's config.json into the folder of --configs, or fill total_params_b, layers, hidden, kv_heads and head_dim"}
	}
	return serving.PlainShape(serving.Plain{
		Name: r.Model, Layers: r.Layers, Hidden: r.Hidden, KVHeads: r.KVHeads, HeadDim: r.HeadDim, Total: r.TotalB * 1e9, Active: r.ActiveB * 1e9,
	}, p), nil
}

// point is a row made ready for the time model.
type point struct {
	row     *Row
	shape   *serving.Shape
	sku     *sku.SKU
	layout  serving.Layout
	load    serving.Workload
	terms   serving.Terms
	feats   []feature
	model   string // structure, for telling models apart whatever they are called
	engine  string
	version string
	y       float64 // log of the measured throughput
}

// layoutOf reads the parallelism of a row.
func layoutOf(r *Row) serving.Layout {
	p := strings.ToLower(r.Parallel)
	l := serving.Layout{GPUs: r.GPUs, TP: min(r.TP, r.GPUs)}
	l.AttnDP = p == "dep" || strings.Contains(p, "attndp") || strings.Contains(p, "attention_dp")
	l.Expert = l.AttnDP || strings.Contains(p, "ep")
	if l.AttnDP {
		l.TP = 1
	}
	return l
}

// resolve prepares the rows. All that it reads of a row's target goes into y.
func resolve(rows []Row, c *Configs) ([]*point, error) {
	type shapeKey struct {
		model, precision string
		layers, hidden   int
		total            float64
	}
	shapes := map[shapeKey]*serving.Shape{}
	gpus := map[string]*sku.SKU{}
	out := make([]*point, 0, len(rows))
	for i := range rows {
		r := &rows[i]
		key := shapeKey{r.Model, r.Precision, r.Layers, r.Hidden, r.TotalB}
		s := shapes[key]
		if s == nil {
			var err error
			if s, err = c.shapeOf(r); err != nil {
				return nil, rowError(r, err)
			}
			shapes[key] = s
		}
		g := gpus[r.SKU]
		if g == nil {
			var err error
			if g, err = sku.Find(r.SKU); err != nil {
				return nil, rowError(r, err)
			}
			gpus[r.SKU] = g
		}
		p := newPoint(s, g, layoutOf(r), serving.Workload{ISL: r.ISL, OSL: r.OSL, Concurrency: r.Concurrency}, r.Framework)
		p.row, p.y = r, math.Log(r.Throughput)
		out = append(out, p)
	}
	return out, nil
}

func newPoint(s *serving.Shape, g *sku.SKU, l serving.Layout, w serving.Workload, framework string) *point {
	p := &point{shape: s, sku: g, layout: l, load: w, engine: Engine(framework), terms: serving.NewTerms(s, g, l)}
	b := make([]byte, 0, 32)
	b = append(strconv.AppendInt(b, int64(s.Layers), 10), '/')
	b = append(strconv.AppendInt(b, int64(s.Hidden), 10), '/')
	b = append(strconv.AppendInt(b, int64(s.Experts), 10), '/')
	p.model = string(strconv.AppendFloat(b, s.Total, 'g', 3, 64))
	p.version = strings.ToLower(framework)
	return p
}

func rowError(r *Row, err error) error { return fmt.Errorf("line %d: %w", r.Line, err) }
