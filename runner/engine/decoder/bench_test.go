package decoder

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/runner/engine/enginetest"
	"github.com/repromill/repromill/runner/engine/kernel"
)

// bandwidth is how many bytes a second all threads read together of memory that
// no cache holds, by adding it up.
func bandwidth(threads int) float64 {
	const each = 64 << 20
	buf := make([]float32, threads*each/4)
	for i := range buf {
		buf[i] = float32(i)
	}
	pool := kernel.NewPool(threads)
	defer pool.Close()
	best := 0.0
	sums := make([]float32, threads)
	for range 5 {
		began := time.Now()
		pool.Each(threads, func(_, i int) {
			part := buf[i*each/4:][:each/4]
			for len(part) >= 4096 {
				sums[i] += kernel.Dot(part[:4096], part[:4096])
				part = part[4096:]
			}
		})
		best = max(best, float64(threads*each)/time.Since(began).Seconds())
	}
	return best
}

// BenchmarkDecode gives one sequence token after token, in structures of real
// small models whose weights are random, and says how much of the machine's
// memory bandwidth, measured right before, the weights are read at.
func BenchmarkDecode(b *testing.B) {
	threads := runtime.GOMAXPROCS(0)
	for _, s := range []struct {
		name  string
		shape enginetest.Shape
	}{{"SmolLM-135M", enginetest.SmolLM135M}, {"Qwen3-0.6B", enginetest.Qwen3600M}} {
		b.Run(s.name, func(b *testing.B) {
			if testing.Short() {
				b.Skip("writes 1.5 GB")
			}
			dir := b.TempDir()
			if err := enginetest.Write(dir, s.name, s.shape, nil); err != nil {
				b.Fatal(err)
			}
			m, err := Load(b.Context(), model.Folder(dir), LoadConfig{})
			if err != nil {
				b.Fatal(err)
			}
			most := bandwidth(threads)
			for _, batch := range []int{1, 8} {
				b.Run(fmt.Sprint(batch), func(b *testing.B) { decode(b, m, threads, batch, most) })
			}
			b.Run("prefill", func(b *testing.B) { prefill(b, m, threads) })
		})
	}
}

func decode(b *testing.B, m *Model, threads, batch int, most float64) {
	r := m.NewRunner(threads, 1024)
	defer r.Close()
	c := NewCache(&m.Config, batch*256)
	seqs := make([]Sequence, batch)
	slots := make([]Slot, batch)
	for i := range slots {
		c.Grow(&seqs[i], 256)
		slots[i] = Slot{Seq: &seqs[i], Tokens: []int32{int32(i + 1)}, Logits: 1}
	}
	for b.Loop() {
		if seqs[0].n >= 256 {
			for i := range seqs {
				seqs[i].n = 0
			}
		}
		if _, err := r.Step(c, slots); err != nil {
			b.Fatal(err)
		}
	}
	steps := float64(b.N) / b.Elapsed().Seconds()
	b.ReportMetric(steps*float64(batch), "tokens/s")
	b.ReportMetric(steps*float64(m.Bytes)/1e9, "GB/s")
	b.ReportMetric(most/1e9, "machine-GB/s")
	b.ReportMetric(100*steps*float64(m.Bytes)/most, "%-of-bandwidth")
}

func prefill(b *testing.B, m *Model, threads int) {
	r := m.NewRunner(threads, 1024)
	defer r.Close()
	c := NewCache(&m.Config, 128)
	var seq Sequence
	c.Grow(&seq, 128)
	tokens := make([]int32, 128)
	for b.Loop() {
		seq.n = 0
		if _, err := r.Step(c, []Slot{{Seq: &seq, Tokens: tokens, Logits: 1}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(128*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
}
