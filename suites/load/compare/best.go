package compare

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Best compares two arms at their best: of each arm's configurations (setups and
// loads) that give every user at least floor tokens per second, the one with the
// most output tokens per second and GPU. There is one comparison for each
// workload that both arms were measured on.
//
// A best of many is too good by chance: it was chosen because it came out high.
// So each round is measured at the configuration that the other rounds choose,
// which leaves the ratio without that bias (M. Stone, "Cross-validatory choice
// and assessment of statistical predictions", JRSS B 36(2), 1974). The sides name
// the choice of all rounds together. In the worst case, many configurations that
// are equally good, 95 % intervals hold the truth in 90 of 100 experiments.
func Best(blocks []Block, base, cand string, floor float64, o Options) ([]Comparison, error) {
	o = o.withDefaults()
	if !(floor >= 0) || math.IsInf(floor, 1) {
		return nil, &TermsError{fmt.Sprintf("an interactivity floor of %g is out of range", floor), "give tokens per second and user, 0 for none"}
	}
	d := newData(blocks, base, cand)
	var out []Comparison
	for _, w := range d.workloads() {
		if d.measured[base][w] && d.measured[cand][w] {
			out = append(out, o.best(d, w, floor, base, cand))
		}
	}
	if len(out) == 0 {
		return nil, &TermsError{fmt.Sprintf("%s and %s were not measured on the same lengths", base, cand), "measure both arms with the same --isl and --osl"}
	}
	for i := range out {
		out[i].Base.Arm, out[i].Cand.Arm = base, cand
	}
	return out, nil
}

func (o Options) best(d *data, workload string, floor float64, base, cand string) Comparison {
	a, b := d.configs(base, workload), d.configs(cand, workload)
	m := Metrics()[0] // output tokens per GPU
	s := &sample{}
	unstable := false
	ca, okA := d.choose(a, floor, -1)
	cb, okB := d.choose(b, floor, -1)
	if okA && okB {
		for i, u := range d.units {
			ra, rb := ca, cb
			if len(d.units) > 1 {
				var fa, fb bool
				if ra, fa = d.choose(a, floor, i); !fa {
					ra = ca
				}
				if rb, fb = d.choose(b, floor, i); !fb {
					rb = cb
				}
			}
			unstable = unstable || ra != ca || rb != cb
			x, y := d.logs(ra, u, m.Name), d.logs(rb, u, m.Name)
			if n := min(len(x), len(y)); n > 0 {
				s.base, s.cand = append(s.base, x[:n]), append(s.cand, y[:n])
			}
		}
	}
	c := Comparison{Metric: m.Name, Unit: m.Unit, Higher: m.Higher, Verdict: Refused}
	switch {
	case len(a) == 0 || len(b) == 0:
		c.Reason = "an arm has no block that can be quoted"
	case !okA:
		c.Reason = d.none(a, base, floor)
	case !okB:
		c.Reason = d.none(b, cand, floor)
	default:
		c = o.judge(m, s)
		c.Base.Setup, c.Base.Cell = ca.setup, ca.cell
		c.Cand.Setup, c.Cand.Cell = cb.setup, cb.cell
		if unstable {
			c.Warnings = append(c.Warnings, "not all rounds choose the same configuration: measure more rounds, or fewer configurations")
		}
		for _, x := range []config{ca, cb} {
			if u, ok := d.mean(x, Interactive, -1); ok && d.open[x.cell] {
				c.Warnings = append(c.Warnings, fmt.Sprintf("%s is best in open loop, at %.4g tokens/s to each user: its throughput follows the arrivals", x.arm, u))
			}
		}
	}
	c.Question, c.Workload, c.Floor = BestAtFloor, workload, floor
	return c
}

func (d *data) workloads() (out []string) {
	for _, c := range d.cells {
		if w := d.workload[c]; !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// configs are an arm's, in the order of their cells.
func (d *data) configs(arm, workload string) (out []config) {
	for _, cell := range d.cells {
		if d.workload[cell] != workload {
			continue
		}
		var of []config
		for c := range d.values {
			if c.arm == arm && c.cell == cell {
				of = append(of, c)
			}
		}
		slices.SortFunc(of, func(x, y config) int { return cmp.Compare(x.setup.String(), y.setup.String()) })
		out = append(out, of...)
	}
	return out
}

// choose returns the configuration with the most output per GPU of those that
// keep the floor, by the mean over all units but one.
func (d *data) choose(of []config, floor float64, without int) (best config, found bool) {
	top := math.Inf(-1)
	for _, c := range of {
		user, ok := d.mean(c, Interactive, without)
		rate, have := d.mean(c, OutputPerGPU, without)
		if have && (floor == 0 || ok && user >= floor) && rate > top {
			best, top, found = c, rate, true
		}
	}
	return best, found
}

// none says why no configuration was chosen.
func (d *data) none(of []config, arm string, floor float64) string {
	which := ""
	if slices.ContainsFunc(of, func(c config) bool { _, whole := d.mean(c, OutputPerGPU, -1); return !whole }) {
		which = " that can be quoted in every round"
	}
	return fmt.Sprintf("no configuration of %s%s gives %g tokens/s to each user", arm, which, floor)
}

// mean is the geometric mean of a metric over units but the one at index
// without; a configuration that was not measured in all of them has none.
func (d *data) mean(c config, metric string, without int) (float64, bool) {
	sum, n := 0.0, 0
	for i, u := range d.units {
		if i == without {
			continue
		}
		x := d.logs(c, u, metric)
		if len(x) == 0 {
			return 0, false
		}
		m, _ := meanSD(x)
		sum, n = sum+m, n+1
	}
	return math.Exp(sum / float64(n)), n > 0
}

func (d *data) logs(c config, unit int, metric string) []float64 {
	var s sample
	if x := s.alone(nil, d.values[c][unit], metric); len(x) > 0 {
		return x[0]
	}
	return nil
}
