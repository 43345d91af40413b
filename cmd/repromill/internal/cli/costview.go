package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/repromill/repromill/planner/spec"
)

// costs shows what a plan takes: one line for each GPU model, on-demand and
// owned money apart.
func (v planView) costs(all []spec.Estimate) {
	var list []spec.Estimate
	others := map[string][]spec.Estimate{}
	for _, e := range all {
		if e.Scope == "" {
			list = append(list, e)
		} else {
			others[e.Scope] = append(others[e.Scope], e)
		}
	}
	v.job(list)
	for _, scope := range slices.Sorted(maps.Keys(others)) {
		v.row("", fmt.Sprintf("%s, which is not selected, would take:", strings.TrimPrefix(scope, "run/")))
		v.job(others[scope])
	}
}

func (v planView) job(list []spec.Estimate) {
	if len(list) == 0 {
		return
	}
	if len(list) == 1 && (list[0].GPUs == 0 || list[0].SKU == "none") {
		v.lone(&list[0])
		return
	}
	rows := [][]string{{"GPU", "GPUS", "FITS", "GPU-HOURS (10–90 %)", "WALL", "USD ON DEMAND", "USD OWNED"}}
	unknown := true
	for i := range list {
		e := &list[i]
		wall := "-"
		if e.WallS != nil {
			wall = duration(e.WallS.P50)
		}
		rows = append(rows, []string{e.SKU, dash(e.GPUs), e.Fits, hours(e.GPUHours, e.Fits), wall, money(e.USD), money(e.OwnedUSD)})
		unknown = unknown && e.GPUHours == nil
	}
	if unknown && allSame(list) {
		v.lone(&list[0])
		return
	}
	for i, line := range aligned(rows) {
		fmt.Fprintf(v.w, "%s%s\n", v.paint.dim(fmt.Sprintf("%-13s", label(i, "cost"))), line)
	}
	v.costNotes(list)
}

// lone is a cost that is the same whatever the GPU: none, or unknown.
func (v planView) lone(e *spec.Estimate) {
	switch {
	case e.GPUHours == nil:
		v.row("cost", "not known: "+e.Reason)
	case e.WallS != nil:
		v.row("cost", fmt.Sprintf("0 GPU-hours, about %s (%s to %s): %s", duration(e.WallS.P50), duration(e.WallS.P10), duration(e.WallS.P90), strings.Join(e.SupportedBy, "; ")))
	default:
		v.row("cost", "0 GPU-hours: "+strings.Join(e.SupportedBy, "; ")+"; "+e.Reason)
	}
	for _, a := range e.Assumptions {
		v.row("", a)
	}
}

// costNotes say what the numbers rest on, once for all GPUs.
func (v planView) costNotes(list []spec.Estimate) {
	var said []string
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(said, s) && len(said) < 12 {
			said = append(said, s)
			v.row("", s)
		}
	}
	for i := range list {
		if e := &list[i]; e.Reason != "" {
			say("%s: %s", e.SKU, e.Reason)
		}
	}
	best := cheapest(list)
	if best == nil {
		return
	}
	if len(best.Parts) > 1 {
		say("on %s most goes to %s", best.SKU, best.Dominant)
	}
	if best.HostedUSD != nil {
		say("the same tokens from a host that bills by token: %s USD", between4(best.HostedUSD))
	}
	if n := len(best.SupportedBy); n > 0 {
		say("rests on %s", strings.Join(best.SupportedBy[:min(n, 6)], "; "))
	}
	for _, a := range best.Assumptions {
		say("assumes: %s", a)
	}
}

func cheapest(list []spec.Estimate) *spec.Estimate {
	var best *spec.Estimate
	for i := range list {
		e := &list[i]
		if e.GPUHours == nil {
			continue
		}
		if best == nil || (e.USD != nil && (best.USD == nil || e.USD.P50 < best.USD.P50)) {
			best = e
		}
	}
	return best
}

func allSame(list []spec.Estimate) bool {
	for _, e := range list {
		if e.Reason != list[0].Reason {
			return false
		}
	}
	return true
}

func hours(i *spec.Interval, fits string) string {
	switch {
	case i == nil && fits == "no":
		return "does not fit"
	case i == nil:
		return "not known"
	}
	return between4(i)
}

func money(i *spec.Interval) string {
	if i == nil {
		return "-"
	}
	return between4(i)
}

func dash(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func between4(i *spec.Interval) string {
	return sig(i.P50) + " (" + sig(i.P10) + "–" + sig(i.P90) + ")"
}

// duration is a number of seconds as people say it.
func duration(s float64) string {
	switch {
	case s >= 2*86400:
		return sig(s/86400) + " d"
	case s >= 2*3600:
		return sig(s/3600) + " h"
	case s >= 120:
		return sig(s/60) + " min"
	}
	return sig(s) + " s"
}

// aligned pads cells to columns.
func aligned(rows [][]string) []string {
	var width []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	out := make([]string, 0, len(rows))
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			b.WriteString(c)
			b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+2))
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}
