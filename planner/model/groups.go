package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Group is the weights of one part of a model that are stored in the same way.
type Group struct {
	Part    Part   `json:"part"`
	Weights Format `json:"weights"`
	Algo    string `json:"algo,omitempty"`
	Block   string `json:"block,omitempty"` // what shares a scale: 1x16, 128x128, channel, tensor
	Math    string `json:"math"`            // what the metadata asks for
	Modules int64  `json:"modules"`         // experts counted one by one
	Params  int64  `json:"params"`
	Bytes   int64  `json:"bytes,omitempty"` // with scales; 0 where the format is not known

	scheme *Scheme
}

// On is what the modules of a group run as; see [Scheme.On].
func (g *Group) On(capability int) Path { return g.scheme.On(capability) }

// Quantised tells whether the group has fewer than 16 bits.
func (g *Group) Quantised() bool { return g.scheme != nil }

// Groups lists the formats by part, text model first, as the headers have them
// where they were read and as the configuration states them otherwise.
func (k *Known) Groups() []Group {
	var list groupList
	m := k.Model
	if k.Census == nil {
		known := m.Quant != nil || !m.hasWarning("format_unknown")
		for i := range m.Modules {
			mod := &m.Modules[i]
			s := m.Quant.Of(mod)
			g := Group{Part: mod.Part, Weights: m.DType, Modules: mod.copies(), Params: mod.Params(), scheme: s}
			switch {
			case !known && mod.Linear:
				g.Weights, g.scheme = FormatUnknown, &Scheme{Weights: FormatUnknown}
			case s != nil:
				g.Weights, g.Bytes = s.Weights, moduleBytes(mod, s, m.DType)
			default:
				g.Bytes = moduleBytes(mod, nil, m.DType)
			}
			list.add(g)
		}
		return list.sorted()
	}
	modules := map[string]*Module{}
	for i := range m.Modules {
		modules[plainName(m.Modules[i].Name)] = &m.Modules[i]
	}
	for i := range k.Census.Stored {
		s := &k.Census.Stored[i]
		g := Group{Part: PartOf(s.Name), Weights: s.Format, Modules: 1, Params: s.Params, Bytes: s.Bytes}
		mod := modules[plainName(strings.TrimSuffix(starred(s.Name), ".weight"))]
		if mod != nil {
			g.Part = mod.Part
			g.scheme = m.Quant.Of(mod)
		}
		if formatBits(s.Format) < 16 && (g.scheme == nil || g.scheme.Weights != s.Format) {
			// The tensors say what the metadata do not.
			g.scheme = &Scheme{Weights: s.Format, Rows: s.Rows, Cols: s.Cols, Activations: FormatUnknown}
		} else if formatBits(s.Format) >= 16 {
			g.scheme = nil
		}
		list.add(g)
	}
	return list.sorted()
}

type groupList struct {
	groups []Group
	index  map[Group]int
}

func (l *groupList) add(g Group) {
	if g.Math = g.scheme.Math(); g.scheme != nil {
		g.Algo, g.Block = g.scheme.Algo, g.scheme.block()
	}
	key := Group{Part: g.Part, Weights: g.Weights, Algo: g.Algo, Block: g.Block, Math: g.Math}
	at, ok := l.index[key]
	if !ok {
		if l.index == nil {
			l.index = map[Group]int{}
		}
		at = len(l.groups)
		l.index[key] = at
		key.scheme = g.scheme
		l.groups = append(l.groups, key)
	}
	s := &l.groups[at]
	s.Modules, s.Params, s.Bytes = s.Modules+g.Modules, s.Params+g.Params, s.Bytes+g.Bytes
}

var partOrder = []Part{Embedding, Attention, LinearAttn, Mamba, MLP, Expert, SharedExpert, Router, Norm, Head, MTP, Vision}

func (l *groupList) sorted() []Group {
	slices.SortStableFunc(l.groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(slices.Index(partOrder, a.Part), slices.Index(partOrder, b.Part)), cmp.Compare(b.Params, a.Params))
	})
	return l.groups
}

func (s *Scheme) block() string {
	switch {
	case s == nil || s.Weights == FormatUnknown:
		return ""
	case s.Rows > 0 && s.Cols > 0:
		return fmt.Sprintf("%dx%d", s.Rows, s.Cols)
	case s.Rows == 1:
		return "channel"
	}
	return "tensor"
}

// plainName is a name without what frameworks put before the layers, so that
// the weights of a model and of its base find each other.
func plainName(name string) string {
	for _, p := range []string{"model.language_model.", "language_model.model.", "language_model.", "backbone.", "model."} {
		if rest, ok := strings.CutPrefix(name, p); ok {
			return rest
		}
	}
	return name
}

// starred replaces the number of an expert by a star.
func starred(name string) string {
	const experts = ".experts."
	at := strings.Index(name, experts)
	if at < 0 {
		return name
	}
	rest := name[at+len(experts):]
	number, tail, ok := strings.Cut(rest, ".")
	if _, err := strconv.Atoi(number); err != nil || !ok {
		return name
	}
	return name[:at+len(experts)] + "*." + tail
}

// Place is where a weight stands: its decoder layer and expert, -1 where there
// is none, and its role, the last part of its name.
func Place(name string) (layer, expert int, role string) {
	layer, expert = -1, -1
	parts := strings.Split(strings.TrimSuffix(name, ".weight"), ".")
	for i, p := range parts[:len(parts)-1] {
		n, err := strconv.Atoi(parts[i+1])
		if err != nil || n < 0 {
			continue
		}
		switch p {
		case "layers", "h", "blocks":
			layer = n
		case "experts":
			expert = n
		}
	}
	return layer, expert, parts[len(parts)-1]
}

// PartOf guesses the part of a weight that the configuration does not describe
// from its name.
func PartOf(name string) Part {
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
	}
	_, _, role := Place(name)
	switch {
	case has("visual.", "vision", "merger", "image_"):
		return Vision
	case strings.HasPrefix(name, "mtp.") || has(".mtp."):
		return MTP
	case has("embed_tokens", "embeddings", "wte"):
		return Embedding
	case has("lm_head"):
		return Head
	case has("norm"):
		return Norm
	case has("shared_expert"):
		return SharedExpert
	case has(".experts"):
		return Expert
	case role == "gate" || role == "router" || has(".router.", ".gate."):
		return Router
	case has("linear_attn"):
		return LinearAttn
	case has("attn"):
		return Attention
	case has("mamba") || role == "A_log" || role == "conv1d" || role == "dt_bias" || role == "D":
		return Mamba
	}
	return MLP
}

// format checks "quantised to NVFP4": whether all that is quantised is in the
// format, and whether it is computed in it.
func (k *Known) format(r *Check) {
	want := map[string]Format{
		"NVFP4": FormatNVFP4, "FP4": FormatNVFP4, "MXFP4": FormatMXFP4, "MXFP8": FormatMXFP8, "FP8": FormatFP8,
		"INT8": FormatINT8, "W8A8": FormatINT8, "INT4": FormatINT4, "W4A16": FormatINT4,
	}[strings.ToUpper(r.Word)]
	var all, as, weightOnly int64
	var parts []string
	for _, g := range k.Groups() {
		if !g.Quantised() {
			continue
		}
		if g.Weights == FormatUnknown {
			r.Verdict, r.Reason = "not_checkable", "the format is not known from the configuration alone"
			return
		}
		all += g.Modules
		if g.Weights == want || r.Word == "W8A8" && g.Weights == FormatFP8 {
			as += g.Modules
			if strings.HasSuffix(g.Math, "a16") {
				weightOnly += g.Modules
			}
		}
		parts = append(parts, fmt.Sprintf("%s: %d modules %s (%s)", g.Part, g.Modules, g.Weights, g.Math))
	}
	r.Measured = strings.Join(parts, ", ")
	switch {
	case all == 0:
		r.Verdict, r.Measured = "inconclusive", "no module is quantised"
	case as == all && (weightOnly == 0 || !strings.Contains(r.Text, "activations")):
		r.Verdict = "aligned"
	case as == 0:
		r.Verdict, r.Reason = "inconclusive", "no module is in "+string(want)
	case as < all:
		r.Verdict, r.Reason = "partially_aligned", fmt.Sprintf("%d of %d quantised modules are in %s", as, all, want)
	default:
		r.Verdict = "partially_aligned"
	}
	if weightOnly > 0 {
		r.Reason = strings.TrimPrefix(r.Reason+fmt.Sprintf("; %d of them are quantised in their weights only: activations stay at 16 bits", weightOnly), "; ")
	}
}

// layers checks "only the linear operators within transformer blocks".
func (k *Known) layers(r *Check) {
	var inside, outside, left int64
	for _, g := range k.Groups() {
		if g.Weights == FormatUnknown {
			r.Verdict, r.Reason = "not_checkable", "the format is not known from the configuration alone"
			return
		}
		switch g.Part {
		case Attention, LinearAttn, Mamba, MLP, Expert, SharedExpert:
			if g.Quantised() {
				inside += g.Modules
			} else {
				left += g.Params
			}
		default:
			if g.Quantised() {
				outside += g.Modules
			}
		}
	}
	r.Measured = fmt.Sprintf("%d modules within the blocks and %d outside of them are quantised; %s parameters within the blocks are not", inside, outside, billions(left))
	switch {
	case inside == 0:
		r.Verdict, r.Reason = "inconclusive", "no module within the blocks is quantised"
	case outside > 0:
		r.Verdict, r.Reason = "partially_aligned", "modules outside of the blocks are quantised too"
	default:
		r.Verdict = "aligned"
	}
}
