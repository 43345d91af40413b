package report

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Both renderings keep to one page: of a long list they show the beginning and
// say how much there is more. The JSON has everything.
const (
	maxClaims     = 10
	maxRuns       = 4
	maxDeviations = 6
	maxWarnings   = 5
	maxReason     = 240 // columns of free text
	maxQuote      = 160
)

// cut returns the part of list that is shown and what to say of the rest.
func cut[T any](list []T, n int) (shown []T, rest string) {
	if len(list) <= n {
		return list, ""
	}
	return list[:n], fmt.Sprintf("… and %d more, in the JSON report", len(list)-n)
}

// ordered lists the claims with those that were judged first.
func (r *Report) ordered() []Claim {
	list := slices.Clone(r.Claims)
	slices.SortStableFunc(list, func(a, b Claim) int { return unjudged(a.Verdict) - unjudged(b.Verdict) })
	return list
}

func unjudged(verdict string) int {
	switch verdict {
	case NotAttempted:
		return 1
	case NotCheckable:
		return 2
	}
	return 0
}

// alike is how many claims at the head of a list can be told as one: they were
// not judged, nothing was measured, and the reason is the same.
func alike(list []Claim) int {
	n := 1
	for first := &list[0]; n < len(list); n++ {
		c := &list[n]
		if unjudged(c.Verdict) == 0 || c.Verdict != first.Verdict || c.Reason != first.Reason || c.Measured != nil || first.Measured != nil {
			break
		}
	}
	return n
}

// name is what a claim is called on the page.
func (c *Claim) name() string {
	if c.Metric != "" {
		return c.Metric
	}
	return c.ID
}

// subject is what the report is about, in one line.
func (r *Report) subject() (title, id string) {
	id = r.Target.ID
	if r.Target.Kind == "arxiv" {
		id = "arXiv " + id
	}
	version := r.Target.Version
	switch {
	case r.Paper != nil:
		title = r.Paper.Title
		if r.Paper.Version != "" {
			version = r.Paper.Version
		}
	case r.Model != nil:
		title = r.Model.ID
		if strings.HasPrefix(title, "/") { // a folder, whose whole path stands below
			title = path.Base(title)
		}
		if r.Model.Format != "" {
			title += " (" + r.Model.Format + ")"
		}
	}
	if title == "" {
		title = r.Target.Input
	}
	return title, id + version
}

// codeLine says what code ran and who says that it is the right one.
func (s *Source) line() string {
	if s == nil {
		return "none found"
	}
	out := s.Repo
	if s.Subdir != "" && s.Subdir != "." {
		out += " (" + s.Subdir + ")"
	}
	if s.Commit != "" {
		out += " at " + s.Commit[:min(12, len(s.Commit))]
	}
	if s.StatedBy != "" {
		out += ", stated by " + words(s.StatedBy)
	}
	return out
}

// how says how a run ended, with its time and isolation.
func (r *Run) how() string {
	parts := []string{words(r.Status)}
	if r.Exit != nil && *r.Exit != 0 {
		parts = append(parts, fmt.Sprintf("exit code %d", *r.Exit))
	}
	if r.WallS != nil {
		parts = append(parts, Seconds(*r.WallS))
	}
	if where := strings.TrimSpace(r.Executor + " " + r.SKU); where != "" {
		parts = append(parts, where)
	}
	return strings.Join(parts, ", ")
}

// isolation says what stood between the run and the machine.
func (r *Run) isolation() string {
	switch {
	case r.NoSandbox:
		return "none: switched off by the user"
	case len(r.Sandbox) == 0:
		return ""
	case len(r.Missing) == 0:
		return strings.Join(r.Sandbox, ", ")
	}
	return strings.Join(r.Sandbox, ", ") + "; not covered: " + strings.Join(r.Missing, "; ")
}

// place is "results.json:12" or "table 2".
func (p Place) place() string {
	var parts []string
	if p.Paper != "" {
		parts = append(parts, p.Paper)
	}
	switch {
	case p.File != "" && p.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", p.File, p.Line))
	case p.File != "":
		parts = append(parts, p.File)
	}
	return strings.Join(parts, ", ")
}

// notes on the measured value: how many observations, by what method.
func (q *Quantity) notes() string {
	if q == nil || q.Value == nil {
		return ""
	}
	var parts []string
	if q.Level != nil && q.Lo != nil {
		parts = append(parts, Number(*q.Level*100, 3)+" % interval")
	}
	if q.N != nil {
		parts = append(parts, "n="+Number(float64(*q.N), 15))
	}
	if q.Method != "" {
		parts = append(parts, q.Method)
	}
	if q.Simulated {
		parts = append(parts, "simulated")
	}
	return strings.Join(parts, ", ")
}

// lines lists the costs that are known: what, measured, estimated.
func (c *Cost) lines() [][3]string {
	var out [][3]string
	add := func(name string, a Amount, format func(float64) string) {
		if a.zero() {
			return
		}
		out = append(out, [3]string{name, a.measured(format), a.estimated(format)})
	}
	unit := func(u string) func(float64) string {
		return func(v float64) string { return WithUnit(Number(v, 3), u) }
	}
	add("GPU time", c.GPUHours, unit("GPU h"))
	add("money", c.USD, unit("USD"))
	add("wall clock", c.WallS, Seconds)
	add("CPU time", c.CPUS, Seconds)
	return out
}

// zero reports an amount that nobody has to read: unknown, or nothing expected
// and nothing used.
func (a *Amount) zero() bool {
	for _, v := range []*float64{a.P10, a.P50, a.P90, a.Measured} {
		if v != nil && *v != 0 {
			return false
		}
	}
	return true
}

func (a *Amount) measured(format func(float64) string) string {
	if a.Measured == nil {
		return "–"
	}
	return format(*a.Measured)
}

func (a *Amount) estimated(format func(float64) string) string {
	switch {
	case a.P50 == nil:
		return "–"
	case a.P10 == nil || a.P90 == nil:
		return format(*a.P50)
	}
	return fmt.Sprintf("%s (%s to %s)", format(*a.P50), format(*a.P10), format(*a.P90))
}

// line is "numpy: 1.19 declared, 2.1 used: no wheel for this Python".
func (d *Deviation) line() string {
	var parts []string
	if d.Declared != "" {
		parts = append(parts, d.Declared+" declared")
	}
	if d.Used != "" {
		parts = append(parts, d.Used+" used")
	}
	out := d.What
	if len(parts) > 0 {
		out += ": " + strings.Join(parts, ", ")
	}
	if d.Reason != "" {
		out += "; " + d.Reason
	}
	return out
}

// tableCounts is "runs 1, metrics 3".
func (r *Results) tableCounts() string {
	parts := make([]string, len(r.Tables))
	for i, t := range r.Tables {
		parts[i] = t.Table + " " + Number(float64(t.Rows), 15)
	}
	return strings.Join(parts, ", ")
}
