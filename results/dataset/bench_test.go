package dataset

import (
	"context"
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/repromill/repromill/results/schema"
)

// cpuSeconds is the CPU time of this process: on a machine that others use too
// it tells more than the wall clock.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkCommitRequests is the whole way of rows to a durable run: checks,
// keys, encoding, hashing, fsync, manifest.
func BenchmarkCommitRequests(b *testing.B) {
	const rows = 1 << 18
	for _, itl := range []int{0, 16} {
		b.Run(fmt.Sprintf("itl=%d", itl), func(b *testing.B) {
			batch := make([]schema.RequestRow, 4096)
			for i := range batch {
				v := float64(i%977) * 1.000123e-4
				batch[i] = schema.RequestRow{Common: common(), Suite: "load", Arm: "nvfp4", Cell: "open-8", Mode: "open", Status: "ok", Phase: "steady", FinishReason: "length", ServerID: "s",
					Arrival: created, IntendedS: schema.Float(v), SentS: schema.Float(v), HeadersS: schema.Float(v * 2), FirstByteS: schema.Float(v * 3), FirstContentS: schema.Float(v * 4), EndS: schema.Float(v * 5),
					TTFTS: schema.Float(v), TTFTIntendedS: schema.Float(v), TPOTS: schema.Float(v), E2ES: schema.Float(v), E2EIntendedS: schema.Float(v), ISL: schema.Int(i), OSL: schema.Int(128), HTTPStatus: schema.Int(200)}
				for j := range itl {
					batch[i].ITLS = append(batch[i].ITLS, v+float64(j)*1e-4)
				}
			}
			run := 0
			var peak uint64
			cpu := cpuSeconds()
			for b.Loop() {
				d := open(b, b.TempDir(), Config{})
				tx := d.Begin(fmt.Sprint("RUN", run), created)
				for n := 0; n < rows; n += len(batch) {
					for i := range batch {
						batch[i].RequestID = int64(n + i)
					}
					if err := Add(tx, batch...); err != nil {
						b.Fatal(err)
					}
				}
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
				if _, err := tx.Commit(context.Background()); err != nil {
					b.Fatal(err)
				}
				run++
			}
			b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric(rows*float64(b.N)/(cpuSeconds()-cpu), "rows/cpu-s")
			b.ReportMetric(float64(peak)/(1<<20), "MiB-heap")
		})
	}
}

// BenchmarkVerify hashes and decodes a run of 256k rows.
func BenchmarkVerify(b *testing.B) {
	d := open(b, b.TempDir(), Config{})
	tx := d.Begin(testRun, created)
	const rows = 1 << 18
	batch := make([]schema.RequestRow, 4096)
	for n := 0; n < rows; n += len(batch) {
		for i := range batch {
			batch[i] = schema.RequestRow{Common: common(), Suite: "load", Arm: "a", Cell: "c", RequestID: int64(n + i), Status: "ok", TTFTS: schema.Float(float64(i)), ITLS: []float64{1, 2, 3, 4, 5, 6, 7, 8}}
		}
		if err := Add(tx, batch...); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := tx.Commit(context.Background()); err != nil {
		b.Fatal(err)
	}
	cpu := cpuSeconds()
	for b.Loop() {
		if rep := mustVerify(b, d, false); !rep.OK() {
			b.Fatal(rep.Problems)
		}
	}
	b.ReportMetric(rows*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(rows*float64(b.N)/(cpuSeconds()-cpu), "rows/cpu-s")
}

// BenchmarkList reads the manifests of 1,000 runs.
func BenchmarkList(b *testing.B) {
	d := open(b, b.TempDir(), Config{})
	for i := range 1000 {
		tx := d.Begin(fmt.Sprintf("RUN%04d", i), created)
		if err := Add(tx, schema.RunRow{Common: common(), Status: "succeeded"}); err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Commit(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if l, err := d.List(context.Background()); err != nil || len(l) != 1000 {
			b.Fatal(len(l), err)
		}
	}
}

// BenchmarkMillionRows makes a store of a million answers in 250 runs and
// measures verify, compact, verify after it, and reading one run; each once.
// Peak memory is that of the process up to then.
func BenchmarkMillionRows(b *testing.B) {
	if testing.Short() {
		b.Skip("takes a minute")
	}
	const runs, each = 250, 4000
	d := open(b, b.TempDir(), Config{})
	batch := make([]schema.SampleRow, each)
	for i := range batch {
		batch[i] = sample("mmlu-pro", i)
		batch[i].OutputTokens, batch[i].LatencyS, batch[i].PromptSHA = schema.Int(300+i%900), schema.Float(float64(i%977)/100), fmt.Sprintf("%064x", i*7919)
	}
	for r := range runs {
		tx := d.Begin(fmt.Sprintf("RUN%04d", r), created)
		if err := Add(tx, batch...); err != nil {
			b.Fatal(err)
		}
		if _, err := tx.Commit(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	report := func(b *testing.B, cpu float64) {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		b.ReportMetric(cpuSeconds()-cpu, "cpu-s")
		b.ReportMetric(float64(u.Maxrss)/1024, "peak-MiB")
	}
	verify := func(b *testing.B) {
		cpu := cpuSeconds()
		rep, err := d.Verify(context.Background(), false)
		if err != nil || !rep.OK() || rep.Rows != runs*each {
			b.Fatalf("%+v, %v", rep, err)
		}
		report(b, cpu)
	}
	read := func(b *testing.B) {
		cpu, n := cpuSeconds(), 0
		err := Each(context.Background(), d, "RUN0125", func(rows []schema.SampleRow) error { n += len(rows); return nil })
		if err != nil || n != each {
			b.Fatalf("%d rows, %v", n, err)
		}
		report(b, cpu)
	}
	b.Run("verify", verify)
	b.Run("read", read)
	b.Run("compact", func(b *testing.B) {
		cpu := cpuSeconds()
		rep, err := d.Compact(context.Background(), CompactConfig{})
		if err != nil || len(rep.Problems) > 0 {
			b.Fatalf("%+v, %v", rep, err)
		}
		report(b, cpu)
	})
	b.Run("verify-merged", verify)
	b.Run("read-merged", read)
}
