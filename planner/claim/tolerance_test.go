package claim

import (
	"fmt"
	"strings"
	"testing"
)

// TestWorded: tolerances that words state, and numbers that are none.
func TestWorded(t *testing.T) {
	line := func(int) int { return 1 }
	for text, want := range map[string]string{
		"This should give an accuracy of 93.2 %, within 0.5.":                                  "0.5 absolute",
		"The accuracy is 93.2% (±0.3).":                                                        "0.3 absolute",
		"We reach an accuracy of 93.2%. Results may vary by about 1%.":                         "1 absolute",
		"We reach an accuracy of 93.2%. Numbers fluctuate by 0.1-0.3 points between runs.":     "0.3 absolute",
		"The validation loss is 1.47. It may vary by about 1% depending on the seed.":          "0.01 relative",
		"You should get an accuracy of 93.2 %, give or take 0.4 points.":                       "0.4 absolute",
		"The perplexity of 20.5 was reached. Expect a variance of 0.2 due to non-determinism.": "0.2 absolute",
		"The accuracy is 0.932, within 0.5 points of the paper.":                               "0.005 absolute",
		"It reaches an accuracy of 93.2%. The standard deviation is 0.15 across seeds.":        "0.15 absolute",
		"mAP of 42.0 on COCO, results should be within 0.2 of this.":                           "0.2 absolute",
		"It reaches an accuracy of 93.2% within 3 minutes.":                                    "0.01 relative",
		"It reaches an accuracy of 93.2% within 10 epochs.":                                    "0.01 relative",
		"The accuracy is 93.2%. Training takes within 5 hours on one GPU.":                     "0.01 relative",
		"The accuracy is 93.2%. The learning rates vary from 0.1 to 0.5 in our experiments.":   "0.01 relative",
		"An accuracy of 93.2% is stated within the paper, Table 3.":                            "0.01 relative",
		"The return is 490.04 ± 6.12 over three seeds.":                                        "6.12 absolute",
		"The loss is 1.88. Batch sizes differ by 32 images.":                                   "0.01 relative",
		"An accuracy of 93.2% on a data set that varies by 80 percent.":                        "0.01 relative",
	} {
		cs := FromText(text, line)
		if len(cs) == 0 {
			t.Errorf("%q: no claim", text)
			continue
		}
		c := cs[0]
		c.Around, c.Dataset, c.Items = text, "", 0
		got := c.Tolerance("README.md:1")
		if s := fmt.Sprintf("%.4g %s", got.Value, got.Kind); s != want {
			t.Errorf("%q: %s (%s), want %s", text, s, got.Source, want)
		}
		if stated := got.Source != "default"; stated && !strings.HasPrefix(got.Source, "stated: README.md:1") {
			t.Errorf("%q: source %q", text, got.Source)
		}
	}
}

// FuzzWorded: no text makes a tolerance that no plan may hold.
func FuzzWorded(f *testing.F) {
	f.Add("accuracy of 93.2 %, within 0.5.", "may vary by 1e9 %")
	f.Add("loss 0", "± .")
	f.Fuzz(func(t *testing.T, text, around string) {
		for _, c := range FromText(text, func(int) int { return 1 }) {
			c.Around = around
			if got := c.Tolerance("x"); got.Value < 0 || got.Kind == "" || got.Source == "" {
				t.Fatalf("%q, %q: %+v", text, around, got)
			}
		}
	})
}
