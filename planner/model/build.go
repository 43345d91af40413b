package model

import "strconv"

// builder lists the modules of a model and its cache.
type builder struct {
	c       *raw
	f       family
	modules []Module
	cache   Cache
	total   float64 // of parameters, to notice absurd sizes before they overflow
	warn    func(code, message string)
}

func (b *builder) add(m Module) {
	b.total += float64(m.copies()) * (float64(m.Out)*float64(m.In) + float64(m.Bias))
	if b.total <= maxParams {
		b.modules = append(b.modules, m)
	}
}

// linear adds a matrix product, with one bias per output where bias is set.
func (b *builder) linear(part Part, layer int, name string, out, in count, bias bool) {
	m := Module{Name: name, Part: part, Layer: layer, Out: int(out), In: int(in), Linear: true}
	if bias {
		m.Bias = int(out)
	}
	b.add(m)
}

// vector adds a norm or another small weight of n elements.
func (b *builder) vector(part Part, layer int, name string, n count) {
	b.add(Module{Name: name, Part: part, Layer: layer, Out: int(n), In: 1})
}

// text lists the text model.
func (b *builder) text() {
	c, p := b.c, b.f.prefix
	embed, norm := p+"embed_tokens", p+"norm"
	if b.f.builder == "nemotron_h" {
		embed, norm = p+"embeddings", p+"norm_f"
	}
	b.add(Module{Name: embed, Part: Embedding, Layer: -1, Out: int(c.Vocab), In: int(c.Hidden)})
	for i := range int(c.Layers) {
		if b.total > maxParams {
			return
		}
		if b.f.builder == "nemotron_h" {
			b.nemotronLayer(i)
		} else {
			b.layer(i)
		}
	}
	b.vector(Norm, -1, norm, c.Hidden)
	tied := b.f.tied
	if c.TieEmbeddings != nil {
		tied = *c.TieEmbeddings
	}
	if !tied {
		b.linear(Head, -1, "lm_head", c.Vocab, c.Hidden, false)
	}
}

// layer lists one decoder layer.
func (b *builder) layer(i int) {
	name := b.f.prefix + "layers." + strconv.Itoa(i) + "."
	switch kind := b.attentionKind(i); {
	case kind == "linear":
		b.deltaNet(i, name+"linear_attn.")
	case b.c.KVRank > 0:
		b.mla(Attention, i, name+"self_attn.")
	default:
		window := 0
		if kind == "sliding" {
			window = int(b.c.SlidingWindow)
		}
		b.attention(Attention, i, name+"self_attn.", window)
	}
	b.feedForward(b.hasExperts(i), i, name)
	for _, n := range []string{"input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"}[:b.f.layerNorms] {
		b.vector(Norm, i, name+n, b.c.Hidden)
	}
}

// attentionKind is full, sliding or linear.
func (b *builder) attentionKind(i int) string {
	c := b.c
	if i < len(c.LayerTypes) {
		switch t := c.LayerTypes[i]; t {
		case "linear_attention":
			return "linear"
		case "sliding_attention", "chunked_attention":
			if c.SlidingWindow > 0 {
				return "sliding"
			}
			return "full"
		default:
			return "full"
		}
	}
	switch {
	case c.LinearValueHeads > 0:
		if (i+1)%int(c.FullInterval) != 0 {
			return "linear"
		}
		return "full"
	case c.SlidingWindow == 0:
		return "full"
	case c.SlidingPattern > 0 && (i+1)%int(c.SlidingPattern) == 0:
		return "full"
	case c.ModelType == "gemma2" && i%2 == 1:
		return "full"
	case c.UseSliding != nil && i < int(c.MaxWindowLayers):
		return "full" // Qwen2 and Qwen3: the layers above max_window_layers slide
	}
	return "sliding"
}

func (b *builder) attention(part Part, i int, name string, window int) {
	c := b.c
	q, kv := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	bias := c.AttentionBias || b.f.qkvBias
	if c.QKVBias != nil {
		bias = *c.QKVBias
	}
	rows := q
	if c.OutputGate || b.f.gated {
		rows *= 2 // the gate comes out of the same product
	}
	if b.f.builder == "phi3" {
		b.linear(part, i, name+"qkv_proj", q+2*kv, c.Hidden, false)
	} else {
		b.linear(part, i, name+"q_proj", rows, c.Hidden, bias)
		b.linear(part, i, name+"k_proj", kv, c.Hidden, bias)
		b.linear(part, i, name+"v_proj", kv, c.Hidden, bias)
	}
	b.linear(part, i, name+"o_proj", c.Hidden, q, c.AttentionBias && !b.f.plainOut)
	if b.f.builder == "gpt_oss" {
		b.vector(part, i, name+"sinks", c.Heads)
	}
	if b.f.qkNorm != noQKNorm && (!b.f.qkNormFlag || c.UseQKNorm) {
		nq, nk := c.HeadDim, c.HeadDim
		if b.f.qkNorm == layerNorm {
			nq, nk = q, kv
		}
		b.vector(Norm, i, name+"q_norm", nq)
		b.vector(Norm, i, name+"k_norm", nk)
	}
	if part == Attention {
		b.keep(KVGroup{Kind: "gqa", Layers: 1, Elements: int(2 * kv), Heads: int(c.KVHeads), Window: window})
	}
}

// mla lists multi-head latent attention, which caches one compressed vector and
// one rotary key per token, whatever the number of heads.
func (b *builder) mla(part Part, i int, name string) {
	c := b.c
	if c.QRank > 0 {
		b.linear(part, i, name+"q_a_proj", c.QRank, c.Hidden, c.AttentionBias)
		b.vector(Norm, i, name+"q_a_layernorm", c.QRank)
		b.linear(part, i, name+"q_b_proj", c.Heads*(c.NopeDim+c.RopeDim), c.QRank, false)
	} else {
		b.linear(part, i, name+"q_proj", c.Heads*(c.NopeDim+c.RopeDim), c.Hidden, false)
	}
	b.linear(part, i, name+"kv_a_proj_with_mqa", c.KVRank+c.RopeDim, c.Hidden, c.AttentionBias)
	b.vector(Norm, i, name+"kv_a_layernorm", c.KVRank)
	b.linear(part, i, name+"kv_b_proj", c.Heads*(c.NopeDim+c.VDim), c.KVRank, false)
	b.linear(part, i, name+"o_proj", c.Hidden, c.Heads*c.VDim, c.AttentionBias)
	group := KVGroup{Kind: "mla", Layers: 1, Elements: int(c.KVRank + c.RopeDim), Reads: int(c.IndexTopK)}
	if c.IndexHeads > 0 {
		// DeepSeek's sparse attention: a small second attention picks the tokens.
		b.linear(part, i, name+"indexer.wq_b", c.IndexHeads*c.IndexDim, c.QRank, false)
		b.linear(part, i, name+"indexer.wk", c.IndexDim, c.Hidden, false)
		b.add(Module{Name: name + "indexer.k_norm", Part: Norm, Layer: i, Out: int(c.IndexDim), In: 1, Bias: int(c.IndexDim)})
		b.linear(part, i, name+"indexer.weights_proj", c.IndexHeads, c.Hidden, false)
	}
	if part == Attention {
		b.keep(group)
		if c.IndexHeads > 0 {
			b.keep(KVGroup{Kind: "indexer", Layers: 1, Elements: int(c.IndexDim)})
		}
	}
}

// deltaNet lists a gated delta network: linear attention with a fixed state.
func (b *builder) deltaNet(i int, name string) {
	c := b.c
	keys, values := c.LinearKeyHeads*c.LinearKeyDim, c.LinearValueHeads*c.LinearValueDim
	if b.f.builder == "gdn_fused" {
		b.linear(LinearAttn, i, name+"in_proj_qkvz", 2*keys+2*values, c.Hidden, false)
		b.linear(LinearAttn, i, name+"in_proj_ba", 2*c.LinearValueHeads, c.Hidden, false)
	} else {
		b.linear(LinearAttn, i, name+"in_proj_qkv", 2*keys+values, c.Hidden, false)
		b.linear(LinearAttn, i, name+"in_proj_z", values, c.Hidden, false)
		b.linear(LinearAttn, i, name+"in_proj_a", c.LinearValueHeads, c.Hidden, false)
		b.linear(LinearAttn, i, name+"in_proj_b", c.LinearValueHeads, c.Hidden, false)
	}
	b.add(Module{Name: name + "conv1d", Part: LinearAttn, Layer: i, Out: int(2*keys + values), In: int(c.LinearConvKernel)})
	b.vector(LinearAttn, i, name+"A_log", c.LinearValueHeads)
	b.vector(LinearAttn, i, name+"dt_bias", c.LinearValueHeads)
	b.vector(Norm, i, name+"norm", c.LinearValueDim)
	b.linear(LinearAttn, i, name+"out_proj", c.Hidden, values, false)
	b.keepState(StateGroup{
		Kind: "gated_delta_net", Layers: 1, DType: b.stateDType(), Heads: int(c.LinearValueHeads),
		Recurrent: int(c.LinearValueHeads * c.LinearKeyDim * c.LinearValueDim),
		Conv:      int((2*keys + values) * max(0, c.LinearConvKernel-1)),
	})
}

func (b *builder) stateDType() string {
	if b.c.StateDType != "" {
		return b.c.StateDType
	}
	return "float32"
}

// hasExperts tells whether a layer's feed-forward is a mixture.
func (b *builder) hasExperts(i int) bool {
	c := b.c
	if c.Experts == 0 || i < int(c.FirstDense) {
		return false
	}
	for _, dense := range c.MLPOnly {
		if int(dense) == i {
			return false
		}
	}
	if c.SparseStep > 1 && (i+1)%int(c.SparseStep) != 0 {
		return false
	}
	return c.MoEFreq <= 1 || i%int(c.MoEFreq) == 0
}

func (b *builder) feedForward(experts bool, i int, layer string) {
	c := b.c
	switch {
	case !experts && b.f.builder == "phi3":
		b.linear(MLP, i, layer+"mlp.gate_up_proj", 2*c.Intermediate, c.Hidden, false)
		b.linear(MLP, i, layer+"mlp.down_proj", c.Hidden, c.Intermediate, false)
	case !experts:
		b.gated(MLP, i, layer+"mlp.", c.Intermediate)
	case b.f.builder == "gpt_oss":
		b.add(Module{Name: layer + "mlp.router", Part: Router, Layer: i, Out: int(c.Experts), In: int(c.Hidden), Bias: int(c.Experts)})
		b.expert(i, layer+"mlp.experts.gate_up_proj", 2*c.MoEIntermediate, c.Hidden, int(2*c.MoEIntermediate))
		b.expert(i, layer+"mlp.experts.down_proj", c.Hidden, c.MoEIntermediate, int(c.Hidden))
	default:
		b.mixture(i, layer+b.f.moe+".")
	}
}

// gated lists a gated feed-forward of three products.
func (b *builder) gated(part Part, i int, name string, inner count) {
	bias := b.c.MLPBias
	b.linear(part, i, name+swiglu[0], inner, b.c.Hidden, bias)
	b.linear(part, i, name+swiglu[1], inner, b.c.Hidden, bias)
	b.linear(part, i, name+swiglu[2], b.c.Hidden, inner, bias)
}

func (b *builder) expert(i int, name string, out, in count, bias int) {
	b.add(Module{
		Name: name, Part: Expert, Layer: i, Out: int(out), In: int(in), Bias: bias, Linear: true,
		Copies: int(b.c.Experts), Active: int(b.c.ExpertsPerToken),
	})
}

// mixture lists router, routed experts and shared expert of a layer.
func (b *builder) mixture(i int, name string) {
	c := b.c
	router := Module{Name: name + "gate", Part: Router, Layer: i, Out: int(c.Experts), In: int(c.Hidden)}
	if c.TopKMethod == "noaux_tc" || c.RoutingBias || c.ModelType == "minimax_m2" || c.ModelType == "glm4_moe" {
		router.Bias = int(c.Experts) // e_score_correction_bias
	}
	b.add(router)
	b.expert(i, name+"experts.*."+b.f.experts[0], c.MoEIntermediate, c.Hidden, 0)
	b.expert(i, name+"experts.*."+b.f.experts[1], c.MoEIntermediate, c.Hidden, 0)
	b.expert(i, name+"experts.*."+b.f.experts[2], c.Hidden, c.MoEIntermediate, 0)
	shared := c.SharedIntermediate
	if shared == 0 {
		shared = c.SharedExperts * c.MoEIntermediate
	}
	if shared == 0 || b.f.shared == "" {
		return
	}
	b.gated(SharedExpert, i, name+b.f.shared+".", shared)
	if b.f.sharedOut {
		b.linear(SharedExpert, i, name+"shared_expert_gate", 1, c.Hidden, false)
	}
}

// nemotronLayer lists a layer of Nemotron-H: one norm and one mixer, which is a
// Mamba-2 (M), an attention (*), a feed-forward (-) or a mixture (E).
func (b *builder) nemotronLayer(i int) {
	c := b.c
	name := b.f.prefix + "layers." + strconv.Itoa(i) + "."
	b.vector(Norm, i, name+"norm", c.Hidden)
	name += "mixer."
	switch kind := c.HybridPattern[i]; kind {
	case 'M':
		b.mamba(i, name)
	case '*':
		b.attention(Attention, i, name, 0)
	case '-':
		b.linear(MLP, i, name+"up_proj", c.Intermediate, c.Hidden, c.MLPBias)
		b.linear(MLP, i, name+"down_proj", c.Hidden, c.Intermediate, c.MLPBias)
	case 'E':
		b.add(Module{Name: name + "gate", Part: Router, Layer: i, Out: int(c.Experts), In: int(c.Hidden), Bias: int(c.Experts)})
		b.expert(i, name+"experts.*.up_proj", c.MoEIntermediate, c.Hidden, 0)
		b.expert(i, name+"experts.*.down_proj", c.Hidden, c.MoEIntermediate, 0)
		if shared := c.MoEShared * max(1, c.SharedExperts); shared > 0 {
			b.linear(SharedExpert, i, name+"shared_experts.up_proj", shared, c.Hidden, false)
			b.linear(SharedExpert, i, name+"shared_experts.down_proj", c.Hidden, shared, false)
		}
	default:
		b.warn("unknown_layer", "layer "+strconv.Itoa(i)+" is of the unknown kind "+strconv.QuoteRune(rune(kind))+" and was not counted")
	}
}

func (b *builder) mamba(i int, name string) {
	c := b.c
	inner := c.MambaHeads * c.MambaHeadDim
	conv := inner + 2*c.MambaGroups*c.MambaState
	b.linear(Mamba, i, name+"in_proj", inner+conv+c.MambaHeads, c.Hidden, false)
	m := Module{Name: name + "conv1d", Part: Mamba, Layer: i, Out: int(conv), In: int(c.MambaConv)}
	if c.MambaConvBias == nil || *c.MambaConvBias {
		m.Bias = int(conv)
	}
	b.add(m)
	for _, n := range []string{"A_log", "D", "dt_bias"} {
		b.vector(Mamba, i, name+n, c.MambaHeads)
	}
	b.vector(Norm, i, name+"norm", inner)
	b.linear(Mamba, i, name+"out_proj", c.Hidden, inner, false)
	b.keepState(StateGroup{
		Kind: "mamba2", Layers: 1, DType: b.stateDType(), Heads: int(c.MambaHeads),
		Recurrent: int(c.MambaHeads * c.MambaHeadDim * c.MambaState),
		Conv:      int(conv * max(0, c.MambaConv-1)),
	})
}

// keep adds a layer's cache to the group of its kind.
func (b *builder) keep(g KVGroup) {
	for i := range b.cache.KV {
		k := &b.cache.KV[i]
		same := g
		same.Layers = k.Layers
		if *k == same {
			k.Layers++
			return
		}
	}
	b.cache.KV = append(b.cache.KV, g)
}

func (b *builder) keepState(g StateGroup) {
	if g.Recurrent > maxState || g.Conv > maxState {
		b.total = 2 * maxParams
	}
	for i := range b.cache.States {
		s := &b.cache.States[i]
		same := g
		same.Layers = s.Layers
		if *s == same {
			s.Layers++
			return
		}
	}
	b.cache.States = append(b.cache.States, g)
}
