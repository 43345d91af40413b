package web

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/store"
)

// loadRun is a measurement of `repromill load`, which is in the results alone: no
// plan was made for it, so that the store does not know it.
type loadRun struct {
	ID, Title string
	Created   time.Time
	Arms      []string
	Cells     int
	Peak      float64 // output tokens per second of the best cell
	Simulated bool
}

// loads remembers which of the committed runs are such measurements. Committed
// runs do not change, so that each is looked at once.
type loads struct {
	mu    sync.Mutex
	known map[string]*loadRun // nil: it is something else
}

const (
	loadsPerPage = 30
	// maxLoadLooks bounds how many runs one request looks at for the first time.
	maxLoadLooks = 500
	maxLoadKnown = 200_000
)

// ulidRE are the ids that runs without an idempotency key have, as all
// measurements do; they sort by time.
var ulidRE = regexp.MustCompile(`^[0-7][0-9A-HJKMNP-TV-Z]{25}$`)

// list returns measurements before an id, newest first, whose title holds the
// text, and where to go on; empty at the end.
func (x *loads) list(c *call, before, text string) (out []*loadRun, next string, err error) {
	entries, err := os.ReadDir(filepath.Join(c.s.cfg.Data.Root(), "_runs"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("list results: %w", err)
	}
	looks := 0
	for _, e := range slices.Backward(entries) {
		id := e.Name()
		if !ulidRE.MatchString(id) || before != "" && id >= before {
			continue
		}
		if len(out) == loadsPerPage || looks == maxLoadLooks {
			return out, next, nil
		}
		next = id
		r, fresh, err := x.look(c, id)
		if err != nil {
			return nil, "", err
		}
		if fresh {
			looks++
		}
		if r != nil && strings.Contains(strings.ToLower(r.Title+" "+strings.Join(r.Arms, " ")), strings.ToLower(text)) {
			out = append(out, r)
		}
	}
	return out, "", nil
}

// look says what a committed run is.
func (x *loads) look(c *call, id string) (r *loadRun, fresh bool, err error) {
	x.mu.Lock()
	r, ok := x.known[id]
	x.mu.Unlock()
	if ok {
		return r, false, nil
	}
	ctx := c.r.Context()
	if _, err := c.s.cfg.Store.Run(ctx, id); errors.Is(err, store.ErrNotFound) {
		r, err = readLoad(ctx, c.s.cfg.Data, id)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, true, nil // not committed yet
		}
		if ctx.Err() != nil {
			return nil, true, ctx.Err()
		}
	} else if err != nil {
		return nil, true, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil || len(x.known) >= maxLoadKnown {
		x.known = map[string]*loadRun{}
	}
	x.known[id] = r
	return r, true, nil
}

// readLoad sums up a measurement; nil where the run is none.
func readLoad(ctx context.Context, d *dataset.Dataset, id string) (*loadRun, error) {
	m, err := d.Manifest(id)
	if err != nil {
		return nil, err
	}
	if m.Rows(schema.Requests) == 0 {
		return nil, nil
	}
	rows, err := dataset.Read[schema.RunRow](ctx, d, id)
	if err != nil {
		return nil, err
	}
	r := &loadRun{ID: id, Title: id, Created: m.Created}
	if len(rows) > 0 {
		r.Title, r.Simulated = firstOf(rows[0].Title, rows[0].TargetInput, id), rows[0].Simulated
	}
	points, err := readCells(ctx, d, id)
	if err != nil {
		return nil, err
	}
	r.Cells = len(points)
	for _, p := range points {
		if !slices.Contains(r.Arms, p.Arm) {
			r.Arms = append(r.Arms, p.Arm)
		}
		r.Peak = max(r.Peak, p.of("output_tokens_per_s").V)
	}
	return r, nil
}

// loadCell is one load on one arm, once.
type loadCell struct {
	Arm, Name, Model, Status, Reason string
	Repeat                           int64
	Requests                         int64
	metrics                          map[string]schema.MetricRow
}

// of is a metric of the steady window, else of the whole run.
func (l *loadCell) of(name string) schema.Opt[float64] { return l.row(name).Value }

func (l *loadCell) row(name string) schema.MetricRow {
	for _, prefix := range []string{"", "whole_run_"} {
		if m, ok := l.metrics[prefix+name]; ok && m.Value.Valid {
			return m
		}
	}
	return schema.MetricRow{}
}

// readCells collects the metrics of a measurement by cell, in their order.
func readCells(ctx context.Context, d *dataset.Dataset, id string) (out []*loadCell, err error) {
	at := map[string]*loadCell{}
	err = dataset.Each(ctx, d, id, func(rows []schema.MetricRow) error {
		for _, m := range rows {
			if m.Task == "" || m.Method != "moving_block_bootstrap" {
				continue
			}
			key := fmt.Sprint(m.Arm, "\x00", m.Task, "\x00", m.Repetition)
			l := at[key]
			if l == nil {
				l = &loadCell{Arm: m.Arm, Name: m.Task, Model: m.Model, Status: m.Status, Reason: m.Reason, Repeat: m.Repetition, metrics: map[string]schema.MetricRow{}}
				at[key] = l
				out = append(out, l)
			}
			l.metrics[m.Metric] = m
			l.Requests = max(l.Requests, m.N.V)
		}
		return nil
	})
	return out, err
}

// loadsView is the list of measurements.
type loadsView struct {
	Runs  []*loadRun
	Query string
	Next  string
	Now   time.Time
}

func (s *Server) loadsPage(c *call) error {
	q := c.r.URL.Query()
	v := &loadsView{Query: strings.TrimSpace(q.Get("q")), Now: s.cfg.Now()}
	if len(v.Query) > 300 {
		return problemf(http.StatusBadRequest, "search for less", "the search is too long")
	}
	var next string
	var err error
	if v.Runs, next, err = s.loads.list(c, q.Get("before"), v.Query); err != nil {
		return err
	}
	if next != "" {
		v.Next = "/loads?" + url.Values{"q": {v.Query}, "before": {next}}.Encode()
	}
	return c.render(http.StatusOK, "loads.html", "Load", "loads", v)
}

// loadView is one measurement.
type loadView struct {
	*loadRun
	Frontier *plot.Figure
	Latency  string
	Cells    []loadLine
	Ratios   []loadRatio
	Servers  []string
	Now      time.Time
	Stored   bool // it belongs to a run of a plan
}

// loadLine is a cell as it is printed.
type loadLine struct {
	Arm, Name, Status, Reason, ID             string
	Requests                                  int64
	Rate, Output, TTFT50, TTFT99, TPOT, ITL99 string
	Void, Best                                bool
}

type loadRatio struct {
	What, Ratio, Interval, Verdict, Reason string
}

func (s *Server) loadPage(c *call) error {
	id := c.r.PathValue("id")
	ctx := c.r.Context()
	r, err := readLoad(ctx, s.cfg.Data, id)
	var unknown interface{ UserError() string }
	if errors.Is(err, fs.ErrNotExist) || errors.As(err, &unknown) || err == nil && r == nil {
		return problemf(http.StatusNotFound, "measurements are listed at /loads", "there is no measurement %.40q", id)
	}
	if err != nil {
		return err
	}
	v := &loadView{loadRun: r, Now: s.cfg.Now()}
	if _, err := s.cfg.Store.Run(ctx, id); err == nil {
		v.Stored = true
	}
	cells, err := readCells(ctx, s.cfg.Data, id)
	if err != nil {
		return err
	}
	v.draw(cells)
	if v.Ratios, err = readRatios(ctx, s.cfg.Data, id); err != nil {
		return err
	}
	servers, err := dataset.Read[schema.ServerRow](ctx, s.cfg.Data, id)
	if err != nil {
		return err
	}
	for _, x := range servers {
		line := strings.Join(strings.Fields(x.Arm+": "+x.Engine+" "+x.EngineVersion+" "+x.Model+" "+x.SKU+" "+x.KVDtype), " ")
		if !slices.Contains(v.Servers, line) {
			v.Servers = append(v.Servers, line)
		}
	}
	return c.render(http.StatusOK, "load.html", r.Title, "loads", v)
}

// draw makes the frontier and the table. The latency is the highest percentile of
// the time to the first token, from the intended moment, that all cells support.
func (v *loadView) draw(cells []*loadCell) {
	latency, words := "ttft_intended_p99", "P99 TTFT"
	for _, l := range cells {
		if l.Status == "ok" && !l.of(latency).Valid {
			latency, words = "ttft_intended_p50", "median TTFT"
		}
	}
	v.Latency = words
	var points []plot.Point
	for i, l := range cells {
		anchor := fmt.Sprintf("cell-%d", i+1)
		x, y := l.of(latency), l.of("output_tokens_per_s")
		line := loadLine{ID: anchor, Arm: l.Arm, Name: l.Name, Status: l.Status, Reason: l.Reason, Requests: l.Requests, Void: l.Status != "ok",
			Rate: number(l.of("requests_per_s")), Output: withInterval(l.row("output_tokens_per_s")), TTFT50: millis(l.of("ttft_intended_p50")), TTFT99: millis(l.of("ttft_intended_p99")),
			TPOT: millis(l.of("tpot_p50")), ITL99: millis(l.of("itl_p99"))}
		if l.Repeat > 0 {
			line.Name += fmt.Sprintf(" (%d)", l.Repeat+1)
		}
		v.Cells = append(v.Cells, line)
		if line.Void || !x.Valid || !y.Valid {
			continue
		}
		points = append(points, plot.Point{Arm: clean(l.Arm), X: 1000 * x.V, Y: y.V, Label: clean(l.Name), Simulated: v.Simulated, Href: "#" + anchor,
			Note: clean(fmt.Sprintf("%s %s: %s tokens/s at %s of %s", l.Arm, l.Name, report.Number(y.V, 3), words, millis(x)))})
	}
	for i := range points {
		for j := range points {
			p, q := &points[i], &points[j]
			if q.Arm == p.Arm && q.X <= p.X && q.Y >= p.Y && (q.X < p.X || q.Y > p.Y) {
				p.Dominated = true
			}
		}
	}
	if len(points) > 0 {
		v.Frontier = plot.Frontier(points, words+", ms", "output tokens/s")
	}
}

// readRatios are the comparisons of a measurement, on the look they rest on.
func readRatios(ctx context.Context, d *dataset.Dataset, id string) (out []loadRatio, err error) {
	rows, err := dataset.Read[schema.ComparisonRow](ctx, d, id)
	for _, x := range rows {
		if !x.Final || !x.Ratio.Valid {
			continue
		}
		r := loadRatio{What: strings.Join(strings.Fields(x.Metric+" "+x.Task+" · "+x.Arm+" against "+x.Baseline), " "), Ratio: "×" + report.Number(x.Ratio.V, 3), Verdict: x.Verdict, Reason: x.Reason}
		if x.CILo.Valid && x.CIHi.Valid {
			r.Interval = fmt.Sprintf("[%s, %s]", report.Number(x.CILo.V, 3), report.Number(x.CIHi.V, 3))
		}
		out = append(out, r)
	}
	return out, err
}

func number(v schema.Opt[float64]) string {
	if !v.Valid || math.IsNaN(v.V) {
		return "–"
	}
	return report.Number(v.V, 3)
}

func withInterval(m schema.MetricRow) string {
	text := number(m.Value)
	if m.CILo.Valid && m.CIHi.Valid {
		text += fmt.Sprintf(" [%s, %s]", report.Number(m.CILo.V, 3), report.Number(m.CIHi.V, 3))
	}
	return text
}

// millis is a time in seconds as latencies are read.
func millis(v schema.Opt[float64]) string {
	if !v.Valid {
		return "–"
	}
	return cmp.Or(report.Number(1000*v.V, 3), "0") + " ms"
}
