package claim

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// DefaultRelative is the tolerance where nobody states one: 1 % of the value.
const DefaultRelative = 0.01

// Tolerance is how far a measured value may lie from the claim, from the best
// source there is: what is stated beside the value, as a number after ± or in
// words ("within 0.5", "may vary by about 1 %"); the binomial spread of an
// accuracy over a test set of known size (95 %, normal approximation); 1 %
// relative, flagged as default. A claim that is itself a range has no width
// beyond it.
// place names where the claim stands.
func (c *Claim) Tolerance(place string) *spec.Tolerance {
	switch {
	case c.PlusMinus != nil:
		return &spec.Tolerance{Value: *c.PlusMinus, Kind: "absolute", Source: "stated: " + place}
	case c.Value == nil:
		return &spec.Tolerance{Kind: "absolute", Source: "stated: the claim's own range"}
	}
	if t := c.worded(place); t != nil {
		return t
	}
	if t := c.binomial(); t != nil {
		return t
	}
	return &spec.Tolerance{Value: DefaultRelative, Kind: "relative", Source: "default"}
}

const (
	roughly = `(?:about|around|approximately|roughly|up to|as much as|~|≈|±|\+/-|plus or minus|a few|some)`
	amount  = `(\d+(?:\.\d+)?|\.\d+)(?:\s*(?:–|—|-|to)\s*(\d+(?:\.\d+)?|\.\d+))?\s*(\\?%|percentage points?\b|percent\b|points?\b|pp\b)?`
)

var (
	// withinRE stands in the sentence of the claim itself.
	withinRE = regexp.MustCompile(`(?i)(?:\bwithin(?:\s+` + roughly + `)*|\bgive or take(?:\s+` + roughly + `)*|±|\+/-|\bplus or minus)\s*` + amount)
	// varyRE says of results in general how much they move, and may stand
	// anywhere in the paragraph.
	varyRE = regexp.MustCompile(`(?i)\b(?:var(?:y|ies|iance|iation)|fluctuat\w*|differ(?:s|ences?)?|deviat\w*|noise|std|standard deviation|within)\b` +
		`(?:\s+(?:slightly|a bit|by|of|in|the|range|is|are|run to run|between runs|across runs|across seeds|,))*(?:\s+` + roughly + `)*\s*` + amount)
	// varyWords tell a remark on run-to-run noise from any other use of "within".
	varyWords = regexp.MustCompile(`(?i)\b(?:var(?:y|ies|iance|iation)|fluctuat|differ|deviat|noise|random|seed|non-?determinis|std|standard deviation|expected|reproduc)`)
	// afterRE is what may follow an amount that has no unit of its own: anything
	// else is the unit of something else, such as minutes.
	afterRE = regexp.MustCompile(`(?i)^\s*(?:$|[.,;:)\]]|(?:of|from|due|depending|because|across|between|on|in|as|and|or|when|for|with|if|to|accuracy|acc|mAP|AP|BLEU|ROUGE|F1|loss|absolute|relative)\b)`)
)

// worded is a tolerance that words state: in the claim's own sentence, or as a
// remark on the spread of results in the same paragraph.
func (c *Claim) worded(place string) *spec.Tolerance {
	if c.Relation != "absolute" {
		return nil
	}
	if t := c.amount(c.Text, withinRE, place); t != nil {
		return t
	}
	for _, s := range sentences(c.Around) {
		if text := c.Around[s[0]:s[1]]; varyWords.MatchString(text) {
			if t := c.amount(text, varyRE, place); t != nil {
				return t
			}
		}
	}
	return nil
}

// amount reads the tolerance that a sentence states. A percentage of a value
// that is itself in percent means points, as is usual for accuracies.
func (c *Claim) amount(text string, re *regexp.Regexp, place string) *spec.Tolerance {
	for _, at := range re.FindAllStringSubmatchIndex(text, -1) {
		m := re.FindStringSubmatch(text[at[0]:])
		if m == nil || m[3] == "" && !afterRE.MatchString(text[at[1]:]) {
			continue
		}
		width := m[1]
		if m[2] != "" {
			width = m[2] // of a range the wider
		}
		v, ok := parseNumber(width)
		if !ok || v <= 0 {
			continue
		}
		t := &spec.Tolerance{Value: v, Kind: "absolute", Source: fmt.Sprintf("stated: %s “%s”", place, strings.TrimSpace(text[at[0]:at[1]]))}
		percent := strings.Contains(m[3], "%") || strings.HasPrefix(strings.ToLower(m[3]), "percent") && !strings.Contains(m[3], "point")
		points := c.Unit == "%" || c.Unit == "points" || *c.Value > 1 && fractional[c.Key.Base]
		switch {
		case percent && !points:
			t.Value, t.Kind = v/100, "relative"
		case m[3] != "" && !percent && !points && math.Abs(*c.Value) <= 1:
			t.Value = v / 100 // points of a fraction
		}
		if width := t.Value; t.Kind == "relative" && width < 0.5 || t.Kind == "absolute" && width < math.Abs(*c.Value)/2 {
			return t
		}
	}
	return nil
}

// fractional are metrics that lie between 0 and 1, or are stated in percent.
var fractional = map[string]bool{
	"accuracy": true, "exact_match": true, "pass_at_1": true, "top5_accuracy": true, "f1": true, "auc": true, "map": true, "miou": true, "wer": true, "cer": true, "recall": true, "precision": true, "bleu": true,
}

func (c *Claim) binomial() *spec.Tolerance {
	switch c.Key.Base {
	case "accuracy", "exact_match", "pass_at_1", "top5_accuracy":
	default:
		return nil
	}
	n, what := c.Items, "stated beside the claim"
	if n == 0 {
		n, what = TestItems(c.Dataset), "the usual test set of "+c.Dataset
	}
	if n == 0 || c.Relation != "absolute" {
		return nil
	}
	p, scale := *c.Value, 1.0
	if p > 1 {
		p, scale = p/100, 100
	}
	if p < 0 || p > 1 {
		return nil
	}
	half := 1.96 * math.Sqrt(p*(1-p)/float64(n)) * scale
	if half == 0 {
		half = scale / float64(n)
	}
	return &spec.Tolerance{
		Value: math.Round(half*1e4) / 1e4, Kind: "absolute",
		Source: fmt.Sprintf("binomial: 95 %% interval over %d items, %s", n, what),
	}
}
