package model

import "strconv"

// mtp lists the layers that only propose further tokens.
func (b *builder) mtp() {
	c := b.c
	start := len(b.modules)
	switch {
	case c.NextN > 0 && c.KVRank > 0:
		for i := range int(c.NextN) {
			b.deepseekMTP(int(c.Layers) + i)
		}
	case c.MTPLayers > 0 && (b.f.builder == "gdn_split" || b.f.builder == "gdn_fused"):
		b.qwenMTP()
	case c.NextN > 0 || c.MTPLayers > 0 || c.MTPMods > 0:
		b.warn("mtp_not_counted", "the configuration names layers of multi-token prediction whose shape is not known for "+c.ModelType+"; they are not counted")
	}
	for i := start; i < len(b.modules); i++ {
		b.modules[i].Part = MTP
	}
}

// deepseekMTP is a whole layer after the last one, with its own copies of
// embedding and head (deepseek-ai/DeepSeek-V3 README_WEIGHTS.md).
func (b *builder) deepseekMTP(i int) {
	c := b.c
	name := b.f.prefix + "layers." + strconv.Itoa(i) + "."
	b.add(Module{Name: name + "embed_tokens", Layer: i, Out: int(c.Vocab), In: int(c.Hidden)})
	for _, n := range []string{"enorm", "hnorm", "shared_head.norm", "input_layernorm", "post_attention_layernorm"} {
		b.vector(MTP, i, name+n, c.Hidden)
	}
	b.add(Module{Name: name + "eh_proj", Layer: i, Out: int(c.Hidden), In: int(2 * c.Hidden)})
	b.add(Module{Name: name + "shared_head.head", Layer: i, Out: int(c.Vocab), In: int(c.Hidden)})
	b.mla(MTP, i, name+"self_attn.")
	b.feedForward(c.Experts > 0, i, name)
}

// qwenMTP shares embedding and head with the model.
func (b *builder) qwenMTP() {
	c := b.c
	b.add(Module{Name: "mtp.fc", Layer: -1, Out: int(c.Hidden), In: int(2 * c.Hidden)})
	for _, n := range []string{"mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.norm"} {
		b.vector(MTP, -1, n, c.Hidden)
	}
	for i := range int(c.MTPLayers) {
		name := "mtp.layers." + strconv.Itoa(i) + "."
		b.attention(MTP, i, name+"self_attn.", 0)
		b.feedForward(c.Experts > 0, i, name)
		b.vector(MTP, i, name+"input_layernorm", c.Hidden)
		b.vector(MTP, i, name+"post_attention_layernorm", c.Hidden)
	}
}

// vision lists a tower of the kind of Qwen3-VL and Qwen3.5.
func (b *builder) vision() {
	v := b.c.Vision
	if v == nil {
		return
	}
	switch v.ModelType {
	case "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_vision":
	default:
		b.warn("vision_not_counted", "the vision tower of type "+strconv.Quote(v.ModelType)+" is of an unknown shape and is not counted")
		return
	}
	const p = "model.visual."
	both := func(i int, name string, out, in count) {
		b.add(Module{Name: name, Part: Vision, Layer: i, Out: int(out), In: int(in), Bias: int(out), Linear: in > 1})
	}
	b.add(Module{
		Name: p + "patch_embed.proj", Part: Vision, Layer: -1, Out: int(v.Hidden),
		In: int(v.Channels * max(1, v.Temporal) * v.Patch * v.Patch), Bias: int(v.Hidden),
	})
	b.add(Module{Name: p + "pos_embed", Part: Vision, Layer: -1, Out: int(v.Positions), In: int(v.Hidden)})
	for i := range int(v.Depth) {
		name := p + "blocks." + strconv.Itoa(i) + "."
		both(i, name+"norm1", v.Hidden, 1)
		both(i, name+"norm2", v.Hidden, 1)
		both(i, name+"attn.qkv", 3*v.Hidden, v.Hidden)
		both(i, name+"attn.proj", v.Hidden, v.Hidden)
		both(i, name+"mlp.linear_fc1", v.Intermediate, v.Hidden)
		both(i, name+"mlp.linear_fc2", v.Hidden, v.Intermediate)
	}
	merged := v.Hidden * v.Merge * v.Merge
	merger := func(name string, norm count) {
		both(-1, name+"norm", norm, 1)
		both(-1, name+"linear_fc1", merged, merged)
		both(-1, name+"linear_fc2", v.Out, merged)
	}
	merger(p+"merger.", v.Hidden)
	for i := range v.Deepstack {
		merger(p+"deepstack_merger_list."+strconv.Itoa(i)+".", merged)
	}
}
