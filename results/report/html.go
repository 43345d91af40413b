package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"strings"

	"github.com/repromill/repromill/results/schema"
)

//go:embed report.css
var styleSheet string

//go:embed report.tmpl
var pageText string

// StyleSheet is the CSS of [Report.Body].
func StyleSheet() string { return styleSheet }

// Policy is the content security policy of [Report.HTML]: its own style sheet,
// by its hash, and nothing else.
func Policy() string {
	sum := sha256.Sum256([]byte(styleSheet))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// htmlClaim is a claim as the page shows it.
type htmlClaim struct {
	Claim
	Name, ReportedText, MeasuredText, Notes, ToleranceText, VersusText string
	Query                                                              string
}

type htmlSuite struct {
	Suite
	Title    string
	PaidLine string
	Query    string
	Rows     []htmlComparison
	ArmRows  []htmlArm
}

type htmlComparison struct {
	Comparison
	Difference, Basis string
	Figure            template.HTML
}

type htmlArm struct{ Name, Line string }

type htmlRun struct {
	Run
	How, Isolation string
}

// view is what the template gets: text that is cleaned, and escaped by
// html/template.
type view struct {
	*Report
	Title, ID, Headline, Tally, CodeLine, Tables string
	PaperURL, CodeURL                            string
	Claims                                       []htmlClaim
	Suites                                       []htmlSuite
	Runs                                         []htmlRun
	Deviations                                   []string
	FigClaims, FigCost, FigDiff                  template.HTML
	Standalone                                   bool
	Style                                        template.CSS
	Policy                                       string
}

// web is a link that may be shown: http or https, nothing else.
func web(u string) string {
	if strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://") {
		return u
	}
	return ""
}

func (r *Report) view() *view {
	v := &view{Report: r, Headline: r.Headline(), Tally: r.Tally(), CodeLine: clean(r.Source.line()), Tables: r.Results.tableCounts()}
	title, id := r.subject()
	v.Title, v.ID = clean(title), clean(id)
	v.PaperURL = web(r.Target.URL)
	if r.Source != nil {
		v.CodeURL = web(r.Source.Repo)
	}
	query := func(table, columns, where string) string {
		return DuckDB(r.Results.Root, schema.Version, table, r.RunID, columns) + where
	}
	for _, c := range r.ordered() {
		v.Claims = append(v.Claims, htmlClaim{
			Claim: c, Name: words(clean(c.name())), ReportedText: clean(c.reported()), MeasuredText: clean(c.measured()), Notes: clean(c.Measured.notes()),
			ToleranceText: clean(c.tolerance()), VersusText: clean(c.versus()),
			Query: query(schema.Metrics, "metric, value, unit, seed, file, line, plan_run", ""),
		})
	}
	for i := range r.Suites {
		s := &r.Suites[i]
		h := htmlSuite{Suite: *s, Title: clean(s.title()), PaidLine: s.Paid.line(), Query: query(schema.Comparisons, "suite, arm, baseline, method, n, diff, ci_lo, ci_hi, margin, verdict", "")}
		for j := range s.Comparisons {
			c := &s.Comparisons[j]
			x := htmlComparison{Comparison: *c, Difference: clean(c.difference()), Basis: clean(c.basis(s.Questions))}
			if len(c.Curve) > 1 {
				x.Figure = Inline(c.evidence(s.Questions))
			}
			h.Rows = append(h.Rows, x)
		}
		for j := range s.Arms {
			h.ArmRows = append(h.ArmRows, htmlArm{clean(s.Arms[j].Name), clean(s.Arms[j].line(s.Repeats))})
		}
		v.Suites = append(v.Suites, h)
	}
	for i := range r.Runs {
		v.Runs = append(v.Runs, htmlRun{r.Runs[i], clean(r.Runs[i].how()), clean(r.Runs[i].isolation())})
	}
	for i := range r.Deviations {
		v.Deviations = append(v.Deviations, clean(r.Deviations[i].line()))
	}
	if f := r.claimsFigure(); f != nil {
		v.FigClaims = Inline(f)
	}
	if f := r.costFigure(); f != nil {
		v.FigCost = Inline(f)
	}
	if f := r.Differences(); f != nil {
		v.FigDiff = Inline(f)
	}
	return v
}

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"words": func(v string) string { return clean(words(v)) }, "clean": clean, "place": Place.place, "ink": func(v string) string { return string(InkOf(v)) }, "mark": Mark,
}).Parse(pageText))

// Mark is the sign that stands beside a verdict, so that nothing rests on
// colour alone.
func Mark(verdict string) string {
	switch verdict {
	case Aligned:
		return "✓"
	case PartiallyAligned:
		return "◐"
	case "equivalent", "no_change":
		return "="
	case "better", "not_worse", "improvement":
		return "▲"
	case "worse", "regression":
		return "▼"
	case NotAttempted, NotCheckable, "missing", "insufficient_data":
		return "○"
	}
	return "?"
}

// Body writes the report as the inside of a page that has [StyleSheet].
func (r *Report) Body(w io.Writer) error {
	if err := pageTemplate.ExecuteTemplate(w, "body", r.view()); err != nil {
		return fmt.Errorf("render report: %w", err)
	}
	return nil
}

// HTML writes the report as one file that needs nothing else: styles and
// figures are inside, scripts and requests are forbidden by its own policy.
func (r *Report) HTML(w io.Writer) error {
	v := r.view()
	v.Standalone, v.Style = true, template.CSS(styleSheet)
	v.Policy = Policy()
	if err := pageTemplate.ExecuteTemplate(w, "page", v); err != nil {
		return fmt.Errorf("render report: %w", err)
	}
	return nil
}
