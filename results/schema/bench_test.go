package schema

import (
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// requestRows makes rows as a load test does: times with noise, token counts,
// and a list of itl gaps.
func requestRows(n, itl int) []RequestRow {
	rng := rand.New(rand.NewPCG(1, 2))
	start := time.Date(2026, 11, 21, 3, 0, 0, 0, time.UTC)
	out := make([]RequestRow, n)
	at := 0.0
	for i := range out {
		at += rng.ExpFloat64() / 100
		ttft := 0.05 + rng.ExpFloat64()*0.02
		gaps := make([]float64, itl)
		sum := 0.0
		for j := range gaps {
			gaps[j] = float64(int64((0.012+rng.NormFloat64()*0.002)*1e9)) / 1e9 // clocks tick in nanoseconds
			sum += gaps[j]
		}
		out[i] = RequestRow{
			Common: Common{RunID: "01JD7Q0000000000000000RUN1", Attempt: "01JD7Q0000000000000000RUN1/execute/nvfp4/0/0", PlanHash: "b1946ac92492d2347c6235b4d2611184", Kind: Measured, SchemaVersion: Version},
			Suite:  "load", Arm: "nvfp4", Cell: "open-8-1024-128", Block: int64(i / 4096), RequestID: int64(i), Mode: "open",
			TargetRate: Float(100), Pool: "shared", ServerID: "s-1f3a", Phase: "steady", Arrival: start.Add(time.Duration(at * 1e9)),
			IntendedS: Float(at), SentS: Float(at + 1e-5), HeadersS: Float(at + ttft - 2e-3), FirstByteS: Float(at + ttft - 1e-3), FirstRoleS: Float(at + ttft - 1e-3),
			FirstContentS: Float(at + ttft), EndS: Float(at + ttft + sum), TTFTS: Float(ttft), TTFTIntendedS: Float(ttft + 1e-5), TPOTS: Float(0.012),
			E2ES: Float(ttft + sum), E2EIntendedS: Float(ttft + sum + 1e-5), ITLS: gaps, ClientLagS: Float(rng.Float64() * 1e-4), Chunks: Int(itl + 1),
			ISLTarget: Int(1024), OSLTarget: Int(128), ISL: Int(1000 + rng.IntN(48)), OSL: Int(itl + 1), Status: "ok", HTTPStatus: Int(200), FinishReason: "length", SLOMet: Bool(ttft < 0.1),
		}
	}
	return out
}

// cpuSeconds is the CPU time of this process: on a machine that others use too
// it tells more than the wall clock.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func BenchmarkWriteRequests(b *testing.B) {
	for _, itl := range []int{0, 16, 127} {
		b.Run(fmt.Sprintf("itl=%d", itl), func(b *testing.B) {
			rows := requestRows(1<<16, itl)
			c, err := NewChecker[RequestRow]()
			if err != nil {
				b.Fatal(err)
			}
			var size int64
			b.ReportAllocs()
			cpu := cpuSeconds()
			for b.Loop() {
				w, err := NewWriter[RequestRow](io.Discard, nil)
				if err != nil {
					b.Fatal(err)
				}
				if err := c.Check(rows); err != nil {
					b.Fatal(err)
				}
				if err := w.Write(rows); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
				size = w.sink.n
			}
			b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(float64(len(rows))*float64(b.N)/(cpuSeconds()-cpu), "rows/cpu-s")
			b.ReportMetric(float64(size)/float64(len(rows)), "B/row")
		})
	}
}

func BenchmarkReadRequests(b *testing.B) {
	rows := requestRows(1<<15, 16)
	data := encode(b, rows)
	b.ReportAllocs()
	for b.Loop() {
		got, err := decode[RequestRow](data)
		if err != nil || len(got) != len(rows) {
			b.Fatal(len(got), err)
		}
	}
	b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
