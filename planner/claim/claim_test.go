package claim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

func show(c Claim) string {
	f := func(p *float64) string {
		if p == nil {
			return "-"
		}
		return fmt.Sprintf("%g", *p)
	}
	s := fmt.Sprintf("%s %s [%s %s]%s %s", c.Key, f(c.Value), f(c.Lo), f(c.Hi), c.Unit, c.Relation)
	if c.PlusMinus != nil {
		s += " ±" + f(c.PlusMinus)
	}
	if c.Baseline != "" {
		s += " vs " + c.Baseline
	}
	if c.Dataset != "" {
		s += " on " + c.Dataset
	}
	if c.Best {
		s += " best"
	}
	return s
}

func TestFromText(t *testing.T) {
	tests := map[string][]string{
		"reduces GPU time by 31–42 %": {"gpu_time_reduction - [31 42]% difference"},
		"with 5.4× fewer preemptions": {"preemptions_ratio 5.4 [- -]x ratio"},
		"improves P99 TTFT by 6 %":    {"p99_ttft_improvement 6 [- -]% difference"},
		"It cuts GPU-hours by 31--42\\%, lowering preemption rates by 5.4$\\times$ and improving P99 TTFT by 6\\%.": {
			"gpu_time_reduction - [31 42]% difference", "preemptions_ratio 5.4 [- -]x ratio", "p99_ttft_improvement 6 [- -]% difference"},
		"31-42% reduction in GPU hours compared to a shared pool.": {"gpu_time_reduction - [31 42]% difference vs a shared pool"},
		"accuracy of 93.2% on CIFAR-10":                            {"accuracy 93.2 [- -]% absolute on CIFAR-10"},
		"WER: 4.26 %":                                              {"wer 4.26 [- -]% absolute"},
		"the best validation loss is 1.4697":                       {"val_loss 1.4697 [- -] absolute best"},
		"achieving 84.4% accuracy on the test set":                 {"test_accuracy 84.4 [- -]% absolute"},
		"gets us a loss of only 1.88 and worse samples":            {"loss 1.88 [- -] absolute"},
		"reduces memory by up to 65.5%":                            {"memory_reduction - [- 65.5]% difference"},
		"improves accuracy by at least 2 points":                   {"accuracy_improvement - [2 -]points difference"},
		"a 2.3x speedup over FlashAttention":                       {"speedup 2.3 [- -]x ratio vs FlashAttention"},
		"throughput is improved by 2.1–3.4× compared to vLLM":      {"throughput_ratio - [2.1 3.4]x ratio vs vLLM"},
		"top-1 accuracy of 83.664 ± 0.1":                           {"accuracy 83.664 [- -] absolute ±0.1"},
		"reaches 490.04 ± 6.12 episodic return":                    {"return 490.04 [- -] absolute ±6.12"},
		"the top-5 accuracy of 96.5%":                              {"top5_accuracy 96.5 [- -]% absolute"},
		"perplexity of 1,234.5 on WikiText-103":                    {"perplexity 1234.5 [- -] absolute on WikiText-103"},
		// no claims
		"Llama-3-70B on 8 GPUs for 300 epochs with CIFAR-10 in 2024": nil,
		"See Table 4 and Section 3.2 for the accuracy.":              nil,
		"We use a learning rate of 0.1 and 90% of the data.":         nil,
		"The loss is computed every 100 steps.":                      nil,
		"2x more preemptions than the baseline":                      nil,
		"accuracy drops from 93.2% to 91.0%":                         nil,
		"P99 and P95 latency at 10 requests":                         nil,
		"return 0 if x > 1.5":                                        nil,
		"a map of 42 cities":                                         nil,
		"PyTorch 2.1.0 has lower memory":                             nil,
	}
	for in, want := range tests {
		var got []string
		for _, c := range FromText(in, func(int) int { return 1 }) {
			got = append(got, show(c))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func TestLines(t *testing.T) {
	d := markdown.Scan("# H\n\nFirst line of prose.\nThe accuracy of 90.1% is good.\nThe F1 of 0.88 too.\n")
	p := d.Paras[0]
	cs := FromText(p.Text, p.LineAt)
	if len(cs) != 2 || cs[0].Line != 4 || cs[1].Line != 5 {
		t.Errorf("claims %+v", cs)
	}
}

func TestFromOutput(t *testing.T) {
	for in, want := range map[string][]string{
		"* Acc@1 83.664 Acc@5 96.530 loss 0.731":         {"accuracy 83.664 [- -] absolute", "top5_accuracy 96.53 [- -] absolute", "loss 0.731 [- -] absolute"},
		`  "test/mean_score": 0.9150,`:                   {"test_score 0.915 [- -] absolute"},
		"gpu_time_reduction_percent: 66.35":              {"gpu_time_reduction 66.35 [- -]% difference"},
		"preemption_ratio: 0.40":                         {"preemptions_ratio 0.4 [- -]x ratio"},
		"epoch 3 | val_loss 1.23 | lr 0.1":               {"val_loss 1.23 [- -] absolute"},
		"accuracy of the network on the 10 test images":  nil,
		"CUDA out of memory. Tried to allocate 6.00 GiB": nil,
		"return 1": nil,
	} {
		var got []string
		for _, c := range FromOutput(in, 1, 1) {
			got = append(got, show(c))
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func TestFromTable(t *testing.T) {
	d := markdown.Scan("Results on CIFAR-10:\n\n| model | acc (%) | params | F1 |\n|---|---|---|---|\n| a | **91.2** ± 0.3 | 10M | 0.88 |\n| b | n/a | 11M | - |\n\n" +
		"| metric | ours |\n|---|---|\n| WER | 4.26 |\n| epochs | 3 |\n\n| metric | paper | ours |\n|---|---|---|\n| WER | 4.3 | 4.4 |\n\n| parameter | value |\n|---|---|\n| memory | 0.9 |\n")
	var got []string
	for i, tb := range d.Tables {
		for _, c := range FromTable(tb, i+1) {
			got = append(got, fmt.Sprintf("%d:%d %s", c.Group, c.Line, show(c)))
		}
	}
	want := []string{"1:5 accuracy 91.2 [- -]% absolute ±0.3 on CIFAR-10", "1:5 f1 0.88 [- -] absolute on CIFAR-10", "2:10 wer 4.26 [- -] absolute"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMatch(t *testing.T) {
	tests := []struct {
		claimed, label string
		want           bool
	}{
		{"accuracy", "acc", true}, {"accuracy", "top1_acc", true}, {"accuracy", "test accuracy", true}, {"val accuracy", "test accuracy", false},
		{"accuracy", "train_acc", false}, {"train loss", "train_loss", true}, {"accuracy", "top-5 accuracy", false}, {"accuracy", "loss", false},
		{"p99 ttft improvement", "p99_ttft_improvement_percent", true}, {"p99 ttft improvement", "ttft_p99_reduction_pct", true},
		{"p99 ttft improvement", "p50_ttft_improvement", false}, {"p99 ttft improvement", "ttft_improvement", false}, {"p99 ttft improvement", "p99_ttft", false},
		{"gpu time reduction", "gpuHoursSaved", true}, {"preemptions ratio", "preemption_ratio", true}, {"preemptions ratio", "preemptions", false},
		{"accuracy improvement", "accuracy_reduction", false}, {"accuracy improvement", "accuracy_gain", true}, {"throughput ratio", "throughput_increase", false},
		{"latency", "p99 latency", false}, {"perplexity", "ppl", true}, {"loss", "best val loss", true}, {"wer", "word error rate", true},
	}
	for _, tt := range tests {
		a, okA := ParseLabel(tt.claimed)
		b, okB := ParseLabel(tt.label)
		if !okA || !okB {
			t.Errorf("%q or %q names no metric", tt.claimed, tt.label)
			continue
		}
		if got := Match(a, b) > 0; got != tt.want {
			t.Errorf("Match(%q %+v, %q %+v) = %v", tt.claimed, a, tt.label, b, got)
		}
	}
	for _, label := range []string{"lr", "epoch", "accuracy and f1", "", "mapping", "lossless", "seconds"} {
		if k, ok := ParseLabel(label); ok {
			t.Errorf("%q is taken for the metric %s", label, k)
		}
	}
}

func TestTolerance(t *testing.T) {
	for in, want := range map[string]string{
		"accuracy of 93.2% on CIFAR-10":              "0.4934 absolute binomial: 95 % interval over 10000 items, the usual test set of CIFAR-10",
		"accuracy of 50% on 30 problems":             "17.8923 absolute binomial: 95 % interval over 30 items, stated beside the claim",
		"accuracy of 0.5 on AIME24 with 30 problems": "0.1789 absolute binomial: 95 % interval over 30 items, stated beside the claim",
		"accuracy of 83.6% ± 0.3 on ImageNet":        "0.3 absolute stated: here",
		"perplexity of 12.5":                         "0.01 relative default",
		"reduces GPU time by 31–42 %":                "0 absolute stated: the claim's own range",
		"accuracy of 100% on MNIST":                  "0.01 absolute binomial: 95 % interval over 10000 items, the usual test set of MNIST",
	} {
		cs := FromText(in, func(int) int { return 1 })
		if len(cs) != 1 {
			t.Errorf("%q: %d claims", in, len(cs))
			continue
		}
		tol := cs[0].Tolerance("here")
		if got := fmt.Sprintf("%g %s %s", tol.Value, tol.Kind, tol.Source); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func FuzzFromText(f *testing.F) {
	for _, s := range []string{"reduces GPU time by 31–42 %", "5.4$\\times$ fewer preemptions", "acc 1e309 % ± 5", "−5--3% lower loss", "a. b; 1,000,000 F1", "\xff accuracy 0.5", "1.2.3 loss .5 - .4e2x faster"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n := strings.Count(s, "\n") + 1
		for _, c := range FromText(s, func(o int) int {
			if o < 0 || o > len(s) {
				t.Fatalf("offset %d of %d", o, len(s))
			}
			return n
		}) {
			if c.Value == nil && c.Lo == nil && c.Hi == nil || c.Key.Base == "" {
				t.Fatalf("a claim without number or metric: %+v", c)
			}
			c.Tolerance("x")
		}
		FromOutput(s, 1, 1)
		ParseLabel(s)
	})
}

func BenchmarkFromText(b *testing.B) {
	s := strings.Repeat("We reach an accuracy of 93.2% on CIFAR-10 and reduce latency by 3.1x compared to the baseline. Some words without any number follow here. ", 50)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		FromText(s, func(int) int { return 1 })
	}
}

func TestFromBare(t *testing.T) {
	at := func(int) int { return 7 }
	for text, want := range map[string]float64{
		"This should get to around 90% after 1 epoch which takes 1-3 minutes.": 90,
		"It reaches 98.5 % on MNIST.":                                          98.5,
		"It reaches a loss of 90%.":                                            0,
		"The run takes 90% of the memory.":                                     0,
		"It reaches 400% in the end.":                                          0,
	} {
		got := FromBare(text, "python -m train pipeline=mnist", at)
		switch {
		case want == 0 && len(got) > 0:
			t.Errorf("%q gives %v", text, show(got[0]))
		case want != 0 && (len(got) != 1 || *got[0].Value != want || got[0].Key.Base != "accuracy" || got[0].Dataset != "MNIST" || got[0].Line != 7):
			t.Errorf("%q gives %+v", text, got)
		}
	}
	if got := FromBare("It reaches 90%.", "python train.py", at); len(got) > 0 {
		t.Errorf("a percentage of nothing known is a claim: %+v", got)
	}
}
