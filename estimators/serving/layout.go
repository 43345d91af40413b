package serving

import (
	"fmt"

	"github.com/repromill/repromill/estimators/sku"
)

const (
	// maxNodes bounds the search over servers.
	maxNodes = 16
	// fastNetwork is what a pipeline over servers is proposed on: 100 Gb/s, in
	// 10^9 bytes per second.
	fastNetwork = 12.5
)

// ServerGPUs is the number of GPUs of one server, or of one domain where servers
// form a larger one: eight, and what the fabric joins where that is less.
func ServerGPUs(g *sku.SKU) int {
	n := 1
	for n*2 <= min(8, max(1, g.Domain)) {
		n *= 2
	}
	return n
}

// domains is how many domains of one fabric a number of GPUs takes.
func domains(g *sku.SKU, gpus int) int {
	d := max(1, g.Domain)
	return (gpus + d - 1) / d
}

// overNodes is a pipeline with a stage on each server, tensor parallelism inside
// them: what passes between servers is then least.
func overNodes(s *Shape, g *sku.SKU, w Workload, gpus int) Fit {
	tp := ServerGPUs(g)
	for tp > 1 && s.Heads > 0 && s.Heads%tp != 0 {
		tp /= 2
	}
	l := Layout{GPUs: gpus, TP: tp, PP: gpus / tp, Nodes: domains(g, gpus)}
	if l.PP > s.Layers {
		return Fit{Layout: l, Math: MathOn(s, g), Why: fmt.Sprintf("%d layers make no %d stages", s.Layers, l.PP)}
	}
	return fitOn(s, g, w, l)
}

// Layouts are the ways to split a model over at most so many GPUs that hold it:
// tensor parallelism inside a domain, pipelines over servers, and for mixtures
// of experts whole experts on each GPU with attention replicated. Replicas of
// the whole are left out: they add up and change nothing of one.
func Layouts(s *Shape, g *sku.SKU, w Workload, most int) []Fit {
	if _, ok := impossible(s, g, w, 0); !ok {
		return nil
	}
	var out []Fit
	try := func(l Layout) {
		l.Nodes = domains(g, l.GPUs)
		if l.Nodes == 1 {
			l.Nodes = 0
		}
		if f := fitOn(s, g, w, l); f.Fits {
			out = append(out, f)
		}
	}
	for n := 1; n <= most; n *= 2 {
		if n <= g.Domain {
			try(Layout{GPUs: n, TP: n})
		}
		for pp := 2; pp <= n && pp <= s.Layers; pp *= 2 {
			if tp := n / pp; tp <= g.Domain && n > g.Domain && g.Network.Value >= fastNetwork {
				try(Layout{GPUs: n, TP: tp, PP: pp})
			}
		}
		if s.Experts > 0 && n > 1 && s.Experts >= n && (n <= g.Domain || g.Network.Value >= fastNetwork) {
			try(Layout{GPUs: n, TP: 1, Expert: true, AttnDP: true})
		}
	}
	return out
}
