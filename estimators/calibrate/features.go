package calibrate

import (
	"math"
	"strconv"

	"github.com/repromill/repromill/estimators/serving"
	"github.com/repromill/repromill/estimators/sku"
)

// A coefficient of the time model is a sum of parameters times features: a
// general value, and what the generation of the GPU, the number format, the
// engine and the kind of model add. Each parameter is shrunk to a prior, so
// that what no row tells stays at what is known in general.

// feature is one term of the sum: parameter × x adds to coefficient.
type feature struct {
	param int
	coef  int
	x     float64
}

// param is one parameter with its prior.
type param struct {
	name string
	mean float64
	sd   float64
}

// design is the list of parameters of one fit: the general ones, and effects of
// what the rows are of, which are drawn from normal distributions around zero.
type design struct {
	list  []param
	index map[string]int
	base  map[baseKey][serving.NCoef][3]int // indices of the parameters that every configuration has, -1 where there is none
}

// baseKey is what the general parameters of a configuration depend on.
type baseKey struct {
	engine string
	arch   sku.Arch
}

// coefNames are the names of the coefficients in the order of the time model.
var coefNames = [serving.NCoef]string{"weights", "experts", "cache", "decode", "prefill", "attn", "layer", "sync", "link", "seq", "step", "request", "offset", "batch"}

// prepare looks the general parameters up once: an estimate needs some forty.
func (d *design) prepare() {
	d.base = map[baseKey][serving.NCoef][3]int{}
	find := func(name string) int {
		if i, ok := d.index[name]; ok {
			return i
		}
		return -1
	}
	for _, e := range engines {
		for _, a := range archs {
			var at [serving.NCoef][3]int
			for c, n := range coefNames {
				at[c] = [3]int{find(n), find(n + "." + e), find(n + "." + string(a))}
			}
			d.base[baseKey{e, a}] = at
		}
	}
}

func newDesign() *design {
	d := &design{index: map[string]int{}}
	for _, p := range priors() {
		d.add(p)
	}
	d.prepare()
	return d
}

func (d *design) add(p param) int {
	d.index[p.name] = len(d.list)
	d.list = append(d.list, p)
	return len(d.list) - 1
}

// effect is a random effect: an offset that rows of the same name share.
type effect struct {
	coef int
	name string
	sd   float64
}

func effects(p *point) [12]effect {
	return effectsOf(p.model, p.sku.ID, p.shape.Precision.String(), p.version)
}

func effectsOf(model, sku, precision, version string) [12]effect {
	cell := model + "|" + sku + "|" + precision + "|" + version
	return [12]effect{
		{serving.COffset, "model " + model, 0.15},
		{serving.COffset, "model-engine " + model + "|" + Engine(version), 0.12},
		{serving.COffset, "version " + version, 0.07},
		{serving.COffset, "sku " + sku, 0.1},
		{serving.COffset, "config " + model + "|" + sku + "|" + precision, 0.2},
		{serving.COffset, "cell " + cell, 0.35},
		{serving.CPrefill, "cell-prefill " + cell, 0.3},
		{serving.CLayer, "cell-layer " + cell, 0.15},
		{serving.CPrefill, "model-prefill " + model, 0.15},
		{serving.CLayer, "model-layer " + model, 0.2},
		{serving.CLayer, "version-layer " + version, 0.1},
		{serving.CPrefill, "version-prefill " + version, 0.2},
	}
}

// sizeKnots are where the curve of the offset over the size of a model bends: at
// 1, 4, 16, … billion active parameters.
const sizeKnots = 6

func sizeName(class string, knot int) string {
	return "offset.size." + class + "." + strconv.Itoa(knot)
}

// active is how many parameters a token multiplies with.
func active(s *serving.Shape) float64 {
	sum := 0.0
	for _, g := range s.Groups {
		sum += g.Active
	}
	return sum
}

// features are those of one configuration.
func (d *design) features(p *point) []feature {
	fs := make([]feature, 0, 96)
	add := func(coef int, name string, x float64) {
		if i, ok := d.index[name]; ok && x != 0 {
			fs = append(fs, feature{i, coef, x})
		}
	}
	s, g, t := p.shape, p.sku, &p.terms
	moe := flag(s.Experts > 0)
	f := math.Log(g.BF16.Value / 989)
	bw := math.Log(g.Bandwidth.Value / 3.35)
	for c, at := range d.base[baseKey{p.engine, g.Arch}] {
		for _, i := range at {
			if i >= 0 {
				fs = append(fs, feature{i, c, 1})
			}
		}
	}
	names := &coefNames
	for _, c := range []int{serving.CDecode, serving.CPrefill, serving.COffset, serving.CLayer} {
		add(c, names[c]+".fp8", t.ShareFP8)
		add(c, names[c]+".fp4", t.ShareFP4)
		add(c, names[c]+".w4a16", t.ShareW4A16)
	}
	add(serving.CWeights, "weights.fp8", t.BytesFP8)
	add(serving.CWeights, "weights.fp4", t.BytesFP4)
	add(serving.CExperts, "experts.fp4", t.BytesFP4)
	for _, c := range []int{serving.CDecode, serving.CPrefill, serving.CAttn} {
		add(c, names[c]+".flops", f)
	}
	for _, c := range []int{serving.CWeights, serving.CExperts, serving.CCache} {
		add(c, names[c]+".bw", bw)
	}
	for _, c := range []int{serving.CLayer, serving.CSync, serving.CPrefill, serving.CDecode, serving.COffset} {
		add(c, names[c]+".moe", moe)
	}
	modelFeatures(p, add)
	add(serving.COffset, "offset.dp", flag(p.layout.AttnDP))
	add(serving.COffset, "offset.ep", flag(p.layout.Expert && !p.layout.AttnDP))
	add(serving.COffset, "offset.moe."+p.engine, moe)
	add(serving.COffset, "offset.fp4."+p.engine, t.ShareFP4)
	add(serving.COffset, "offset.fp8."+p.engine, t.ShareFP8)
	add(serving.COffset, "offset."+string(g.Arch)+"."+p.engine, 1)
	if p.load.Offline() {
		add(serving.COffset, "offset.offline", 1)
		add(serving.COffset, "offset.offline."+p.engine, 1)
	}
	// Models of about the same size go together.
	at := math.Log2(max(active(s), 1e9)/1e9) / 2
	for k := range sizeKnots {
		add(serving.COffset, sizeName(classOf(p), k), max(0, 1-math.Abs(at-float64(k))))
	}
	for _, e := range effects(p) {
		add(e.coef, e.name, 1)
	}
	return fs
}

// modelFeatures are those of the kind of model and of its layout.
func modelFeatures(p *point, add func(coef int, name string, x float64)) {
	s, t := p.shape, &p.terms
	pcie := flag(p.sku.Fabric == "pcie") * flag(t.N > 1)
	logN := math.Log2(t.N)
	mla := flag(s.MLA)
	add(serving.CLayer, "layer.mla", mla)
	add(serving.CAttn, "attn.mla", mla)
	add(serving.CCache, "cache.mla", mla)
	add(serving.COffset, "offset.mla", mla)
	add(serving.CLayer, "layer.linear", s.Linear)
	add(serving.COffset, "offset.linear", s.Linear)
	add(serving.CLayer, "layer.hidden", math.Log(float64(s.Hidden)/5000))
	if t.N > 1 {
		add(serving.CSync, "sync.n", logN-1)
		add(serving.CPrefill, "prefill.n", logN)
		add(serving.CDecode, "decode.n", logN)
		add(serving.CWeights, "weights.n", logN)
	}
	add(serving.CSync, "sync.pcie", pcie)
	add(serving.CLink, "link.pcie", pcie)
	add(serving.CPrefill, "prefill.size", math.Log(float64(s.Hidden)/5000))
	add(serving.CDecode, "decode.size", math.Log(float64(s.Hidden)/5000))
	if s.Experts > 0 {
		add(serving.CExperts, "experts.sparse", math.Log(float64(s.Experts)/float64(max(1, s.Used))/16))
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// coef sums the features.
func coef(fs []feature, theta []float64) (c serving.Coef) {
	for _, f := range fs {
		c[f.coef] += theta[f.param] * f.x
	}
	return c
}

// learn adds the effects of the points and gives the points their features.
func (d *design) learn(ps []*point) {
	for _, p := range ps {
		for _, e := range effects(p) {
			if _, ok := d.index[e.name]; !ok && e.sd > 0 {
				d.add(param{e.name, 0, e.sd})
			}
		}
	}
	for _, p := range ps {
		p.feats = d.features(p)
	}
}

func (p *point) logPred(c *serving.Coef) float64 {
	t := p.terms.Run(p.load, c)
	return math.Log(t.Throughput)
}
