package cli

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/repromill/repromill/cmd/repromill/internal/web"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/runner/nightly"
)

// nightlyGrid shows a schedule on the pages. Another process works it, so that its
// files are looked at each time; what they gave is kept until one of them changes.
type nightlyGrid struct {
	app  *app
	path string
	src  nightly.Source
	read *nightly.Reader

	mu    sync.Mutex
	print string
	grid  web.Grid
}

func (a *app) nightlyGrid(path string, data *dataset.Dataset) *nightlyGrid {
	src := nightly.FromDataset(data)
	return &nightlyGrid{app: a, path: path, src: src, read: nightly.NewReader(src, 0)}
}

// Nights implements [web.Nightly].
func (g *nightlyGrid) Nights(ctx context.Context) (web.Grid, error) {
	s, n, err := g.app.schedule(g.path, nil)
	if err != nil {
		return web.Grid{}, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	print, err := n.Fingerprint(g.src)
	if err != nil || print == g.print {
		return g.grid, err
	}
	history, err := n.History(ctx, g.read)
	if err != nil {
		return web.Grid{}, err
	}
	r, err := regress.NewReport(s.Name, history, s.Policy)
	if err != nil {
		return web.Grid{}, err
	}
	var when []string
	for _, e := range s.Series {
		when = append(when, e.Name+" at "+e.At)
	}
	out := gridOf(r)
	out.Schedule = s.Name + ": " + strings.Join(when, ", ") + " " + s.Zone
	for _, l := range r.Lines {
		if l.Status == regress.Missing && !slices.ContainsFunc(out.Missing, func(t time.Time) bool { return t.Equal(l.Slot) }) {
			out.Missing = append(out.Missing, l.Slot)
		}
	}
	g.print, g.grid = print, out
	return out, nil
}

// gridOf puts series into rows, with a column for each GPU model.
func gridOf(r *regress.Report) web.Grid {
	out := web.Grid{Schedule: r.Schedule, Night: r.Night}
	column := func(l regress.Line) string {
		if l.Key.SKU == "" {
			return "any"
		}
		return l.Key.SKU
	}
	for _, l := range r.Lines {
		if c := column(l); !slices.Contains(out.Columns, c) {
			out.Columns = append(out.Columns, c)
		}
	}
	slices.Sort(out.Columns)
	rows := map[string]int{}
	for _, l := range r.Lines {
		k := l.Key
		k.SKU = ""
		name := k.String()
		at, ok := rows[name]
		if !ok {
			at = len(out.Rows)
			rows[name] = at
			out.Rows = append(out.Rows, web.GridRow{Name: name, Cells: make([]web.GridCell, len(out.Columns))})
		}
		cell := web.GridCell{Verdict: string(l.Status), Text: l.Amount(), Detail: l.Reason, RunID: l.Run, History: l.History}
		out.Rows[at].Cells[slices.Index(out.Columns, column(l))] = cell
	}
	return out
}
