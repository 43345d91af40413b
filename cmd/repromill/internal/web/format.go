package web

import (
	"fmt"
	"html/template"
	"math"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/plot"
	"github.com/repromill/repromill/results/report"
	"github.com/repromill/repromill/runner/store"
)

// funcs are what the templates call. html/template escapes what they return.
func funcs(assets map[string]string) template.FuncMap {
	return template.FuncMap{
		"asset": func(name string) string { return assets[name] },
		"words": words,
		"ink":   func(v string) string { return string(report.InkOf(v)) },
		"mark":  report.Mark,
		"ago":   ago,
		"utc":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"dur":   report.Seconds,
		"short": func(s string) string { return s[:min(12, len(s))] },
		"stateink": func(s store.State) string {
			switch s {
			case store.Done:
				return "green"
			case store.Failed:
				return "red"
			case store.Running, store.Planning, store.Approved, store.Created:
				return "blue"
			case store.Planned:
				return "orange"
			}
			return "muted"
		},
		"statewords": stateWords,
		"interval":   interval,
		"seconds":    secondsInterval,
		"num":        func(v float64) string { return report.Number(v, 3) },
		"clean":      clean,
		"join":       strings.Join,
		"link":       link,
		"points":     func(v float64) float64 { return 100 * v },
		"at":         func(v *float64) float64 { return 100 * *v },
		"inline": func(f any) template.HTML {
			if x, ok := f.(*plot.Figure); ok && x != nil {
				return report.Inline(x)
			}
			return ""
		},
		"spark": spark,
	}
}

func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

// stateWords says what a state means to who waits.
func stateWords(s store.State) string {
	switch s {
	case store.Created:
		return "queued"
	case store.Planned:
		return "waits for approval"
	case store.Approved:
		return "approved, queued"
	}
	return string(s)
}

// clean takes out of a stranger's text what is not seen or turns text around.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0x200b || r == 0xfeff:
			return '\uFFFD'
		}
		return r
	}, s)
}

// link is an address that may be shown as a link; "" for all others.
func link(u string) string {
	if strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "http://") {
		return u
	}
	return ""
}

// ago is how long ago something was.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	switch {
	case t.IsZero():
		return ""
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return t.UTC().Format("2 Jan 2006")
}

// interval is a distribution in words, "3.1 (2.4–5)".
func interval(i *spec.Interval) string {
	if i == nil {
		return "not known"
	}
	if i.P10 == i.P50 && i.P50 == i.P90 {
		return report.Number(i.P50, 3)
	}
	return fmt.Sprintf("%s (%s–%s)", report.Number(i.P50, 3), report.Number(i.P10, 2), report.Number(i.P90, 2))
}

func secondsInterval(i *spec.Interval) string {
	if i == nil {
		return "not known"
	}
	return fmt.Sprintf("%s (%s to %s)", report.Seconds(i.P50), report.Seconds(i.P10), report.Seconds(i.P90))
}

// percentOf is a share for a bar, from 0 to 100.
func percentOf(v, of float64) int {
	if !(of > 0) || math.IsNaN(v) {
		return 0
	}
	return int(math.Round(100 * min(1, max(0, v/of))))
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}
	return ""
}

// spark draws the history of a series; its last value stands out.
func spark(values []*float64) template.HTML {
	if len(values) < 2 {
		return ""
	}
	nights := make([]plot.Night, len(values))
	for i, v := range values {
		nights[i].Value = math.NaN()
		if v != nil {
			nights[i].Value = *v
		}
	}
	nights[len(nights)-1].Ink = plot.Blue
	return report.Inline(plot.Sparkline(nights, fmt.Sprintf("%d nights", len(values))))
}
