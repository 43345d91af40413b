package web

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner/store"
)

// targetView is what is known about a target before anything is done.
type targetView struct {
	Target spec.Target
	Kind   string
	Text   string // what a submission says
	Title  string
	Runs   []store.Run
	Latest *report.Report
	Token  string
	Queues []string
	Model  bool
	Now    time.Time
}

// targetPage answers for the addresses of arXiv and the hub under this host's
// name. It shows what is known and contacts nobody: planning begins with a form
// of this page, so that no link or image elsewhere can spend a site's patience.
func (s *Server) targetPage(c *call) error {
	t, err := swapped(c.r.URL.Path)
	if err != nil {
		return err
	}
	v := &targetView{Target: t, Kind: map[string]string{target.ArXiv: "arXiv paper", target.HFModel: "model"}[t.Kind], Text: t.URL, Title: t.ID,
		Token: s.token(), Model: t.Kind == target.HFModel, Now: s.cfg.Now()}
	for _, q := range s.cfg.Queues {
		if c.id.Queue(q) {
			v.Queues = append(v.Queues, q)
		}
	}
	ctx := c.r.Context()
	if v.Runs, err = s.cfg.Store.List(ctx, store.Filter{Subject: t.Kind + ":" + t.ID, Limit: 20}); err != nil {
		return err
	}
	for _, run := range v.Runs {
		v.Title = firstOf(run.Title, v.Title)
		if run.State == store.Done {
			if rep, err := s.cfg.Runner.Report(ctx, run.ID); err == nil {
				v.Latest = rep
				break
			}
		}
	}
	return c.render(http.StatusOK, "target.html", v.Title, "", v)
}

// swapped reads a path in which only the host of arxiv.org or huggingface.co was
// exchanged for ours.
func swapped(path string) (spec.Target, error) {
	verb, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	sites := []string{"https://huggingface.co", "https://arxiv.org"}
	switch verb {
	case "abs", "pdf", "html", "format", "e-print", "src", "list", "ps":
		sites = sites[1:]
	}
	var first error // of the site that is most likely meant
	for _, site := range sites {
		t, err := target.Parse(site + path)
		// A model of one word is an address like any other word.
		if err == nil && (t.Kind == target.ArXiv || t.Kind == target.HFModel && strings.Contains(t.ID, "/")) {
			return t, nil
		}
		if first == nil {
			first = err
		}
	}
	detail := "nothing is served at " + clean(path)
	if first != nil {
		detail += ", and it is no address of a paper or model: " + first.Error()
	}
	return spec.Target{}, problemf(http.StatusNotFound, "papers are at /abs/2604.08075, models at /owner/name, or paste any address on the first page", "%s", detail)
}

// compareView is a page of comparisons, newest first.
type compareView struct {
	Rows  []comparedRun
	Query string
	Older bool // it is not the first page
	Next  string
	Now   time.Time
}

type comparedRun struct {
	Run  store.Run
	Rows []report.Comparison
	Fig  any
}

const (
	comparedPerPage = 15
	// comparedLooks bounds how many runs one page looks at: runs of models without a
	// comparison, and such as were cut short, are passed over.
	comparedLooks = 300
)

func (s *Server) comparePage(c *call) error {
	f, err := c.filter(comparedPerPage)
	if err != nil {
		return err
	}
	f.States, f.Kind, f.Subject = []store.State{store.Done}, target.HFModel, ""
	v := &compareView{Query: f.Target, Older: f.Before != nil, Now: s.cfg.Now()}
	for looks := 0; len(v.Rows) < comparedPerPage; {
		runs, err := s.cfg.Store.List(c.r.Context(), f)
		if err != nil {
			return err
		}
		for i := range runs {
			looks++
			f.Before = &runs[i]
			if row, ok := s.compared(c, runs[i]); ok {
				v.Rows = append(v.Rows, row)
			}
			if len(v.Rows) == comparedPerPage {
				break
			}
		}
		if len(runs) < f.Limit && len(v.Rows) < comparedPerPage {
			return c.render(http.StatusOK, "compare.html", "Compare", "compare", v)
		}
		if looks >= comparedLooks {
			break
		}
	}
	v.Next = "/compare?" + url.Values{"q": {v.Query}, "before": {f.Before.ID}}.Encode()
	return c.render(http.StatusOK, "compare.html", "Compare", "compare", v)
}

// compared are the comparisons of a finished run; ok is false where it has none.
func (s *Server) compared(c *call, run store.Run) (row comparedRun, ok bool) {
	rep, err := s.cfg.Runner.Report(c.r.Context(), run.ID)
	if err != nil || len(rep.Suites) == 0 {
		return row, false
	}
	row = comparedRun{Run: run, Fig: rep.Differences()}
	for _, x := range rep.Suites {
		for _, cmp := range x.Comparisons {
			cmp.Candidate = x.ID + ": " + cmp.Candidate
			row.Rows = append(row.Rows, cmp)
		}
	}
	return row, len(row.Rows) > 0
}

func skuIDs() (out []string) {
	for _, x := range sku.Catalogue() {
		out = append(out, x.ID)
	}
	return out
}

type skuView struct {
	*sku.SKU
	Price *sku.Price
	Cells []skuCell
}

type skuCell struct {
	Label, Unit string
	sku.Cell
}

func viewSKU(x *sku.SKU) skuView {
	v := skuView{SKU: x}
	if p, ok := sku.DefaultPrice(x.ID, sku.OnDemand); ok {
		v.Price = &p
	}
	v.Cells = []skuCell{
		{"memory", "GB", x.MemoryGB}, {"bandwidth", "TB/s", x.Bandwidth}, {"BF16", "TFLOPS dense", x.BF16}, {"FP8", "TFLOPS dense", x.FP8},
		{"FP4", "TFLOPS dense", x.FP4}, {"link", "GB/s", x.Link}, {"power", "W", x.PowerW},
	}
	return v
}

func (s *Server) skusPage(c *call) error {
	var list []skuView
	for _, x := range sku.Catalogue() {
		list = append(list, viewSKU(x))
	}
	return c.render(http.StatusOK, "skus.html", "GPUs", "skus", list)
}

func (s *Server) skuPage(c *call) error {
	x, err := sku.Find(c.r.PathValue("id"))
	if err != nil {
		return problemf(http.StatusNotFound, "the GPUs are listed at /skus", "%v", err)
	}
	if x.ID != c.r.PathValue("id") {
		return c.redirect("/skus/" + x.ID)
	}
	return c.render(http.StatusOK, "sku.html", x.Name, "skus", viewSKU(x))
}

// Nightly gives what the nightly page shows. A nil one is a server without a
// schedule.
type Nightly interface {
	Nights(ctx context.Context) (Grid, error)
}

// Grid is the newest nights of every series: rows are suites and metrics of a
// model, columns GPU models.
type Grid struct {
	Schedule string      `json:"schedule"` // its name, and when it fires
	Night    time.Time   `json:"night"`    // of the newest verdicts
	Columns  []string    `json:"columns"`
	Rows     []GridRow   `json:"rows"`
	Missing  []time.Time `json:"missing,omitempty"` // nights without a run
}

// GridRow is one line of the grid.
type GridRow struct {
	Name  string     `json:"name"`
	Cells []GridCell `json:"cells"` // one for each column
}

// GridCell is one series.
type GridCell struct {
	Verdict string     `json:"verdict"` // regression|suspicious|improvement|no_change|insufficient_data|missing; empty: there is no such series
	Text    string     `json:"text"`    // "−3.1 %"
	Detail  string     `json:"detail,omitempty"`
	RunID   string     `json:"run_id,omitempty"`
	History []*float64 `json:"history,omitempty"` // oldest first; nil where a night is missing
}

// apiNightly is the answer of /v1/nightly.
type apiNightly struct {
	Grid *Grid `json:"grid" doc:"Null where the server works no schedule."`
}

func (c *call) apiNightly() (int, any, error) {
	g, err := c.s.nights(c.r.Context())
	return http.StatusOK, apiNightly{g}, err
}

// nights is nil without a schedule.
func (s *Server) nights(ctx context.Context) (*Grid, error) {
	if s.cfg.Nightly == nil {
		return nil, nil
	}
	g, err := s.cfg.Nights(ctx)
	return &g, err
}

func (s *Server) nightlyPage(c *call) error {
	g, err := s.nights(c.r.Context())
	if err != nil {
		return err
	}
	return c.render(http.StatusOK, "nightly.html", "Nightly", "nightly", g)
}

func (s *Server) auditPage(c *call) error {
	list, err := s.cfg.Store.AuditLog(c.r.Context(), c.r.URL.Query().Get("subject"), 0, 200)
	if err != nil {
		return err
	}
	return c.render(http.StatusOK, "audit.html", "Audit log", "", list)
}

func (s *Server) apiPage(c *call) error {
	return c.render(http.StatusOK, "api.html", "API", "api", s.routes)
}
