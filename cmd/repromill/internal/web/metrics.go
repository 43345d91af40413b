package web

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// metrics counts what the server did since it started, for Prometheus' text
// format (version 0.0.4).
type metrics struct {
	submitted atomic.Int64
	mu        sync.Mutex
	requests  map[string]int64 // by the labels
	seconds   map[string]*histogram
}

type histogram struct {
	counts []int64
	sum    float64
	n      int64
}

// bounds are the upper ends of the buckets, in seconds.
var bounds = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

func (m *metrics) init() { m.requests, m.seconds = map[string]int64{}, map[string]*histogram{} }

// request counts one. The pattern and not the path is a label: there are few
// patterns, and paths are whatever somebody sends.
func (m *metrics) request(method, pattern string, status int, took time.Duration) {
	if !slices.Contains([]string{"GET", "HEAD", "POST"}, method) {
		method = "other"
	}
	if pattern == "" {
		pattern = "none"
	}
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests[fmt.Sprintf(`method="%s",route="%s",code="%d"`, method, escape(pattern), status)]++
	if strings.HasSuffix(pattern, "/events") {
		return // as long as somebody watches
	}
	h := m.seconds[pattern]
	if h == nil {
		h = &histogram{counts: make([]int64, len(bounds))}
		m.seconds[pattern] = h
	}
	s := took.Seconds()
	for i, b := range bounds {
		if s <= b {
			h.counts[i]++
		}
	}
	h.sum += s
	h.n++
}

func escape(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) }

type gauge struct {
	name, help, kind string
	labels           []string // each `k="v"`, as many as values; nil is one value without
	values           []float64
}

func writeGauge(w io.Writer, g gauge) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", g.name, g.help, g.name, g.kind)
	for i, v := range g.values {
		label := ""
		if g.labels != nil {
			label = "{" + g.labels[i] + "}"
		}
		fmt.Fprintf(w, "%s%s %s\n", g.name, label, strconv.FormatFloat(v, 'g', -1, 64))
	}
}

func (m *metrics) write(w io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprint(w, "# HELP repromill_http_requests_total Requests answered.\n# TYPE repromill_http_requests_total counter\n")
	for _, k := range slices.Sorted(maps.Keys(m.requests)) {
		fmt.Fprintf(w, "repromill_http_requests_total{%s} %d\n", k, m.requests[k])
	}
	fmt.Fprint(w, "# HELP repromill_http_request_duration_seconds Time to answer, without event streams.\n# TYPE repromill_http_request_duration_seconds histogram\n")
	for _, p := range slices.Sorted(maps.Keys(m.seconds)) {
		h, route := m.seconds[p], escape(p)
		for i, b := range bounds {
			fmt.Fprintf(w, "repromill_http_request_duration_seconds_bucket{route=\"%s\",le=\"%g\"} %d\n", route, b, h.counts[i])
		}
		fmt.Fprintf(w, "repromill_http_request_duration_seconds_bucket{route=\"%s\",le=\"+Inf\"} %d\n", route, h.n)
		fmt.Fprintf(w, "repromill_http_request_duration_seconds_sum{route=\"%s\"} %g\n", route, h.sum)
		fmt.Fprintf(w, "repromill_http_request_duration_seconds_count{route=\"%s\"} %d\n", route, h.n)
	}
	writeGauge(w, gauge{"repromill_submissions_total", "Runs submitted to this process.", "counter", nil, []float64{float64(m.submitted.Load())}})
}
