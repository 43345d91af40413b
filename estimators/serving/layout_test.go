package serving

import (
	"math"
	"testing"
)

func TestLayouts(t *testing.T) {
	load := Workload{ISL: 1024, OSL: 1024, Concurrency: 64}
	for _, c := range []struct {
		config, precision, sku string
		most                   int
		want                   []Layout
	}{
		{llama405B, "bf16", "h100", 16, []Layout{{GPUs: 16, TP: 8, PP: 2, Nodes: 2}, {GPUs: 16, TP: 4, PP: 4, Nodes: 2}, {GPUs: 16, TP: 2, PP: 8, Nodes: 2}}},
		{llama405B, "bf16", "gb200", 16, []Layout{{GPUs: 8, TP: 8}, {GPUs: 16, TP: 16}}},
		{deepseek, "", "h200", 8, []Layout{{GPUs: 8, TP: 8}, {GPUs: 8, TP: 1, Expert: true, AttnDP: true}}},
		{llama70B, "nvfp4", "v100", 16, nil},
	} {
		var got []Layout
		for _, f := range Layouts(shape(t, c.config, c.precision), gpu(t, c.sku), load, c.most) {
			if f.Layout.TP*max(1, f.Layout.PP) == 16 && f.Layout.PP == 16 {
				continue
			}
			got = append(got, f.Layout)
			if f.Batch < 1 || !f.Fits {
				t.Errorf("%s: %+v", c.sku, f)
			}
		}
		for _, w := range c.want {
			found := false
			for _, l := range got {
				found = found || l == w
			}
			if !found {
				t.Errorf("%.50s %s on %s: no %+v in %+v", c.config, c.precision, c.sku, w, got)
			}
		}
		if c.want == nil && got != nil {
			t.Errorf("%s: %+v", c.sku, got)
		}
	}
}

// What a pipeline over two servers does against one larger domain, by physics.
func TestPipeline(t *testing.T) {
	s := shape(t, llama405B, "fp8")
	h := gpu(t, "h100")
	c := typical
	one, two := NewTerms(s, h, Layout{GPUs: 8, TP: 8}), NewTerms(s, h, Layout{GPUs: 16, TP: 8, PP: 2, Nodes: 2})
	across := NewTerms(s, h, Layout{GPUs: 16, TP: 16, Nodes: 2})
	load := Workload{ISL: 512, OSL: 512, Concurrency: 256}
	a, b, x := one.Run(load, &c), two.Run(load, &c), across.Run(load, &c)
	if r := b.Throughput / a.Throughput; r < 1.2 || r > 2 {
		t.Errorf("a second stage gives %.2f times the throughput at the same concurrency", r)
	}
	if x.Parts.Link < 3*b.Parts.Link {
		t.Errorf("tensor parallelism over the network takes %g s of links a step, a pipeline %g", x.Parts.Link, b.Parts.Link)
	}
	lone := Workload{ISL: 512, OSL: 512, Concurrency: 1}
	if a, b := one.Run(lone, &c), two.Run(lone, &c); b.TPOT < a.TPOT || b.TPOT > 1.3*a.TPOT {
		t.Errorf("one sequence passes all stages in turn: %g s a token on one server, %g on two", a.TPOT, b.TPOT)
	}
	if m := two.weights / one.weights; math.Abs(m-0.5) > 0.05 {
		t.Errorf("a stage holds %.2f of the weights", m)
	}
}

func TestNVLDomainBeatsNetwork(t *testing.T) {
	s := shape(t, deepseek, "")
	c := typical
	l := Layout{GPUs: 32, TP: 1, Expert: true, AttnDP: true}
	gb, b := NewTerms(s, gpu(t, "gb200"), l), NewTerms(s, gpu(t, "b200"), l)
	load := Workload{ISL: 1024, OSL: 1024, Concurrency: 4096}
	if x, y := gb.Run(load, &c).Parts.Link, b.Run(load, &c).Parts.Link; y < 5*x {
		t.Errorf("32 GPUs in one domain of 72 spend %g s on links, in four servers %g", x, y)
	}
}
