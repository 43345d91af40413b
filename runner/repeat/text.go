package repeat

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/repromill/repromill/results/report"
)

// maxShown bounds the lines of each table in text; the JSON has everything.
const maxShown = 30

var signs = map[Status]string{Equal: "=", Within: "~", Beyond: "!", Missing: "-", Absent: " "}

// Text writes the report for people. What comes from outside is written as it is:
// whoever prints to a terminal cleans it.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", strings.ToUpper(string(r.Outcome[:1]))+string(r.Outcome[1:]), r.Reason)
	t := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "\tORIGINAL\tREPETITION\t\n")
	line := func(what, x, y string) {
		if x != "" || y != "" {
			fmt.Fprintf(t, "%s\t%s\t%s\t\n", what, or(x), or(y))
		}
	}
	line("run", r.Original.RunID, r.Repeat.RunID)
	line("verdict", words(r.Original.Verdict), words(r.Repeat.Verdict))
	line("executor", r.Original.Executor, r.Repeat.Executor)
	line("GPU", r.Original.SKU, r.Repeat.SKU)
	line("duration", report.Seconds(r.Original.Spend.WallSeconds), report.Seconds(r.Repeat.Spend.WallSeconds)+ratio(r.Original.Spend.WallSeconds, r.Repeat.Spend.WallSeconds))
	if r.Original.Spend.GPUHours+r.Repeat.Spend.GPUHours > 0 {
		line("GPU-hours", fmt.Sprintf("%.3g", r.Original.Spend.GPUHours), fmt.Sprintf("%.3g%s", r.Repeat.Spend.GPUHours, ratio(r.Original.Spend.GPUHours, r.Repeat.Spend.GPUHours)))
	}
	if r.Original.Spend.USD+r.Repeat.Spend.USD > 0 {
		line("cost, USD", fmt.Sprintf("%.2f", r.Original.Spend.USD), fmt.Sprintf("%.2f", r.Repeat.Spend.USD))
	}
	t.Flush()
	for _, g := range []struct {
		title string
		list  []Value
	}{{"Claims", r.Claims}, {"Other numbers", r.Metrics}, {"Scores", r.Scores}} {
		values(&b, g.title, g.list)
	}
	if len(r.Comparisons) > 0 {
		fmt.Fprintf(&b, "\nComparisons\n")
		for i, d := range r.Comparisons {
			if i == maxShown {
				fmt.Fprintf(&b, "  and %d more\n", len(r.Comparisons)-i)
				break
			}
			fmt.Fprintf(&b, "%s %s: %s: %s, then %s\n", signs[d.Status], d.Suite, d.What, words(d.Original), or(words(d.Repeat)))
		}
	}
	fmt.Fprintf(&b, "\nEnvironment\n")
	if len(r.Environment) == 0 {
		b.WriteString("  the same in all that is recorded\n")
	}
	for i, d := range r.Environment {
		if i == maxShown {
			fmt.Fprintf(&b, "  and %d more\n", len(r.Environment)-i)
			break
		}
		fmt.Fprintf(&b, "  %s: %s, then %s\n", d.What, or(d.Original), or(d.Repeat))
	}
	for line := range strings.Lines(b.String()) {
		if _, err := io.WriteString(w, strings.TrimRight(line, " \n")+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func values(b *strings.Builder, title string, list []Value) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s\n", title)
	t := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	for i, v := range list {
		if i == maxShown {
			fmt.Fprintf(t, "  and %d more\n", len(list)-i)
			break
		}
		allowed := ""
		if v.Allowed != nil && v.Status != Equal {
			allowed = fmt.Sprintf("± %s (%s)", report.Number(*v.Allowed, 3), v.By)
		}
		verdict := ""
		if v.OriginalVerdict != v.RepeatVerdict && v.RepeatVerdict != "" {
			verdict = words(v.OriginalVerdict) + ", then " + words(v.RepeatVerdict)
		}
		name := strings.TrimSpace(v.ID + " " + v.Metric)
		if v.ID == v.Metric {
			name = v.ID
		}
		fmt.Fprintf(t, "%s %s\t%s\t%s\t%s\t%s\t%s\t%s\n", signs[v.Status], name, amount(v.Original), amount(v.Repeat), v.Unit, allowed, verdict, v.Reason)
	}
	t.Flush()
}

func amount(v *float64) string {
	if v == nil {
		return "–"
	}
	return report.Number(*v, 6)
}

func ratio(x, y float64) string {
	if x <= 0 || y <= 0 {
		return ""
	}
	return fmt.Sprintf(" (×%.2f)", y/x)
}

func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

func or(s string) string {
	if strings.TrimSpace(s) == "" {
		return "–"
	}
	return s
}
