package serving

import (
	"math"

	"github.com/repromill/repromill/estimators/sku"
)

// Layout is how a model is split over GPUs.
type Layout struct {
	GPUs   int  `json:"gpus"`
	TP     int  `json:"tp"`              // of attention; GPUs / (TP · PP) replicas share the batch
	PP     int  `json:"pp,omitempty"`    // stages of a pipeline; 0 is 1
	Nodes  int  `json:"nodes,omitempty"` // servers, or domains of one fabric; 0 is 1
	Expert bool `json:"expert_parallel"` // whole experts on each GPU
	AttnDP bool `json:"attention_dp"`    // every GPU has all attention weights and its own sequences
}

// Workload is what is asked of the model. Lengths are in tokens.
type Workload struct {
	ISL         int     `json:"isl"`
	OSL         int     `json:"osl"`
	Concurrency int     `json:"concurrency,omitempty"` // closed loop; 0 with Rate 0 is offline: everything at once
	Rate        float64 `json:"rate,omitempty"`        // requests per second
}

// Offline reports whether the batch is only bounded by memory and the engine.
func (w Workload) Offline() bool { return w.Concurrency == 0 && w.Rate == 0 }

// The coefficients of the time model, as natural logarithms of efficiencies
// (dimensionless) or of times in seconds.
const (
	CWeights = iota // efficiency of reading weights
	CExperts        // efficiency of reading experts
	CCache          // efficiency of reading the cache
	CDecode         // efficiency of arithmetic in decoding
	CPrefill        // efficiency of arithmetic in prefill
	CAttn           // efficiency of attention's arithmetic
	CLayer          // time per layer and step
	CSync           // further time per layer and step with several GPUs
	CLink           // efficiency of the link
	CSeq            // time per sequence and step
	CStep           // time per step
	CRequest        // time per request
	COffset         // of the throughput as a whole
	CBatch          // batch that engines allow offline
	NCoef
)

// Coef are the coefficients of one configuration.
type Coef [NCoef]float64

// Terms are the parts of a step at the rates of the catalogue, for one model on
// one layout of one GPU: seconds, per unit of what they grow with.
type Terms struct {
	N        float64
	Layers   float64
	Replicas float64 // of attention
	Dense    float64 // seconds to read all weights but experts
	Expert   float64 // seconds to read all experts
	Miss     float64 // share of experts that one token does not use
	Token    float64 // seconds of arithmetic of a token
	Hop      float64 // seconds to communicate a token's activations
	kvPer    [4]kvTerm
	kvN      int
	Pipe     float64 // stages of the pipeline
	hops     float64 // seconds to pass a token's activations from stage to stage
	state    float64 // seconds to read and write a sequence's state
	pairDec  float64 // seconds per layer and token of context in decoding
	pairPre  float64
	kvSecond float64 // seconds per element of the cache of one GPU
	weights  float64 // bytes of one GPU
	spare    float64 // bytes of one GPU for the cache; negative where the weights do not fit
	room     float64 // spare, but never nothing: what was measured did fit
	seqBytes float64 // state of one sequence on one GPU
	kvBytes  float64 // of an element of the cache

	// Shares of the arithmetic time and of the bytes by format, for choosing
	// efficiencies.
	ShareFP8, ShareFP4, ShareW4A16 float64
	BytesFP8, BytesFP4             float64
}

type kvTerm struct{ layers, elements, window, reads float64 }

// NewTerms prepares the time model. Nothing is refused here: see [FitMemory].
func NewTerms(s *Shape, g *sku.SKU, l Layout) Terms {
	n := float64(max(1, l.GPUs))
	tp := max(1, l.TP)
	pp := float64(max(1, l.PP))
	t := Terms{N: n, Layers: float64(s.Layers), Replicas: max(1, n/float64(tp)/pp), Pipe: pp}
	if l.AttnDP {
		tp, t.Replicas = 1, n/pp
	}
	bw := g.Bandwidth.Value * 1e12
	if s.Experts > 0 {
		t.Miss = 1 - float64(s.Used)/float64(s.Experts)
	}
	resident := s.Resident / n
	var bytes, seconds float64
	for _, grp := range s.Groups {
		split := n
		if grp.Attention {
			split = float64(tp) * pp
		}
		b := grp.Bytes / split
		resident += b
		// Each of the batches in a pipeline reads the weights of each stage.
		if grp.Expert {
			t.Expert += pp * b / bw
		} else {
			t.Dense += pp * b / bw
		}
		sec := 2 * grp.Active / n / (rate(grp, g) * 1e12)
		t.Token += sec
		bytes += grp.Bytes
		seconds += sec
		t.shares(grp, g, sec)
	}
	if seconds > 0 {
		t.ShareFP8, t.ShareFP4, t.ShareW4A16 = t.ShareFP8/seconds, t.ShareFP4/seconds, t.ShareW4A16/seconds
		t.BytesFP8, t.BytesFP4 = t.BytesFP8/bytes, t.BytesFP4/bytes
	}
	t.cache(s, g, l, tp, bw)
	t.hop(s, g, l)
	memory := g.MemoryGB.Value * gigabyte
	t.weights = resident
	t.spare = memory*usable - resident - runtimeBytes - activationBytes(s)
	t.room = math.Max(0.02*memory, t.spare)
	return t
}

// rate is the dense rate that a group computes at: a GPU without the format's
// tensor cores, and weights beside 16-bit activations, take the next wider one.
func rate(grp Group, g *sku.SKU) float64 { return g.Rate(mathOf(grp, g)) }

func mathOf(grp Group, g *sku.SKU) string {
	switch a := bits(grp.Acts); {
	case a == 4 && g.Has("fp4"):
		return "fp4"
	case a == 4: // weight-only kernels
		return "bf16"
	case a == 8 && g.Has("fp8"):
		return "fp8"
	}
	return "bf16"
}

func (t *Terms) shares(grp Group, g *sku.SKU, sec float64) {
	switch mathOf(grp, g) {
	case "fp4":
		t.ShareFP4 += sec
	case "fp8":
		t.ShareFP8 += sec
	default:
		if bits(grp.Weights) < 16 {
			t.ShareW4A16 += sec
		}
	}
	switch bits(grp.Weights) {
	case 8:
		t.BytesFP8 += grp.Bytes
	case 4:
		t.BytesFP4 += grp.Bytes
	}
}

func (t *Terms) cache(s *Shape, g *sku.SKU, l Layout, tp int, bw float64) {
	for _, kv := range s.Cache.KV {
		per := float64(kv.Elements)
		if kv.Heads > 0 && tp > 1 {
			per = per / float64(kv.Heads) * math.Ceil(float64(kv.Heads)/float64(min(tp, kv.Heads)))
		}
		if t.kvN < len(t.kvPer) {
			t.kvPer[t.kvN] = kvTerm{float64(kv.Layers) / t.Pipe, per, float64(kv.Window), float64(kv.Reads)}
			t.kvN++
		}
	}
	t.kvBytes = s.KVBytes
	t.kvSecond = s.KVBytes / bw
	t.seqBytes = s.State / float64(tp) / t.Pipe
	t.state = 2 * t.seqBytes / bw
	f16 := g.BF16.Value * 1e12
	t.pairDec = s.PairDecode / float64(tp) / f16
	t.pairPre = s.PairPrefill / float64(tp) / f16
}

// hop is two all-reduces of 16-bit activations in a layer; with expert
// parallelism experts receive and send their tokens instead of the second.
func (t *Terms) hop(s *Shape, g *sku.SKU, l Layout) {
	if l.GPUs <= 1 {
		return
	}
	group := float64(l.GPUs) / t.Pipe // GPUs that work on one layer
	ring := 2 * (group - 1) / group * 2 * float64(s.Hidden)
	per := 2 * ring
	if l.AttnDP {
		per = float64(max(1, s.Used)) * float64(s.Hidden) * 1.5 * 2 * (group - 1) / group / group
	}
	t.Hop = float64(s.Layers) / t.Pipe * per * secondsPerByte(g, group)
	t.hops = (t.Pipe - 1) / t.Pipe * 2 * float64(s.Hidden) * secondsPerByte(g, math.Inf(1)) / math.Max(1, float64(l.TP))
}

// secondsPerByte is the time to bring a byte to the other GPUs of a group: those
// of the same domain are reached over its links, the others over the network.
func secondsPerByte(g *sku.SKU, group float64) float64 {
	domain := float64(max(1, g.Domain))
	link := 1 / (g.Link.Value * 1e9)
	if group <= domain || g.Network.Value <= 0 {
		return link
	}
	away := 1.0
	if !math.IsInf(group, 1) {
		away = (group - domain) / group
	}
	return away/(g.Network.Value*1e9) + (1-away)*link
}

// cacheElements is what one sequence of c tokens has on one GPU.
func (t *Terms) cacheElements(c float64, read bool) float64 {
	var n float64
	for _, k := range t.kvPer[:t.kvN] {
		n += k.layers * k.elements * k.span(c, read)
	}
	return n
}

func (k kvTerm) span(c float64, read bool) float64 {
	if k.window > 0 {
		c = min(c, k.window)
	}
	if read && k.reads > 0 {
		c = min(c, k.reads)
	}
	return c
}

// pairs is the number of layers times tokens of context that a query sees.
func (t *Terms) pairs(c float64) float64 {
	var n float64
	for _, k := range t.kvPer[:t.kvN] {
		n += k.layers * k.span(c, true)
	}
	return n
}

// MaxBatch is how many sequences of c tokens the cache has room for, over all
// replicas.
func (t *Terms) MaxBatch(c float64) float64 {
	per := t.cacheElements(c, false)*t.kvBytes + t.seqBytes
	if per <= 0 {
		return math.Inf(1)
	}
	return math.Max(0, t.room/per) * t.Replicas
}

// Times are the parts of a prediction, in seconds unless noted.
type Times struct {
	Batch      float64 `json:"batch"` // sequences in flight
	Decode     float64 `json:"decode_step_s"`
	Prefill    float64 `json:"prefill_s"` // of one request
	TTFT       float64 `json:"ttft_s"`
	TPOT       float64 `json:"tpot_s"`
	Throughput float64 `json:"output_tokens_per_s"` // of all GPUs
	Parts      Parts   `json:"parts"`
}

// Parts are what a decode step and a request spend their time on, in seconds.
type Parts struct {
	Weights  float64 `json:"weights_s"`
	Cache    float64 `json:"cache_s"`
	Compute  float64 `json:"compute_s"`
	Overhead float64 `json:"overhead_s"`
	Link     float64 `json:"link_s"`
	Prefill  float64 `json:"prefill_s"`
}

// Run predicts the times of a workload. It allocates nothing.
func (t *Terms) Run(w Workload, c *Coef) Times {
	isl, osl := float64(max(1, w.ISL)), float64(max(1, w.OSL))
	room := math.Max(1, t.MaxBatch(isl+osl*0.6))
	b := float64(w.Concurrency)
	if w.Concurrency <= 0 {
		b = softmin(room, math.Exp(c[CBatch])*t.Replicas)
	}
	b = math.Max(1, math.Min(b, room))
	if w.Rate > 0 {
		b = t.batchAtRate(w, c, b)
	}
	return t.at(isl, osl, b, float64(w.Concurrency), c)
}

func softmin(a, b float64) float64 { return 1 / math.Cbrt(1/(a*a*a)+1/(b*b*b)) }

// batchAtRate is the number of sequences in flight by Little's law, found by
// bisection; full is where the queue grows without bound.
func (t *Terms) batchAtRate(w Workload, c *Coef, full float64) float64 {
	isl, osl := float64(max(1, w.ISL)), float64(max(1, w.OSL))
	lo, hi := 1e-3, full
	for range 40 {
		mid := math.Sqrt(lo * hi)
		if t.at(isl, osl, mid, 0, c).Throughput/osl < w.Rate {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

func (t *Terms) at(isl, osl, b, waiting float64, c *Coef) Times {
	// A pipeline that is not full waits: its stages take as long as if it were.
	all := math.Max(b, t.Pipe)
	per := all / t.Replicas // sequences of one attention replica
	ctx := isl + osl/2
	read := t.Expert
	if t.Miss > 0 {
		read *= 1 - math.Pow(t.Miss, all/t.Pipe)
	}
	weights := t.Dense*math.Exp(-c[CWeights]) + read*math.Exp(-c[CExperts])
	cache := per * (t.cacheElements(ctx, true)*t.kvSecond + t.state) * math.Exp(-c[CCache])
	pairs := t.pairs(ctx)
	compute := all*t.Token*math.Exp(-c[CDecode]) + per*pairs*t.pairDec*math.Exp(-c[CAttn])
	core := math.Cbrt(cube(weights+cache) + cube(compute))
	overhead := t.Layers*math.Exp(c[CLayer]) + math.Exp(c[CStep]) + b*math.Exp(c[CSeq])
	link := 0.0
	el := math.Exp(-c[CLink])
	if t.N > 1 {
		overhead += t.Layers * math.Exp(c[CSync])
		link = all*t.Hop*el + b*t.hops*el + (t.Pipe-1)*stageLatency
	}
	dec := core + overhead + link
	// A query sees half of the prompt on average.
	attn := isl * t.pairs(isl/2) * t.pairPre / t.Replicas * math.Exp(-c[CAttn])
	pre := isl*t.Token*math.Exp(-c[CPrefill]) + attn + isl*t.Hop*el + math.Exp(c[CRequest])
	off := math.Exp(c[COffset])
	out := Times{Batch: b, Decode: dec / off, Prefill: pre / off}
	out.Throughput = b / (out.Decode + b*out.Prefill/osl)
	// While a sequence decodes, the prefills of those that take the freed places
	// run between its steps.
	out.TPOT = out.Decode + (b-1)/osl*out.Prefill
	out.TTFT = out.Prefill + out.Decode
	if waiting > b { // the rest queue for a place
		out.TTFT += (waiting - b) / b * (osl*out.TPOT + out.Prefill)
	}
	out.Parts = Parts{weights, cache, compute, overhead, link, pre * b / osl}
	return out
}

func cube(x float64) float64 { return x * x * x }

// stageLatency is the time to start passing activations to the next stage of a
// pipeline over a network (point-to-point latency of collective libraries over
// InfiniBand and RoCE, 10 to 30 µs).
const stageLatency = 20e-6

// Memory that is not the model's. The share of the memory that engines take is
// vLLM's gpu_memory_utilization and TensorRT-LLM's free_gpu_memory_fraction.
const (
	usable = 0.92
	// Drivers report 1024^3 bytes for each marketed gigabyte, less about one per
	// cent: 81,559 MiB on an H100 of 80 GB, 183,359 MiB on a B200 of 180 GB.
	gigabyte     = 1.063e9
	runtimeBytes = 2.5e9 // CUDA context, workspaces, captured graphs
)

// activationBytes are the buffers of a chunk of 8,192 tokens of prefill.
func activationBytes(s *Shape) float64 {
	return 8192 * (12*float64(s.Hidden) + 2*math.Min(float64(s.Vocab), 4*float64(s.Hidden)))
}
