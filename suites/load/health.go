package load

import (
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

// Health is what the load generator did to itself during a cell.
type Health struct {
	WakeP50, WakeP99, WakeMax time.Duration // how late a goroutine wakes that asked for a moment: the floor of every timestamp's error
	GCPauses                  int
	GCPauseMax                time.Duration // upper end of the histogram's bucket
	CPUSeconds                float64       // of the whole process
	CPUShare                  float64       // of all processors it may use
	PeakRSS                   int64         // bytes: the most memory that the process has held since it started
}

const wakeEvery = 2 * time.Millisecond

type health struct {
	quit chan struct{}
	wg   sync.WaitGroup
	late []time.Duration
	gc   []uint64
	cpu  float64
	from time.Time
}

func startHealth() *health {
	h := &health{quit: make(chan struct{}), from: time.Now()}
	h.gc, _, h.cpu = runtimeNow()
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		t := time.NewTicker(wakeEvery)
		defer t.Stop()
		for {
			select {
			case <-h.quit:
				return
			case due := <-t.C:
				// A tick carries the time at which it fell due and was sent; what
				// lies between it and now is the wait for a processor.
				if len(h.late) < 1<<20 {
					h.late = append(h.late, time.Since(due))
				}
			}
		}
	}()
	return h
}

func (h *health) stop() Health {
	close(h.quit)
	h.wg.Wait()
	gc, edges, cpu := runtimeNow()
	out := Health{CPUSeconds: cpu - h.cpu, PeakRSS: peakRSS()}
	for i := range gc {
		if n := gc[i] - h.gc[i]; n > 0 {
			out.GCPauses += int(n)
			out.GCPauseMax = time.Duration(min(edges[i+1], 3600) * float64(time.Second))
		}
	}
	if s := time.Since(h.from).Seconds(); s > 0 {
		out.CPUShare = out.CPUSeconds / s / float64(procs())
	}
	slices.Sort(h.late)
	if n := len(h.late); n > 0 {
		out.WakeP50, out.WakeP99, out.WakeMax = h.late[n/2], h.late[n*99/100], h.late[n-1]
	}
	return out
}

// runtimeNow reads the histogram of stop-the-world pauses of the garbage
// collector, its bucket edges in seconds, and the CPU seconds of the process.
func runtimeNow() (gc []uint64, edges []float64, cpu float64) {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	if h := s[0]; h.Value.Kind() == metrics.KindFloat64Histogram {
		gc, edges = slices.Clone(h.Value.Float64Histogram().Counts), h.Value.Float64Histogram().Buckets
	}
	return gc, edges, cpuSeconds()
}
