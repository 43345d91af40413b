package claim

import (
	"fmt"
	"testing"
)

func show(c Claim) string {
	f := func(p *float64) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprintf("%g", *p)
	}
	return fmt.Sprintf("%s %s [%s %s]%s %s", c.Key, f(c.Value), f(c.Lo), f(c.Hi), c.Unit, c.Relation)
}

func TestTry(t *testing.T) {
	for _, s := range []string{
		"reduces GPU time by 31–42 %", "with 5.4× fewer preemptions", "improves P99 TTFT by 6 %",
		"Dual-pool reduces GPU-hours by 31--42\\%, while lowering preemption rates by 5.4$\\times$ and improving P99 TTFT by 6\\%.",
		"accuracy of 93.2% on CIFAR-10", "WER: 4.26 %", "the best validation loss is 1.4697", "achieving 84.4% accuracy on the test set",
		"but gets us a loss of only 1.88 and therefore also worse samples", "reduces memory by up to 65.5%", "a 2.3x speedup over FlashAttention",
		"Llama-3-70B on 8 GPUs for 300 epochs with CIFAR-10 in 2024", "throughput by 1.8x", "The GPT-2 CORE score is 0.256525",
		"improves throughput by 2.1–3.4× compared to vLLM", "top-1 accuracy of 83.664 ± 0.1", "31-42% reduction in GPU hours", "reaches 490.04 ± 6.12 episodic return",
	} {
		for _, c := range FromText(s, func(int) int { return 1 }) {
			t.Logf("%q -> %s base=%q data=%q", s, show(c), c.Baseline, c.Dataset)
		}
	}
}
