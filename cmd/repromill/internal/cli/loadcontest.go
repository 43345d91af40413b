package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner/server"
	"github.com/repromill/repromill/suites/endpoint"
	"github.com/repromill/repromill/suites/load/bench"
	"github.com/repromill/repromill/suites/load/compare"
	"github.com/repromill/repromill/suites/load/measure"
)

// contestConfig is how the cells of a contest are measured. Each schedule is
// proven once for each start.
func (a *app) contestConfig(ctx context.Context, f *loadFlags) (cfg bench.Config, stop func(), err error) {
	if cfg, err = a.benchConfig(f); err != nil {
		return cfg, nil, err
	}
	cfg.CheckOnce = true
	cfg.Progress = func(l bench.Live) { a.fetching(int64(l.Done), int64(l.Total), "requests", liveLine(l)) }
	if f.noCheck {
		return cfg, func() {}, nil
	}
	cfg.NullITL = f.nullITL
	cfg.NullURL, stop, err = nullServer(ctx, f.nullITL)
	return cfg, stop, err
}

// foreign is an arm whose servers somebody else started.
func foreign(cfg bench.Config, urls ...string) func(context.Context) (bench.Up, error) {
	cfg.URLs = urls
	return func(context.Context) (bench.Up, error) { return bench.Up{Config: cfg}, nil }
}

// served is an arm that is started for each round: how is vllm, sglang,
// docker:IMAGE or a command with {port}.
func (a *app) served(cfg bench.Config, how string, arm spec.Arm) (func(context.Context) (bench.Up, error), error) {
	if err := server.CheckTemplate(how); err != nil {
		return nil, err
	}
	c, err := a.serverConfig()
	if err != nil {
		return nil, err
	}
	c.How, c.Key, c.Now = func(spec.Arm) string { return how }, func(string) endpoint.Secret { return cfg.Key }, a.now
	c.Progress = func(_, doing string) { a.fetching(0, 0, "", doing) }
	host, err := server.New(c)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (bench.Up, error) {
		s, err := host.Start(ctx, arm)
		if err != nil {
			return bench.Up{}, err
		}
		up := bench.Up{Config: cfg, Fresh: true, Stop: func() error { return s.Stop(context.WithoutCancel(ctx)) }}
		up.Config.URLs = []string{s.Endpoint()}
		up.Config.Identify = func(ctx context.Context, _ int) (endpoint.Identity, error) { return s.Identity(ctx) }
		return up, nil
	}, nil
}

// contested is what a contest gave, for printing and for the results.
type contested struct {
	Arms      []string              `json:"arms"`
	Servers   map[string]string     `json:"servers"` // engine and version of each arm
	Simulated bool                  `json:"simulated"`
	Rounds    int                   `json:"rounds"`
	Repeats   int                   `json:"repeats"`
	Totals    map[string]*armTotals `json:"totals"`
	Blocks    []contestBlock        `json:"blocks"`
	Results   []compare.Comparison  `json:"comparisons"`
	Stopped   bool                  `json:"stopped,omitempty"`
	RunID     string                `json:"run_id,omitempty"`
	Dataset   string                `json:"dataset,omitempty"`
	Warnings  []string              `json:"warnings,omitempty"`

	measured []bench.Measured
	rows     contestRows
}

// armTotals are an arm's sums over all blocks. Counters are absent where its
// servers keep none.
type armTotals struct {
	Starts      int      `json:"starts"` // distinct processes that were measured
	Requests    int      `json:"requests"`
	Preemptions *float64 `json:"preemptions,omitempty"`
	GPUSeconds  *float64 `json:"gpu_s,omitempty"`
	// TTFT of short and long requests over all blocks, whichever pool they went
	// to; of a comparison of pools only.
	Classes map[string]measure.Dist `json:"ttft_intended_s,omitempty"`
}

func (t *armTotals) add(c *bench.Cell) {
	sum := func(to **float64, v *float64) {
		if v == nil {
			return
		}
		if *to == nil {
			*to = new(float64)
		}
		**to += *v
	}
	t.Requests += len(c.Result.Records)
	sum(&t.Preemptions, c.Preempted)
	sum(&t.GPUSeconds, c.GPUSeconds)
}

// contestBlock is one block as it is printed.
type contestBlock struct {
	Arm    string             `json:"arm"`
	Round  int                `json:"round"` // from 1
	Repeat int                `json:"repeat"`
	Cell   string             `json:"cell"`
	Void   bool               `json:"void,omitempty"`
	Why    string             `json:"why,omitempty"`
	Values map[string]float64 `json:"values"`
}

type contestRows struct {
	requests []schema.RequestRow
	metrics  []schema.MetricRow
	servers  []schema.ServerRow
}

// contest measures arms and gathers their rows as it goes.
func (a *app) contest(ctx context.Context, c bench.Contest, suite string) (*contested, []compare.Block, error) {
	u := a.ui()
	defer u.abandon()
	out := &contested{Servers: map[string]string{}, Rounds: c.Rounds, Repeats: c.Repeats, Totals: map[string]*armTotals{}}
	for _, arm := range c.Arms {
		out.Arms = append(out.Arms, arm.Name)
		out.Totals[arm.Name] = &armTotals{}
	}
	c.Doing = u.start
	c.Seen = func(m bench.Measured) {
		u.abandon()
		out.take(m, suite)
		if !a.jsonOut {
			fmt.Fprintf(a.stdout, "%2d %-12s ", m.Round+1, clean(m.Arm.Name))
			a.printCellRow(m.Cell)
		}
	}
	if !a.jsonOut {
		fmt.Fprint(a.stdout, "TTFT counts from the intended moment; p50 / p99 where the sample supports it; rates are those of the steady window\nRD ARM          ")
		fmt.Fprintf(a.stdout, cellFormat, "CELL", "REQ/S", "OUT TOK/S", "TTFT", "E2E", "TPOT", "ITL p99", "OK", "")
	}
	blocks, err := c.Run(ctx)
	out.Stopped = ctx.Err() != nil
	for _, b := range blocks {
		out.Blocks = append(out.Blocks, contestBlock{b.Arm, b.Round + 1, b.Repeat + 1, b.Cell, b.Void, b.Why, b.Values})
	}
	for _, arm := range out.Arms {
		out.Totals[arm].Starts = len(bench.Processes(blocks, arm))
	}
	return out, blocks, err
}

func (o *contested) take(m bench.Measured, suite string) {
	o.measured = append(o.measured, m)
	o.Simulated = o.Simulated || m.Bench.Simulated()
	id := m.Bench.Identities[0]
	o.Servers[m.Arm.Name] = strings.TrimSpace(id.Engine + " " + id.Version)
	o.Totals[m.Arm.Name].add(m.Cell)
	place := bench.Place{Suite: suite, Arm: m.Arm.Name, Repeat: m.Index}
	reqs, metrics := m.Bench.Rows(m.Cell, place)
	o.rows.requests, o.rows.metrics = append(o.rows.requests, reqs...), append(o.rows.metrics, metrics...)
	o.rows.servers = append(o.rows.servers, m.Bench.ServerRows([]*bench.Cell{m.Cell}, place)...)
}

// saveContest commits the blocks and what they show as one run.
func (a *app) saveContest(ctx context.Context, o *contested, suite, title string, seed uint64, began time.Time) error {
	d, err := a.dataset()
	if err != nil {
		return err
	}
	id, end := ulid.Make().String(), a.now()
	common := schema.Common{RunID: id, Kind: schema.Measured, Simulated: o.Simulated, SchemaVersion: schema.Version}
	for i := range o.rows.requests {
		o.rows.requests[i].Common = common
	}
	for i := range o.rows.metrics {
		o.rows.metrics[i].Common = common
	}
	for i := range o.rows.servers {
		o.rows.servers[i].Common, o.rows.servers[i].Seq = common, int64(i)
	}
	tx := d.Begin(id, began)
	err = errors.Join(
		dataset.Add(tx, schema.RunRow{Common: common, Status: "succeeded", CreatedAt: began, StartedAt: began, FinishedAt: end, TargetInput: strings.Join(o.Arms, " "),
			Title: title, Seeds: fmt.Sprint(seed), WallS: schema.Some(end.Sub(began).Seconds())}),
		dataset.Add(tx, o.rows.requests...), dataset.Add(tx, o.rows.metrics...), dataset.Add(tx, o.rows.servers...),
		dataset.Add(tx, compare.Rows(o.Results, common, suite, end)...))
	if err != nil {
		_ = tx.Abort()
	} else {
		_, err = tx.Commit(ctx)
	}
	if err != nil {
		return fmt.Errorf("save results: %w", err)
	}
	o.RunID, o.Dataset = id, d.Root()
	return nil
}

// printRatios is the table of a contest's results.
func (a *app) printRatios(all []compare.Comparison) {
	w := a.stdout
	if len(all) == 0 {
		fmt.Fprintln(w, "\nno ratio: an arm has no block that can be quoted")
	}
	question := ""
	said := map[string]bool{}
	for _, c := range all {
		head := "At equal configuration"
		if c.Question == compare.BestAtFloor {
			head = fmt.Sprintf("At the best configuration with %g tokens/s or more to each user", c.Floor)
		}
		if head != question {
			question = head
			fmt.Fprintf(w, "\n%s, candidate over baseline:\n%-26s %-32s %10s %10s %7s %19s  %s\n", head, "METRIC", "CELL", clip12(c.Base.Arm), clip12(c.Cand.Arm), "RATIO", "95 %", "")
		}
		cell := c.Base.Cell
		switch {
		case c.Question == compare.BestAtFloor && c.Base.Cell != c.Cand.Cell:
			cell += ", " + c.Cand.Cell
		case cell == "":
			cell = "all cells"
		}
		if c.Ratio == 0 {
			fmt.Fprintf(w, "%-26s %-32s refused: %s\n", c.Metric, cell, clean(c.Reason))
			continue
		}
		interval := "–"
		if i := c.Interval; i != nil {
			interval = fmt.Sprintf("%.3f … %.3f", i.Lo, i.Hi)
		}
		verdict := string(c.Verdict)
		if c.Over == compare.OverProcesses {
			interval += "*"
		}
		if c.Needs > 0 {
			verdict += fmt.Sprintf(" (%d starts of each would tell)", c.Needs)
		}
		fmt.Fprintf(w, "%-26s %-32s %10s %10s %7.3f %19s  %s\n", c.Metric, clean(cell), figure(c.Base.Value, c.Unit), figure(c.Cand.Value, c.Unit), c.Ratio, interval, verdict)
		if c.Verdict == compare.Refused {
			said["refused: "+c.Reason] = true
		}
		if c.Over == compare.OverProcesses {
			said["* of these very processes; the servers as they come up may differ more, or the other way round"] = true
		}
		for _, x := range c.Warnings {
			said["note: "+x] = true
		}
	}
	for _, line := range sortedKeys(said) {
		fmt.Fprintln(w, clean(line))
	}
}

func clip12(s string) string {
	if s = clean(s); len(s) > 10 {
		return s[:9] + "…"
	}
	return s
}

func figure(v float64, unit string) string {
	if unit == "s" {
		return millis(v)
	}
	return fmt.Sprintf("%.4g", v)
}
