package web

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/store"
)

// many fills the store with finished and open runs beside those of a test, in
// one transaction past the store's own, which would take minutes.
func (w *world) many(n int) {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.dir, "store.db")+"?_pragma=busy_timeout(15000)")
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	_, err = db.ExecContext(w.t.Context(), `BEGIN IMMEDIATE;
		WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i + 1 < ?)
		INSERT INTO runs (id, created_at, updated_at, target, state, subject, title)
		SELECT printf('01A%023d', i), 1700000000000000 + i * 1000000, 1, 'https://arxiv.org/abs/' || i,
			CASE i % 10 WHEN 9 THEN 'failed' WHEN 8 THEN 'planned' ELSE 'done' END, 'arxiv:' || (i % 5000), 'A paper' FROM c;
		INSERT INTO submissions (run_id, queue, submitter, created_at) SELECT id, 'local', 'k' || substr(id, 24), created_at FROM runs WHERE id LIKE '01A%';
		INSERT INTO events (run_id, seq, time, kind) SELECT id, 1, created_at, 'run.created' FROM runs WHERE id LIKE '01A%';
		INSERT INTO documents (run_id, name, body) SELECT id, 'request', CAST('{}' AS BLOB) FROM runs WHERE id LIKE '01A%';
		COMMIT;`, n)
	if err != nil {
		w.t.Fatal(err)
	}
}

// BenchmarkPages asks pages of a server with 100,000 runs in its store and
// reports the 99th percentile.
func BenchmarkPages(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.RequestsPerMinute = 1 << 30 })
	id := w.submit()
	w.open()
	w.wait(id, store.Planned)
	w.json("/v1/runs/"+id+"/approve", "").want(b, 200)
	w.wait(id, store.Done)
	n := 100_000
	if testing.Short() {
		n = 2000
	}
	w.many(n)
	for name, path := range map[string]string{"run": "/runs/" + id, "runs": "/runs", "start": "/", "paper": "/abs/2604.08075", "metrics": "/metrics"} {
		b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				from := time.Now()
				if a := w.get(path); a.status != 200 {
					b.Fatal(a.status)
				}
				took = append(took, time.Since(from))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		})
	}
}

// BenchmarkWatchers opens a thousand event streams on one core and sends events
// through them; it reports the memory of the process, with the clients' side.
func BenchmarkWatchers(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const watchers = 1000
	w := newWorld(b, func(c *Config) { c.RequestsPerMinute = 1 << 30 })
	id := w.submit()
	w.wait(id, store.Planned)
	last, err := w.store.LastSeq(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	before := heap()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	got := make(chan struct{}, 1<<20)
	var ready sync.WaitGroup
	ready.Add(watchers)
	addr := strings.TrimPrefix(w.http.URL, "http://")
	for range watchers {
		go func() {
			// A client without net/http, whose buffers would be counted too.
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				b.Error(err)
				ready.Done()
				return
			}
			defer conn.Close()
			go func() { <-ctx.Done(); conn.Close() }()
			fmt.Fprintf(conn, "GET /v1/runs/%s/events?after=%d HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n", id, last)
			r := bufio.NewReaderSize(conn, 512)
			begun := false
			for {
				line, err := r.ReadSlice('\n')
				if err != nil && err != bufio.ErrBufferFull {
					return
				}
				if !begun && strings.HasPrefix(string(line), "retry:") {
					begun = true
					ready.Done()
				}
				if strings.HasPrefix(string(line), "id: ") {
					got <- struct{}{}
				}
			}
		}()
	}
	ready.Wait()
	b.ReportMetric(float64(heap()-before)/1e6, "MB")
	for b.Loop() {
		if err := w.store.Append(b.Context(), id, store.Event{Kind: "log", Data: []byte(`{"message":"tick"}`)}); err != nil {
			b.Fatal(err)
		}
		for range watchers {
			<-got
		}
	}
	b.ReportMetric(float64(heap()-before)/1e6, "MB")
}

// heap is what the process has from the system for heap and stacks.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
