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
}

func newDesign() *design {
	d := &design{index: map[string]int{}}
	for _, p := range priors() {
		d.add(p)
	}
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

// priors are the parameters. Means of efficiencies are what tuned kernels reach
// on GPUs in general; a step of sd is what one sigma of doubt is worth.
func priors() []param {
	var out []param
	add := func(name string, mean, sd float64) { out = append(out, param{name, mean, sd}) }
	base := []struct {
		name     string
		mean, sd float64
	}{
		serving.CWeights: {"weights", math.Log(0.75), 0.3},
		serving.CExperts: {"experts", math.Log(0.6), 0.4},
		serving.CCache:   {"cache", math.Log(0.6), 0.4},
		serving.CDecode:  {"decode", math.Log(0.5), 0.4},
		serving.CPrefill: {"prefill", math.Log(0.5), 0.4},
		serving.CAttn:    {"attn", math.Log(0.4), 0.4},
		serving.CLayer:   {"layer", math.Log(30e-6), 0.5},
		serving.CSync:    {"sync", math.Log(20e-6), 0.5},
		serving.CLink:    {"link", math.Log(0.5), 0.5},
		serving.CSeq:     {"seq", math.Log(4 * 1e-6), 0.3},
		serving.CStep:    {"step", math.Log(0.25 * 1e-3), 0.35},
		serving.CRequest: {"request", math.Log(3 * 1e-3), 0.5},
		serving.COffset:  {"offset", 0, 0.1},
		serving.CBatch:   {"batch", math.Log(1000), 0.5},
	}
	for _, b := range base {
		add(b.name, b.mean, b.sd)
	}
	for _, e := range engines {
		for _, c := range []string{"layer", "step", "seq", "prefill", "decode", "request", "experts", "batch", "cache"} {
			add(c+"."+e, 0, 0.15)
		}
		add("offset."+e, 0, 0.05)
		add("offset.moe."+e, 0, 0.15)
		add("offset.offline."+e, 0, 0.2)
		add("offset.fp4."+e, 0, 0.15)
		add("offset.fp8."+e, 0, 0.15)
	}
	for _, a := range []sku.Arch{sku.Volta, sku.Ampere, sku.Ada, sku.Hopper, sku.Blackwell, sku.BlackwellRT} {
		for _, c := range []string{"weights", "experts", "cache", "decode", "prefill", "attn", "layer"} {
			add(c+"."+string(a), 0, 0.2)
		}
		add("offset."+string(a), 0, 0.1)
		for _, e := range engines {
			add("offset."+string(a)+"."+e, 0, 0.2)
		}
	}
	for _, f := range []string{"fp8", "fp4", "w4a16"} {
		add("decode."+f, map[string]float64{"fp8": -0.1, "fp4": -0.2, "w4a16": -0.3}[f], 0.3)
		add("prefill."+f, map[string]float64{"fp8": -0.1, "fp4": -0.2, "w4a16": -0.3}[f], 0.3)
		add("offset."+f, map[string]float64{"w4a16": 0}[f], 0.05)
		add("layer."+f, 0, 0.2)
	}
	add("weights.fp8", 0, 0.2)
	add("weights.fp4", 0, 0.2)
	add("experts.fp4", 0, 0.2)
	// The faster the chip beside its memory, the less of it is reached.
	add("decode.flops", 0, 0.1)
	add("prefill.flops", 0, 0.1)
	add("attn.flops", 0, 0.1)
	add("weights.bw", 0, 0.15)
	add("experts.bw", 0, 0.15)
	add("cache.bw", 0, 0.15)
	add("layer.moe", 0.4, 0.3)
	add("layer.mla", 0.2, 0.3)
	add("layer.linear", 0.2, 0.3)
	add("layer.hidden", 0, 0.2)
	add("sync.moe", 0, 0.3)
	add("sync.n", 0.2, 0.3)
	add("sync.pcie", 0.7, 0.5)
	add("prefill.moe", 0, 0.3)
	add("decode.moe", 0, 0.3)
	add("prefill.n", -0.1, 0.2)
	add("decode.n", 0, 0.2)
	add("weights.n", -0.05, 0.2)
	add("decode.size", 0, 0.2)
	add("prefill.size", 0.1, 0.1)
	add("attn.mla", 0, 0.3)
	add("cache.mla", 0, 0.3)
	add("experts.sparse", 0, 0.2)
	add("link.pcie", 0, 0.4)
	add("offset.dp", 0, 0.15)
	add("offset.ep", 0, 0.15)
	add("offset.moe", 0, 0.1)
	add("offset.linear", 0, 0.15)
	add("offset.mla", 0, 0.15)
	add("offset.offline", 0, 0.1)
	for k := range sizeKnots {
		add(sizeName("dense", k), 0, 0.25)
		add(sizeName("moe", k), 0, 0.2)
	}
	return out
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
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	moe := flag(s.Experts > 0)
	logN := math.Log2(t.N)
	f := math.Log(g.BF16.Value / 989)
	bw := math.Log(g.Bandwidth.Value / 3.35)
	pcie := flag(g.Fabric == "pcie") * flag(t.N > 1)
	names := [serving.NCoef]string{"weights", "experts", "cache", "decode", "prefill", "attn", "layer", "sync", "link", "seq", "step", "request", "offset", "batch"}
	for c, n := range names {
		add(c, n, 1)
		add(c, n+"."+p.engine, 1)
		add(c, n+"."+string(g.Arch), 1)
	}
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
