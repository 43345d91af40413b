package decoder

// Block is the number of tokens of a block of the cache.
const Block = 16

// Cache holds keys and values of many sequences in blocks of 16 tokens. Memory
// for all blocks is set aside at once; the system gives it as it is written to.
type Cache struct {
	layers  []cacheLayer
	kvHeads int
	dim     int
	free    []int32
	blocks  int
}

// cacheLayer has blocks of KVHeads × Block × HeadDim.
type cacheLayer struct{ k, v []float32 }

// Sequence is the place of one sequence in the cache. The zero value is empty.
type Sequence struct {
	blocks []int32
	n      int // tokens computed
}

// Len is the number of tokens whose keys and values are there.
func (s *Sequence) Len() int { return s.n }

// BytesPerToken is the memory that one token takes in a cache.
func (c *Config) BytesPerToken() int64 {
	return int64(c.Layers) * 2 * int64(c.KVHeads) * int64(c.HeadDim) * 4
}

// NewCache returns a cache for so many tokens, in whole blocks.
func NewCache(c *Config, tokens int) *Cache {
	blocks := max(1, (tokens+Block-1)/Block)
	out := &Cache{layers: make([]cacheLayer, c.Layers), kvHeads: c.KVHeads, dim: c.HeadDim, blocks: blocks, free: make([]int32, blocks)}
	size := blocks * Block * c.KVHeads * c.HeadDim
	for i := range out.layers {
		out.layers[i] = cacheLayer{make([]float32, size), make([]float32, size)}
	}
	for i := range out.free {
		out.free[i] = int32(blocks - 1 - i) // the first block first
	}
	return out
}

// Blocks are all blocks, and those that are free.
func (c *Cache) Blocks() (all, free int) { return c.blocks, len(c.free) }

// Grow sets blocks aside for a sequence of so many tokens; false, and nothing
// done, when there are not enough.
func (c *Cache) Grow(s *Sequence, tokens int) bool {
	need := (tokens+Block-1)/Block - len(s.blocks)
	if need > len(c.free) {
		return false
	}
	if need > 0 {
		at := len(c.free) - need
		for i := len(c.free) - 1; i >= at; i-- {
			s.blocks = append(s.blocks, c.free[i])
		}
		c.free = c.free[:at]
	}
	return true
}

// Release takes the blocks of a sequence back; it is empty then.
func (c *Cache) Release(s *Sequence) {
	for i := len(s.blocks) - 1; i >= 0; i-- {
		c.free = append(c.free, s.blocks[i])
	}
	*s = Sequence{}
}

// put stores a key or a value, of all heads, of the token at a position.
func (c *Cache) put(store []float32, s *Sequence, position int, x []float32) {
	at := int(s.blocks[position/Block]) * c.kvHeads * Block * c.dim
	at += position % Block * c.dim
	for h := range c.kvHeads {
		copy(store[at+h*Block*c.dim:][:c.dim], x[h*c.dim:])
	}
}

// head is the part of a block that belongs to one head: rows of its tokens.
func (c *Cache) head(store []float32, block int32, h int) []float32 {
	n := Block * c.dim
	return store[(int(block)*c.kvHeads+h)*n:][:n]
}
