package training

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/repromill/repromill/estimators/sku"
)

// Duration and hardware as people write them: "around 6 days on a single machine
// with 8 V100 cards", "~42h in 64 V100 GPUs", "7h11m in 32 V100 GPUs".
var (
	durationRE = regexp.MustCompile(`(?i)(\d+(?:\.\d+)?)[\s-]*(days?|hours?|hrs?|h|minutes?|mins?)\b(?:\s*(\d+)\s*(?:minutes?|mins?|m)\b)?|(\d+)h(\d+)m\b`)
	hardwareRE = regexp.MustCompile(`(?i)(?:(\d{1,4}|an?|single|one|two|four|eight)\s*[x×*]?\s*(?:single\s+)?)?(?:nvidia\s+)?(?:tesla\s+|geforce\s+)?\b((?:RTX\s?)?(?:A100|H100|H200|V100|B200|A6000|L40S|4090|5090|H20)(?:[ -]?(?:SXM\d?|PCIe|\d{2,3}\s?GB))*)`)
	takesRE    = regexp.MustCompile(`(?i)\b(tak(?:es?|en|ing)|took|runs?|run for|training time|trained?|finetun\w+|fine-tun\w+|requires?|wall[- ]?clock|about|around|~|hours|days)\b|~`)
)

var smallNumbers = map[string]int{"a": 1, "an": 1, "single": 1, "one": 1, "two": 2, "four": 4, "eight": 8}

// ParseStated reads the time and the hardware that a sentence states, false
// where it does not state both. The number of GPUs is 1 where none is given and
// stated is false for it.
func ParseStated(text string) (s Stated, counted, ok bool) {
	if len(text) > 2000 {
		text = text[:2000]
	}
	hw := hardwareRE.FindStringSubmatchIndex(text)
	if hw == nil || !takesRE.MatchString(text) {
		return Stated{}, false, false
	}
	g, err := sku.Find(text[hw[4]:hw[5]])
	if err != nil {
		return Stated{}, false, false
	}
	s = Stated{SKU: g, GPUs: 1, Source: strings.Join(strings.Fields(text), " ")}
	if hw[2] >= 0 {
		word := strings.ToLower(text[hw[2]:hw[3]])
		n, isWord := smallNumbers[word]
		if !isWord {
			n, _ = strconv.Atoi(word)
		}
		s.GPUs, counted = max(1, n), true
	}
	// Of several times the one nearest to the hardware is meant.
	best := -1
	for _, m := range durationRE.FindAllStringSubmatchIndex(text, 16) {
		d := hw[0] - m[1]
		if m[0] >= hw[1] {
			d = m[0] - hw[1]
		}
		if d < 0 || d > 120 || (best >= 0 && d >= best) {
			continue
		}
		if h := hours(text, m); h > 0 && h < 24*3650 {
			best, s.Hours = d, h
		}
	}
	return s, counted, best >= 0
}

func hours(text string, m []int) float64 {
	at := func(i int) float64 {
		if m[2*i] < 0 {
			return 0
		}
		v, _ := strconv.ParseFloat(text[m[2*i]:m[2*i+1]], 64)
		return v
	}
	if m[8] >= 0 {
		return at(4) + at(5)/60
	}
	switch unit := strings.ToLower(text[m[4]:m[5]]); unit[0] {
	case 'd':
		return 24 * at(1)
	case 'h':
		return at(1) + at(3)/60
	}
	return at(1) / 60
}
