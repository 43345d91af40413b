package ruler

import (
	"bufio"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// masks take out what is drawn at random.
var masks = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "K"},
	{regexp.MustCompile(`\d{5,}`), "9"},
	{regexp.MustCompile(`for .+ mentioned`), "for K mentioned"},
	{regexp.MustCompile(`coded words\. .*`), "coded words. W"},
	{regexp.MustCompile(`Question: (What is the capital|Who) .*`), "Question: Q"},
}

func masked(s string) string {
	for _, m := range masks {
		s = m.re.ReplaceAllString(s, m.to)
	}
	return s
}

// TestUpstream holds the questions to what the published generator (NVIDIA/RULER
// c3f5e3b, with cl100k_base at 4,096 tokens) made: the wording around the haystack,
// and with as many lines as many words.
func TestUpstream(t *testing.T) {
	f, err := os.Open("testdata/upstream.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		var want struct {
			Kind, First, Last, Prefix      string
			Answers, Lines, Words, Example int
		}
		if err := json.Unmarshal(sc.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		d := ready(t, 4096, false)
		k := kindOf(want.Kind)
		size := 800
		if want.Lines > 0 {
			// Without the first and the last line and what is put in.
			size = want.Lines - 2 - k.keys*k.values
		}
		if k.name == "vt" {
			// The example has a first line, a blank one, the last and five assignments.
			d.m.example = want.Example - 2 - hops - 1
			size = want.Lines - want.Example - 2 - 3 - hops - 1
		}
		m := k.make(d.m, k, 1, size)
		lines := strings.Split(m.input, "\n")
		if got := masked(lines[0]); got != want.First {
			t.Errorf("%s begins with %q, upstream %q", k.name, got, want.First)
		}
		if got := masked(lines[len(lines)-1]); got != want.Last {
			t.Errorf("%s ends with %q, upstream %q", k.name, got, want.Last)
		}
		if got := masked(m.prefix); got != want.Prefix {
			t.Errorf("%s begins its answer with %q, upstream %q", k.name, got, want.Prefix)
		}
		if k.needs != squad && len(m.want) != want.Answers {
			t.Errorf("%s has %d answers, upstream %d", k.name, len(m.want), want.Answers)
		}
		if want.Lines == 0 {
			continue
		}
		words := len(strings.Fields(m.input))
		// A few of the words are two.
		if len(lines) != want.Lines || words < want.Words-3 || words > want.Words+3 {
			t.Errorf("%s has %d lines and %d words, upstream %d and %d", k.name, len(lines), words, want.Lines, want.Words)
		}
	}
	if n != len(kinds) {
		t.Errorf("%d kinds", n)
	}
}
