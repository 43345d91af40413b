package claim

import (
	"fmt"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

// TestTableShapes reads tables whose headers are not simply metrics.
func TestTableShapes(t *testing.T) {
	tests := map[string]struct{ src, want string }{
		"data sets with a row of metrics": {`# Net
Expected results:

|  | CoLA | MNLI | STS-B | SQuAD |
|---|---|---|---|---|
| Metrics | MCC | Acc | Spearman | EM |
| Net-Base | 67.7 | 88.8 | 91.2 | 86.8 |
`, "mcc 67.7 CoLA [Net-Base CoLA]; accuracy 88.8 MNLI [Net-Base MNLI]; spearman 91.2 STS-B [Net-Base STS-B]; exact_match 86.8 SQuAD [Net-Base SQuAD]"},
		"data sets alone": {`# Net

| Model | CIFAR-10 | ImageNet (top-1) | WikiText-2 |
|---|---|---|---|
| Net-S | 97.1 | 83.2 | 12.4 |
`, "accuracy 83.2 ImageNet [Net-S 97.1 83.2 12.4]"},
		"data sets with the usual metric": {`# Net

| Model | CIFAR-10 | CIFAR-100 | Params |
|---|---|---|---|
| Net-S | 97.1 | 83.2 | 12.4 |
`, "accuracy 97.1 CIFAR-10 [Net-S CIFAR-10]; accuracy 83.2 CIFAR-100 [Net-S CIFAR-100]"},
		"a metric in the caption": {`# Net
Perplexity on three corpora:

| Model | WikiText-103 | PTB |
|---|---|---|
| Net | 18.3 | 54.1 |
`, "perplexity 18.3 WikiText-103 [Net WikiText-103]; perplexity 54.1 PTB [Net PTB]"},
		"two metrics in the caption": {`# Net
F1 and BLEU on two corpora:

| Model | MNLI | QNLI |
|---|---|---|
| Net | 18.3 | 54.1 |
`, ""},
		"the metric above the rows": {`# Quant

| Wiki2 PPL | FP16 | 4bit |
|---|---|---|
| LM-7B | 5.68 | **6.09** |
`, "perplexity 5.68 Wiki2 [LM-7B FP16]; perplexity 6.09 Wiki2 [LM-7B 4bit]"},
		"the metric in the heading, ours by the title": {`# Reversible Neural Networks

### Test loss
Do the same with test data

| | Baseline NN | Reversible NN |
|---|---|---|
| Spring | 3.6656e-02 +/- 1.8e-03 | **3.5928e-02 +/- 1.8e-03** |
`, "test_loss 0.035928 ± 0.0018  [Spring 3.6656e-02 +/- 1.8e-03 3.5928e-02 +/- 1.8e-03]"},
		"the paper's and ours": {`# Net

| Task | Accuracy (paper) | Accuracy (ours) |
|---|---|---|
| MRPC | 90.2 | 89.8 |
`, "accuracy 89.8 MRPC [MRPC 90.2 89.8]"},
		"an error, and a model of that name": {`# MAE

| config | train MAE | MAE |
|---|---|---|
| small | 0.0638 | 83.6 |
`, "train_mean_absolute_error 0.0638  [small 0.0638 83.6]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for i, tb := range markdown.Scan(tt.src).Tables {
				for _, c := range FromTable(tb, i+1) {
					s := fmt.Sprintf("%s %v", c.Key, *c.Value)
					if c.PlusMinus != nil {
						s += fmt.Sprintf(" ± %v", *c.PlusMinus)
					}
					got = append(got, s+" "+c.Dataset+" "+fmt.Sprint(c.Names))
				}
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("\n got %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestMeanAbsoluteError(t *testing.T) {
	for text, want := range map[string]int{"mae": 1, "MAE": 0, "test MAE": 1, "mse:{}, mae:": 2, "the MAE model reaches 83.6": 0, "RMSE and MAE of 0.3": 2, "mae_vit_base": 0} {
		if got := len(Mentions(text)); got != want {
			t.Errorf("%q: %d mentions, want %d", text, got, want)
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add("# T\n\n| | CoLA | MNLI |\n|---|---|---|\n| Metrics | MCC | Acc |\n| a | 1.5 | 2.5 |\n")
	f.Add("| PPL | a |\n|---|---|\n| b | 1.0/2.0 |\n")
	f.Add("### Loss\n\n| x | ours |\n|---|---|\n| | 3e-2 +/- 1e-3 | 4 |\n")
	f.Fuzz(func(t *testing.T, s string) {
		for i, tb := range markdown.Scan(s).Tables {
			for _, c := range FromTable(tb, i+1) {
				if c.Key.Base == "" || c.Value == nil && c.Lo == nil && c.Hi == nil {
					t.Errorf("%+v", c)
				}
			}
		}
	})
}
