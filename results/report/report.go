// Package report is what a person reads after a run: one page that says what
// was checked, what came out, how far to trust it, what it cost, and where to
// look further.
//
// [Report] is a plain document; its JSON is a promise. [Report.Terminal] and
// [Report.Markdown] render it. Every text in it may come from a stranger's
// paper or repository: both renderings neutralise terminal escapes, Markdown
// and HTML.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
)

// SchemaV1 names the version of the document's shape.
const SchemaV1 = "repromill.report/v1"

// Report is the outcome of one run.
type Report struct {
	Schema   string    `json:"schema"`
	RunID    string    `json:"run_id"`
	PlanHash string    `json:"plan_hash,omitempty"`
	Created  time.Time `json:"created"`
	Finished time.Time `json:"finished,omitzero"`

	// Notices stand before everything else: that the code is not the authors',
	// that the numbers are simulated.
	Notices []string `json:"notices,omitempty"`

	Target Target  `json:"target"`
	Paper  *Paper  `json:"paper,omitempty"`
	Model  *Model  `json:"model,omitempty"`
	Source *Source `json:"source,omitempty"` // nil when no code was found

	Verdict string `json:"verdict"` // one of the words below
	Reason  string `json:"reason,omitempty"`

	Claims []Claim `json:"claims"`
	Runs   []Run   `json:"runs"`
	Suites []Suite `json:"suites,omitempty"`
	Cost   Cost    `json:"cost"`

	Deviations []Deviation `json:"deviations,omitempty"`
	Warnings   []Warning   `json:"warnings,omitempty"`

	Results Results `json:"results"`
	// Look are commands that show the rows behind the report, Rerun the one
	// that repeats the run.
	Look  []Hint `json:"look,omitempty"`
	Rerun string `json:"rerun,omitempty"`
}

// The verdicts on a claim, and on a run as a whole.
const (
	Aligned          = "aligned"
	PartiallyAligned = "partially_aligned"
	Inconclusive     = "inconclusive"
	NotAttempted     = "not_attempted"
	NotCheckable     = "not_checkable"
)

// Target is what the user asked for.
type Target struct {
	Input   string `json:"input"`
	Kind    string `json:"kind"`
	ID      string `json:"id"`
	Version string `json:"version,omitempty"`
	URL     string `json:"url,omitempty"`
}

// Paper is the paper whose claims were checked.
type Paper struct {
	ID      string   `json:"id"`
	Version string   `json:"version,omitempty"`
	Title   string   `json:"title"`
	Authors []string `json:"authors,omitempty"`
	URL     string   `json:"url,omitempty"`
}

// Model is a hub model that was the target.
type Model struct {
	ID       string `json:"id"`
	Revision string `json:"revision,omitempty"`
	Format   string `json:"format,omitempty"`
}

// Source is the code that ran.
type Source struct {
	Repo      string `json:"repo"`
	Commit    string `json:"commit,omitempty"`
	Subdir    string `json:"subdir,omitempty"`
	StatedBy  string `json:"stated_by,omitempty"` // user|author|author_page|hub_curated|hub_claimed|aggregator|mirror
	Note      string `json:"note,omitempty"`
	Simulated bool   `json:"simulated,omitempty"`
}

// Run is one command that was executed, or was to be.
type Run struct {
	ID        string   `json:"id"`
	Kind      string   `json:"kind,omitempty"` // smoke|minimal|full
	Command   string   `json:"command"`
	Cwd       string   `json:"cwd,omitempty"`
	Seeds     string   `json:"seeds,omitempty"` // with which, and how they reach the code
	Status    string   `json:"status"`          // succeeded|failed|cancelled|skipped|…
	Reason    string   `json:"reason,omitempty"`
	Exit      *int     `json:"exit,omitempty"`
	WallS     *float64 `json:"wall_s,omitempty"`
	CPUS      *float64 `json:"cpu_s,omitempty"`
	Executor  string   `json:"executor,omitempty"`
	SKU       string   `json:"sku,omitempty"`
	Sandbox   []string `json:"sandbox,omitempty"`         // layers in force
	Missing   []string `json:"sandbox_missing,omitempty"` // what they do not cover
	NoSandbox bool     `json:"no_sandbox,omitempty"`      // the user asked for none
	Log       string   `json:"log,omitempty"`             // path of its output
}

// Claim is one claim with its verdict.
type Claim struct {
	ID        string     `json:"id"`
	Text      string     `json:"text,omitempty"`
	Metric    string     `json:"metric,omitempty"`
	Unit      string     `json:"unit,omitempty"`
	Relation  string     `json:"relation,omitempty"`  // absolute|ratio|difference
	Baseline  string     `json:"baseline,omitempty"`  // what a ratio or difference is against
	Direction string     `json:"direction,omitempty"` // higher|lower
	Dataset   string     `json:"dataset,omitempty"`
	Reported  *Quantity  `json:"reported,omitempty"`
	Measured  *Quantity  `json:"measured,omitempty"`
	Tolerance *Tolerance `json:"tolerance,omitempty"`
	Verdict   string     `json:"verdict"`
	Reason    string     `json:"reason,omitempty"`
	Stated    Place      `json:"stated,omitzero"` // where the claim stands
	Read      Place      `json:"read,omitzero"`   // where the measured value was read
}

// Quantity is a number with its range or interval, in the claim's unit.
type Quantity struct {
	Value     *float64 `json:"value,omitempty"`
	Lo        *float64 `json:"lo,omitempty"`
	Hi        *float64 `json:"hi,omitempty"`
	Level     *float64 `json:"level,omitempty"` // of an interval: 0.95 for 95 %
	N         *int64   `json:"n,omitempty"`     // observations
	Method    string   `json:"method,omitempty"`
	Simulated bool     `json:"simulated,omitempty"`
}

// Tolerance is how far the measured value may lie from the reported one.
type Tolerance struct {
	Value  float64 `json:"value"`
	Kind   string  `json:"kind"` // absolute|relative
	Source string  `json:"source"`
}

// Place is where something was read.
type Place struct {
	Paper string `json:"paper,omitempty"` // abstract, table 2, …
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
	Quote string `json:"quote,omitempty"`
}

// Cost is what the run was expected to use, and what it used.
type Cost struct {
	SKU      string `json:"sku,omitempty"`
	GPUs     int    `json:"gpus,omitempty"`
	GPUHours Amount `json:"gpu_hours,omitzero"`
	USD      Amount `json:"usd,omitzero"`
	WallS    Amount `json:"wall_s,omitzero"`
	CPUS     Amount `json:"cpu_s,omitzero"`
}

// Amount is one kind of cost. P10 and P90 bound the estimate.
type Amount struct {
	P10      *float64 `json:"p10,omitempty"`
	P50      *float64 `json:"p50,omitempty"`
	P90      *float64 `json:"p90,omitempty"`
	Measured *float64 `json:"measured,omitempty"`
}

// Deviation is a difference between what was declared and what was used.
type Deviation struct {
	What     string `json:"what"`
	Declared string `json:"declared,omitempty"`
	Used     string `json:"used,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Warning is something the reader should know.
type Warning struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Results is where the rows of the run lie.
type Results struct {
	Root     string       `json:"root,omitempty"`
	Manifest string       `json:"manifest,omitempty"`
	Tables   []TableCount `json:"tables,omitempty"`
}

// TableCount is how many rows the run has in a table.
type TableCount struct {
	Table string `json:"table"`
	Rows  int64  `json:"rows"`
}

// Hint is a command with what it shows.
type Hint struct {
	Shows   string `json:"shows"`
	Command string `json:"command"`
}

// JSON writes the document, indented. Numbers that JSON cannot hold are left
// out.
func (r *Report) JSON(w io.Writer) error {
	c := *r
	c.Schema = SchemaV1
	c.Claims = append([]Claim{}, r.Claims...)
	for i := range c.Claims {
		c.Claims[i].Reported = c.Claims[i].Reported.finite()
		c.Claims[i].Measured = c.Claims[i].Measured.finite()
	}
	c.Runs = append([]Run{}, r.Runs...)
	for i := range c.Runs {
		c.Runs[i].WallS, c.Runs[i].CPUS = finite(c.Runs[i].WallS), finite(c.Runs[i].CPUS)
	}
	for _, a := range []*Amount{&c.Cost.GPUHours, &c.Cost.USD, &c.Cost.WallS, &c.Cost.CPUS} {
		*a = Amount{finite(a.P10), finite(a.P50), finite(a.P90), finite(a.Measured)}
	}
	b, err := json.MarshalIndent(&c, "", "  ")
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// finite is p, or nil for what is no number.
func finite(p *float64) *float64 {
	if p == nil || math.IsNaN(*p) || math.IsInf(*p, 0) {
		return nil
	}
	return p
}

func (q *Quantity) finite() *Quantity {
	if q == nil {
		return nil
	}
	c := *q
	c.Value, c.Lo, c.Hi, c.Level = finite(q.Value), finite(q.Lo), finite(q.Hi), finite(q.Level)
	return &c
}

// Parse reads a document that JSON wrote.
func Parse(b []byte) (*Report, error) {
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	if r.Schema != SchemaV1 {
		return nil, fmt.Errorf("read report: its schema is %q; this program reads %q", r.Schema, SchemaV1)
	}
	return r, nil
}

// Tally says in words how the claims came out: "2 of 3 claims aligned, 1
// inconclusive".
func (r *Report) Tally() string {
	if len(r.Claims) == 0 {
		if text := r.compared(); text != "" {
			return text
		}
		return "no claim to check"
	}
	count := map[string]int{}
	for _, c := range r.Claims {
		count[c.Verdict]++
	}
	parts := []string{fmt.Sprintf("%d of %s aligned", count[Aligned], plural(len(r.Claims), "claim"))}
	for _, v := range []string{PartiallyAligned, Inconclusive, NotAttempted, NotCheckable} {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], words(v)))
		}
	}
	return strings.Join(parts, ", ")
}

// words is a verdict as people write it.
func words(verdict string) string { return strings.ReplaceAll(verdict, "_", " ") }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%s %ss", Number(float64(n), 15), noun)
}

// DuckDB is a shell command that shows the rows a run has in a table of the
// dataset at root.
func DuckDB(root, version, table, runID, columns string) string {
	sqlQuote := func(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
	sql := fmt.Sprintf("SELECT %s FROM read_parquet(%s, hive_partitioning=true, union_by_name=true) WHERE run_id=%s",
		columns, sqlQuote(root+"/"+table+"/"+version+"/**/*.parquet"), sqlQuote(runID))
	return "duckdb -c " + shellQuote(sql)
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(s) + `"`
}
