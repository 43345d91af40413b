package decoder

import (
	"fmt"
	"math"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/kernel"
)

// Slot is a sequence in a step, with the tokens that it has more than the cache.
// The cache has to have room for them ([Cache.Grow]).
type Slot struct {
	Seq    *Sequence
	Tokens []int32
	// Logits is for how many of the last tokens logits are computed.
	Logits int
}

// Runner computes steps. It is not safe for concurrent use.
type Runner struct {
	m    *Model
	pool *kernel.Pool
	rope rotation
	// alone computes some sequences on one thread each, beside each other: of a
	// small model a step is over before its parts have been handed out.
	alone []*workspace
	whole *workspace
	// Observe, when not nil, sees the inputs of every matrix of the layers, rows
	// of Matrix.Cols values, before they are rounded to the matrix's format.
	Observe func(m *kernel.Matrix, x []float32)
}

// smallModel is the size of the weights below which sequences are computed
// beside each other: about what the caches next to a core hold.
const smallModel = 16 << 20

// NewRunner returns a runner of so many threads for positions below limit. Close
// ends its threads.
func (m *Model) NewRunner(threads, limit int) *Runner {
	r := &Runner{m: m, pool: kernel.NewPool(threads), rope: newRotation(&m.Config, limit, !m.Float32)}
	r.whole = &workspace{r: r, pool: r.pool}
	if m.Bytes <= smallModel {
		for range r.pool.Threads() {
			r.alone = append(r.alone, &workspace{r: r, pool: kernel.NewPool(1)})
		}
	}
	return r
}

// Close ends the threads of a runner.
func (r *Runner) Close() { r.pool.Close() }

// Step computes the tokens of slots and puts keys and values into the cache. It
// returns the logits asked for, rows of Config.Vocab values in the order of the
// slots and tokens; they stay valid until the next step.
func (r *Runner) Step(c *Cache, slots []Slot) ([][]float32, error) {
	total := 0
	for i := range slots {
		if err := r.check(&slots[i]); err != nil {
			return nil, err
		}
		total += len(slots[i].Tokens)
	}
	var out [][]float32
	if parts := len(r.alone); parts > 1 && len(slots) > 1 && r.Observe == nil {
		groups := split(slots, total, parts)
		logits := make([][][]float32, len(groups))
		r.pool.Each(len(groups), func(_, i int) { logits[i] = r.alone[i].forward(c, groups[i]) })
		for _, l := range logits {
			out = append(out, l...)
		}
	} else {
		out = r.whole.forward(c, slots)
	}
	for i := range slots {
		slots[i].Seq.n += len(slots[i].Tokens)
	}
	return out, nil
}

func (r *Runner) check(s *Slot) error {
	for _, t := range s.Tokens {
		if t < 0 || int(t) >= r.m.Config.Vocab {
			return fmt.Errorf("compute step: token %d is not among the %d of the model", t, r.m.Config.Vocab)
		}
	}
	n := s.Seq.n + len(s.Tokens)
	if n > r.rope.limit {
		return fmt.Errorf("compute step: %d tokens are more than %d", n, r.rope.limit)
	}
	if n > len(s.Seq.blocks)*Block {
		return fmt.Errorf("compute step: the cache has no room for %d tokens of a sequence", n)
	}
	return nil
}

// split divides slots into groups of about the same number of tokens, in order.
func split(slots []Slot, total, parts int) [][]Slot {
	var out [][]Slot
	at, tokens := 0, 0
	for i := range slots {
		tokens += len(slots[i].Tokens)
		if tokens*parts >= total*(len(out)+1) || i == len(slots)-1 {
			out = append(out, slots[at:i+1])
			at = i + 1
		}
	}
	return out
}

// workspace is the memory of a step.
type workspace struct {
	r    *Runner
	pool *kernel.Pool

	h, x, rounded, q, k, v, attn, gate, up []float32
	scales                                 []float32
	logits                                 []float32
	scores                                 [][]float32 // by thread
}

func resize(b *[]float32, n int) []float32 {
	if cap(*b) < n {
		*b = make([]float32, n+n/4)
	}
	*b = (*b)[:n]
	return *b
}

// round rounds values to what they would be stored as on a GPU.
func (w *workspace) round(x []float32) {
	if !w.r.m.Float32 {
		kernel.RoundBF16(x)
	}
}

// forward computes slots layer by layer.
func (w *workspace) forward(c *Cache, slots []Slot) [][]float32 {
	m := w.r.m
	cfg := &m.Config
	n, wanted := 0, 0
	for i := range slots {
		n += len(slots[i].Tokens)
		wanted += min(slots[i].Logits, len(slots[i].Tokens))
	}
	if n == 0 {
		return nil
	}
	h, x := resize(&w.h, n*cfg.Hidden), resize(&w.x, n*cfg.Hidden)
	at := 0
	for i := range slots {
		for _, t := range slots[i].Tokens {
			m.embed.Row(h[at*cfg.Hidden:][:cfg.Hidden], int(t))
			at++
		}
	}
	w.round(h) // of an embedding in float32
	for i := range m.layers {
		y := &m.layers[i]
		w.norm(x, h, y.attnNorm)
		w.attention(c, i, slots, x, n)
		w.linear(w.attn, n, target{y.o, &w.x})
		w.add(h, w.x)
		x = w.x
		w.norm(x, h, y.mlpNorm)
		w.linear(x, n, target{y.gate, &w.gate}, target{y.up, &w.up})
		w.swiglu(w.gate, w.up)
		w.linear(w.gate, n, target{y.down, &w.x})
		w.add(h, w.x)
		x = w.x
	}
	return w.head(slots, h, x, wanted)
}

// head computes the logits asked for.
func (w *workspace) head(slots []Slot, h, x []float32, wanted int) [][]float32 {
	cfg := &w.r.m.Config
	if wanted == 0 {
		return nil
	}
	at, row := 0, 0
	for i := range slots {
		n := len(slots[i].Tokens)
		for t := n - min(slots[i].Logits, n); t < n; t++ {
			copy(h[row*cfg.Hidden:][:cfg.Hidden], h[(at+t)*cfg.Hidden:][:cfg.Hidden])
			row++
		}
		at += n
	}
	x, h = x[:wanted*cfg.Hidden], h[:wanted*cfg.Hidden]
	w.norm(x, h, w.r.m.norm)
	logits := resize(&w.logits, wanted*cfg.Vocab)
	w.pool.Multiply(kernel.Product{Matrix: w.r.m.head, X: x, Out: logits})
	w.round(logits)
	out := make([][]float32, wanted)
	for i := range out {
		out[i] = logits[i*cfg.Vocab:][:cfg.Vocab]
	}
	return out
}

// norm is RMSNorm: x over its root mean square, rounded, times the weight
// (Zhang and Sennrich, arXiv 1910.07467; the order of rounding is that of
// transformers' LlamaRMSNorm).
func (w *workspace) norm(dst, src, weight []float32) {
	size := len(weight)
	eps := w.r.m.Config.Eps
	for i := 0; i < len(src); i += size {
		in, out := src[i:][:size], dst[i:][:size]
		scale := float32(1 / math.Sqrt(float64(kernel.Dot(in, in)/float32(size)+eps)))
		for j, v := range in {
			out[j] = v * scale
		}
		w.round(out)
		for j, v := range weight {
			out[j] *= v
		}
		w.round(out)
	}
}

func (w *workspace) add(h, x []float32) {
	for i, v := range x {
		h[i] += v
	}
	w.round(h)
}

// swiglu is SiLU(gate)·up, into gate (Shazeer, arXiv 2002.05202).
func (w *workspace) swiglu(gate, up []float32) {
	const piece = 4096
	n := (len(gate) + piece - 1) / piece
	work := func(_, i int) {
		g, u := gate[i*piece:min(len(gate), (i+1)*piece)], up[i*piece:]
		kernel.SiLU(g)
		w.round(g)
		for j := range g {
			g[j] *= u[j]
		}
		w.round(g)
	}
	w.pool.Each(n, work)
}

// target is a matrix and where its products go.
type target struct {
	m   *kernel.Matrix
	out *[]float32
}

// linear multiplies n inputs with matrices. Where matrices ask for inputs of the
// same format and scale, they are rounded once.
func (w *workspace) linear(x []float32, n int, targets ...target) {
	first := targets[0].m
	x = x[:n*first.Cols]
	if w.r.Observe != nil {
		for _, t := range targets {
			w.r.Observe(t.m, x)
		}
	}
	same := true
	for _, t := range targets {
		same = same && t.m.Activations == first.Activations && t.m.InputScale == first.InputScale
	}
	products := make([]kernel.Product, 0, 3)
	for i, t := range targets {
		p := kernel.Product{Matrix: t.m, X: x, Out: resize(t.out, n*t.m.Rows)}
		switch {
		case i > 0 && same:
			p.X, p.Scales = products[0].X, products[0].Scales
		case t.m.Activations != "":
			p.X = resize(&w.rounded, len(x))
			copy(p.X, x)
			w.scales = t.m.Round(p.X, n, w.scales)
			p.Scales = w.scales
		}
		products = append(products, p)
		if !same {
			w.pool.Multiply(p)
		}
	}
	if same {
		w.pool.Multiply(products...)
	}
	for _, t := range targets {
		w.round(*t.out)
	}
}

// Math is what weights and inputs of the layers are multiplied in, as
// [model.Scheme.Math] writes it: w16a16, w8a8, w4a16, w4a4, or mixed.
func (m *Model) Math() string {
	out := ""
	for _, l := range m.Linears() {
		s := model.Scheme{Weights: l.Matrix.Format, Activations: l.Matrix.Activations}
		switch math := s.Math(); {
		case out == "":
			out = math
		case out != math:
			return "mixed"
		}
	}
	return out
}
