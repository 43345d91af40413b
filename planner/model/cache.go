package model

// Cache is what a sequence keeps in memory: keys and values that grow with it,
// and states that do not.
type Cache struct {
	KV     []KVGroup    `json:"kv,omitempty"`
	States []StateGroup `json:"states,omitempty"`
}

// KVGroup is the cache of layers of the same kind.
type KVGroup struct {
	Kind     string `json:"kind"` // gqa|mla|indexer
	Layers   int    `json:"layers"`
	Elements int    `json:"elements"`         // per token and layer, keys and values together
	Heads    int    `json:"heads,omitempty"`  // KV heads; 0 where the cache has none to divide over GPUs
	Window   int    `json:"window,omitempty"` // tokens that are kept at most; 0 means all
	Reads    int    `json:"reads,omitempty"`  // tokens that a step reads at most (sparse attention); 0 means all
}

// StateGroup is the fixed state of layers of the same kind.
type StateGroup struct {
	Kind   string `json:"kind"` // gated_delta_net|mamba2
	Layers int    `json:"layers"`
	// Recurrent elements per layer are kept in DType, those of the convolution
	// in the model's own.
	Recurrent int    `json:"recurrent"`
	Conv      int    `json:"conv"`
	DType     string `json:"dtype"`
	Heads     int    `json:"heads"` // to divide over GPUs
}

// PerToken is the number of elements that one more token adds in a short
// context, where no window is full.
func (c Cache) PerToken() int64 {
	var n int64
	for _, g := range c.KV {
		n += int64(g.Layers) * int64(g.Elements)
	}
	return n
}

// At is the number of elements of a sequence of that many tokens on one of tp
// GPUs. Heads that cannot be divided are replicated, and so is the cache of MLA.
func (c Cache) At(tokens int64, tp int) int64 {
	var n int64
	for _, g := range c.KV {
		t := tokens
		if g.Window > 0 {
			t = min(t, int64(g.Window))
		}
		per := int64(g.Elements)
		if g.Heads > 0 && tp > 1 {
			per = per / int64(g.Heads) * int64(max(1, ceilDiv(g.Heads, tp)))
		}
		n += int64(g.Layers) * per * t
	}
	return n
}

// StateBytes is the size of the fixed state of one sequence over all GPUs, with
// convBytes for an element of the convolution. DType is float32 where the
// configuration does not say otherwise.
func (c Cache) StateBytes(convBytes int) int64 {
	var n int64
	for _, s := range c.States {
		n += int64(s.Layers) * (int64(s.Recurrent)*int64(dtypeBytes(s.DType)) + int64(s.Conv)*int64(convBytes))
	}
	return n
}

// dtypeBytes is the size of an element of a torch dtype; 4 for an unknown one.
func dtypeBytes(name string) int {
	switch name {
	case "bfloat16", "float16", "torch.bfloat16", "torch.float16":
		return 2
	}
	return 4
}
