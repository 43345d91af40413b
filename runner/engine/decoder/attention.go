package decoder

import (
	"math"

	"github.com/repromill/repromill/runner/engine/kernel"
)

// rotation holds the cosines and sines of all positions.
type rotation struct {
	half     int
	limit    int
	cos, sin []float32 // limit × half
}

func newRotation(c *Config, limit int, bf16 bool) rotation {
	r := rotation{half: c.HeadDim / 2, limit: limit}
	r.cos, r.sin = make([]float32, limit*r.half), make([]float32, limit*r.half)
	for i, f := range c.frequencies() {
		f32 := float32(f) // the frequencies are kept in float32, and so is their product
		for p := range limit {
			angle := float64(float32(p) * f32)
			r.cos[p*r.half+i], r.sin[p*r.half+i] = float32(math.Cos(angle)), float32(math.Sin(angle))
		}
	}
	if bf16 {
		kernel.RoundBF16(r.cos)
		kernel.RoundBF16(r.sin)
	}
	return r
}

// rotate turns the pairs (i, i + half) of one head (Su et al., arXiv
// 2104.09864, in the layout of transformers). Products are rounded before they
// are added, as in BF16 arithmetic.
func (w *workspace) rotate(x []float32, position int) {
	r := &w.r.rope
	cos, sin := r.cos[position*r.half:][:r.half], r.sin[position*r.half:][:r.half]
	a, b := x[:r.half], x[r.half:][:r.half]
	if w.r.m.Float32 {
		for i := range a {
			a[i], b[i] = a[i]*cos[i]-b[i]*sin[i], b[i]*cos[i]+a[i]*sin[i]
		}
		return
	}
	const piece = 64 // as large as the half of usual heads
	var t [4][piece]float32
	for done := 0; done < r.half; done += piece {
		n := min(piece, r.half-done)
		for i := range n {
			c, s := cos[done+i], sin[done+i]
			t[0][i], t[1][i] = a[done+i]*c, b[done+i]*s
			t[2][i], t[3][i] = b[done+i]*c, a[done+i]*s
		}
		for i := range t {
			kernel.RoundBF16(t[i][:n])
		}
		for i := range n {
			a[done+i], b[done+i] = t[0][i]-t[1][i], t[2][i]+t[3][i]
		}
	}
	kernel.RoundBF16(x[:2*r.half])
}

// attention computes queries, keys and values of a layer from x, stores keys and
// values, and attends, into w.attn.
func (w *workspace) attention(c *Cache, i int, slots []Slot, x []float32, n int) {
	cfg, y, store := &w.r.m.Config, &w.r.m.layers[i], &c.layers[i]
	w.linear(x, n, target{y.q, &w.q}, target{y.k, &w.k}, target{y.v, &w.v})
	dim := cfg.HeadDim
	if y.qNorm != nil {
		w.norm(w.q, w.q, y.qNorm)
		w.norm(w.k, w.k, y.kNorm)
	}
	out := resize(&w.attn, n*cfg.Heads*dim)
	clear(out)
	// Keys and values of a step are all stored before anything attends to them.
	rows := make([]place, 0, n)
	longest := 0
	for s := range slots {
		seq := slots[s].Seq
		for t := range slots[s].Tokens {
			at, position := len(rows), seq.n+t
			for head := range cfg.Heads {
				w.rotate(w.q[(at*cfg.Heads+head)*dim:][:dim], position)
			}
			for head := range cfg.KVHeads {
				w.rotate(w.k[(at*cfg.KVHeads+head)*dim:][:dim], position)
			}
			c.put(store.k, seq, position, w.k[at*cfg.KVHeads*dim:])
			c.put(store.v, seq, position, w.v[at*cfg.KVHeads*dim:])
			rows = append(rows, place{seq, position})
			longest = max(longest, position+1)
		}
	}
	group := cfg.Heads / cfg.KVHeads
	for len(w.scores) < w.pool.Threads() {
		w.scores = append(w.scores, nil)
	}
	for t := range w.scores {
		resize(&w.scores[t], group*(longest+Block))
	}
	each := func(worker, i int) {
		at, head := i/cfg.KVHeads, i%cfg.KVHeads
		first := (at*cfg.Heads + head*group) * dim
		w.attend(c, store, rows[at], head, w.scores[worker], w.q[first:][:group*dim], out[first:][:group*dim])
	}
	if n*cfg.Heads*dim*longest < kernel.Worth {
		for i := range n * cfg.KVHeads {
			each(0, i)
		}
	} else {
		w.pool.Each(n*cfg.KVHeads, each)
	}
	w.round(out)
}

// place is a token of a step.
type place struct {
	seq      *Sequence
	position int
}

// attend lets the queries of one group attend to all tokens up to their own. As
// in FlashAttention the exponentials are rounded before they are multiplied with
// the values, and divided by their sum at the end (Dao et al., arXiv 2205.14135).
func (w *workspace) attend(c *Cache, store *cacheLayer, p place, head int, scores, queries, out []float32) {
	dim, n := c.dim, p.position+1
	group := len(queries) / dim
	stride := (n + Block - 1) &^ (Block - 1)
	for b := 0; b < n; b += Block {
		keys := c.head(store.k, p.seq.blocks[b/Block], head)
		kernel.Scores(scores[b:], stride, queries, keys, min(Block, n-b), group, dim)
	}
	scale := float32(1 / math.Sqrt(float64(dim)))
	for g := range group {
		s := scores[g*stride:][:n]
		sum := kernel.Exps(s, scale)
		w.round(s)
		for b := 0; b < n; b += Block {
			values := c.head(store.v, p.seq.blocks[b/Block], head)
			rows := min(Block, n-b)
			kernel.Mix(out[g*dim:][:dim], values, s[b:][:rows], rows, dim)
		}
		for d := range dim {
			out[g*dim+d] /= sum
		}
	}
}
