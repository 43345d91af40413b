package regress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/results/plot"
)

// Report is what a night's reader is told.
type Report struct {
	Schedule string         `json:"schedule"`
	Night    time.Time      `json:"night"` // newest slot of all series
	Counts   map[Status]int `json:"counts"`
	Alarms   int            `json:"alarms"`
	Lines    []Line         `json:"series"` // what needs attention first
	Policy   Policy         `json:"policy"`
}

// Line is one series: its verdict after the newest slot it has, and its history.
type Line struct {
	Verdict
	Name    string     `json:"name"`
	History []*float64 `json:"history"` // change against the first night, oldest first; null where one is missing
	Changes []Verdict  `json:"changes,omitempty"`
}

// NewReport evaluates series and sums up their newest night.
func NewReport(schedule string, series []Series, p Policy) (*Report, error) {
	all, err := Evaluate(series, p)
	if err != nil {
		return nil, err
	}
	return Summarise(schedule, series, all, p), nil
}

// Summarise sums up what [Evaluate] gave.
func Summarise(schedule string, series []Series, all [][]Verdict, p Policy) *Report {
	r := &Report{Schedule: schedule, Counts: map[Status]int{}, Policy: p.WithDefaults(), Lines: []Line{}}
	for i, verdicts := range all {
		if len(verdicts) == 0 {
			continue
		}
		last := verdicts[len(verdicts)-1]
		l := Line{Verdict: last, Name: series[i].Key.String(), History: history(series[i])}
		for _, v := range verdicts {
			if v.Alarm || v.Status == Improvement {
				l.Changes = append(l.Changes, v)
			}
		}
		if last.Slot.After(r.Night) {
			r.Night = last.Slot
		}
		r.Lines = append(r.Lines, l)
	}
	for _, l := range r.Lines {
		r.Counts[l.Status]++
		if r.tonight(l) {
			r.Alarms++
		}
	}
	slices.SortStableFunc(r.Lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(rank(a.Verdict), rank(b.Verdict)), cmp.Compare(a.Name, b.Name))
	})
	return r
}

// tonight reports whether a line is an alarm of the newest night: series that begin
// at different hours belong to the same.
func (r *Report) tonight(l Line) bool { return l.Alarm && r.Night.Sub(l.Slot) < family }

var order = []Status{Regression, Suspicious, Missing, Improvement, InsufficientData, NoChange}

func rank(v Verdict) int {
	if v.Alarm {
		return -1
	}
	return slices.Index(order, v.Status)
}

// history is the series against its first night with a result, positive is better.
func history(s Series) []*float64 {
	nights := slices.SortedFunc(slices.Values(s.Nights), func(a, b Night) int { return a.Slot.Compare(b.Slot) })
	out := make([]*float64, len(nights))
	first := math.NaN()
	for i, n := range nights {
		var v float64
		switch {
		case n.Missing != "":
			continue
		case n.Paired != nil:
			v = n.Paired.Diff
		default:
			m := median(n.Candidate)
			if math.IsNaN(first) {
				first = m
			}
			v = m/first - 1
			if s.LowerIsBetter {
				v = first/m - 1
			}
		}
		out[i] = &v
	}
	return out
}

// Fails says which of the statuses named, the report has.
func (r *Report) Fails(named []string) (out []string) {
	for _, s := range order {
		if r.Counts[s] > 0 && slices.Contains(named, string(s)) {
			out = append(out, string(s))
		}
	}
	return out
}

// Words is the status as people read it.
func (s Status) Words() string { return strings.ReplaceAll(string(s), "_", " ") }

// mark is a sign for who does not see colours.
func (v Verdict) mark() string {
	switch {
	case v.Alarm:
		return "!!"
	case v.Status == Regression:
		return "!"
	}
	return map[Status]string{Suspicious: "?", Missing: "-", Improvement: "+", InsufficientData: "~", NoChange: "="}[v.Status]
}

// Amount is the change as people read it; empty where none is known.
func (v Verdict) Amount() string {
	switch {
	case v.Status == Missing, v.Status == InsufficientData && v.Lo == 0 && v.Hi == 0:
		return ""
	case v.Lo == v.Hi:
		return fmt.Sprintf("%+.1f %%", 100*v.Effect)
	}
	return fmt.Sprintf("%+.1f %% [%+.1f, %+.1f]", 100*v.Effect, 100*v.Lo, 100*v.Hi)
}

func (r *Report) head() string {
	var parts []string
	for _, s := range order {
		if n := r.Counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.Words()))
		}
	}
	if len(parts) == 0 {
		return "no night has been run"
	}
	return strings.Join(parts, ", ")
}

// Terminal writes the report as plain text. paint colours a status; nil leaves it.
func (r *Report) Terminal(w io.Writer, paint func(Status, string) string) error {
	if paint == nil {
		paint = func(_ Status, s string) string { return s }
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s", r.Schedule)
	if !r.Night.IsZero() {
		fmt.Fprintf(&b, ", night of %s", r.Night.UTC().Format("2006-01-02 15:04 MST"))
	}
	fmt.Fprintf(&b, ": %s\n", r.head())
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "\n%-2s %s  %s\n   %s", l.mark(), paint(l.Status, l.Status.Words()), l.Name, l.Reason)
		if l.Status != Missing && l.Lo != l.Hi {
			fmt.Fprintf(&b, " (%s)", l.Amount())
		}
		b.WriteString("\n")
		if l.Run != "" {
			fmt.Fprintf(&b, "   run %s: repromill results show %s\n", l.Run, l.Run)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown writes the report as a table, for chats and pull requests.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s: %s\n\n", cell(r.Schedule), r.head())
	if len(r.Lines) > 0 {
		b.WriteString("| | Series | Verdict | Change | Since | Run |\n|---|---|---|---|---|---|\n")
	}
	for _, l := range r.Lines {
		since := ""
		if !l.Since.IsZero() {
			since = day(l.Since)
		}
		word := l.Status.Words()
		if l.Alarm {
			word = "**" + word + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s: %s | %s | %s | %s |\n", l.mark(), cell(l.Name), word, cell(l.Reason), l.Amount(), since, cell(l.Run))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell makes text of unknown origin a table's cell.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "\r", " ", "<", "&lt;", "`", "'").Replace(s)
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

var page = template.Must(template.New("nightly").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{{.Report.Schedule}}: {{.Head}}</title><style>
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--line:#d9dee3;--back:#fff;--bad:#b23b00;--odd:#8a6100;--good:#00704f}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#a3adb8;--line:#333a42;--back:#14171a;--bad:#ff9a66;--odd:#f0c060;--good:#5fd0a5}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:70rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.5rem .6rem;border-top:1px solid var(--line);vertical-align:top}
th{font-weight:600}thead th{border:0;color:var(--soft)}.q{color:var(--soft)}.n{font-variant-numeric:tabular-nums;white-space:nowrap}
.regression{color:var(--bad);font-weight:600}.suspicious,.missing{color:var(--odd);font-weight:600}.improvement{color:var(--good);font-weight:600}
svg{max-width:140px;height:auto;display:block}.ink-blue,.ink-text{stroke:#2b7fc4;fill:none}.fill-red{fill:var(--bad)}.fill-green{fill:var(--good)}.fill-orange{fill:var(--odd)}
.wide{overflow-x:auto}</style></head><body>
<h1>{{.Report.Schedule}}</h1><p>{{.Head}}{{if not .Report.Night.IsZero}} · night of {{.Report.Night.UTC.Format "2 January 2006, 15:04 MST"}}{{end}}</p>
<div class="wide"><table><thead><tr><th>Series</th><th>Verdict</th><th>Change</th><th>History</th></tr></thead><tbody>
{{range .Lines}}<tr><th scope="row">{{.Line.Name}}{{if .Line.Run}}<br><span class="q">run {{.Line.Run}}</span>{{end}}</th>
<td><span class="{{.Line.Status}}">{{.Mark}} {{.Line.Status.Words}}</span><br>{{.Line.Reason}}</td><td class="n">{{.Line.Amount}}</td><td>{{.Spark}}</td></tr>
{{end}}</tbody></table></div>
<p class="q">An alarm takes {{.Report.Policy.Nights}} nights, a change of {{printf "%g" .Floor}} % of a speed or {{printf "%g" .Margin}} points of accuracy, p ≤ {{.Report.Policy.Alpha}} for the series and a false-discovery rate of {{.Report.Policy.FDR}} over the night.</p>
</body></html>
`))

// HTML writes the report as one file without scripts or outside parts.
func (r *Report) HTML(w io.Writer) error {
	type line struct {
		Line  Line
		Mark  string
		Spark template.HTML
	}
	view := struct {
		Report        *Report
		Head          string
		Lines         []line
		Floor, Margin float64
	}{r, r.head(), nil, 100 * r.Policy.Floor, 100 * r.Policy.Margin}
	for _, l := range r.Lines {
		var svg strings.Builder
		if err := l.Spark().SVG(&svg, plot.Light()); err != nil {
			return fmt.Errorf("draw history of %s: %w", l.Name, err)
		}
		view.Lines = append(view.Lines, line{l, l.mark(), template.HTML(svg.String())}) //nolint:gosec // drawn by us
	}
	return page.Execute(w, view)
}

// Spark draws the history of a series, with its last night marked by its verdict.
func (l Line) Spark() *plot.Figure {
	nights := make([]plot.Night, len(l.History))
	for i, v := range l.History {
		nights[i].Value = math.NaN()
		if v != nil {
			nights[i].Value = *v
		}
	}
	if n := len(nights); n > 0 {
		switch l.Status {
		case Regression:
			nights[n-1].Ink = plot.Red
		case Suspicious:
			nights[n-1].Ink = plot.Orange
		case Improvement:
			nights[n-1].Ink = plot.Green
		}
	}
	return plot.Sparkline(nights, "history of "+l.Name)
}

// AlarmText is what a webhook says of the alarms in the slots that news is told of,
// one line each; empty without any.
func (r *Report) AlarmText(news func(slot time.Time) bool) string {
	var b strings.Builder
	for _, l := range r.Lines {
		for _, v := range l.Changes {
			if v.Alarm && news(v.Slot) {
				fmt.Fprintf(&b, "%s: %s (%s), run %s\n", l.Name, v.Reason, v.Amount(), v.Run)
			}
		}
	}
	return strings.TrimSpace(b.String())
}
