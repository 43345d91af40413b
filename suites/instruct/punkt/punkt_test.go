package punkt_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/suites/instruct/punkt"
)

// TestSentences holds what nltk.sent_tokenize of NLTK 3.9.2 gives.
func TestSentences(t *testing.T) {
	for text, want := range map[string][]string{
		"":              {},
		" \n":           {},
		"Hello. World":  {"Hello.", "World"},
		" \tA b. C d. ": {" \tA b.", "C d."},
		"Dr. Smith left at 5 p.m. on Monday. He won.":  {"Dr. Smith left at 5 p.m. on Monday.", "He won."},
		`He said "no." Then he left.`:                  {`He said "no."`, "Then he left."},
		"(One.) Two... three. J. R. R. Tolkien wrote.": {"(One.)", "Two... three.", "J. R. R. Tolkien wrote."},
		"Very bad acting!!! I promise.":                {"Very bad acting!!!", "I promise."},
		"It cost 3. Then 4.5. ok":                      {"It cost 3.", "Then 4.5. ok"},
	} {
		if got := punkt.Sentences(text); !slices.Equal(got, want) {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}

// TestWords holds what nltk.word_tokenize of NLTK 3.9.2 gives.
func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		`"Hi," she said. It's John's; can't cannot!`: "`` Hi , '' she said . It 's John 's ; ca n't can not !",
		"'Tis gonna cost $5--or (10%)...":            "'T is gon na cost $ 5 -- or ( 10 % ) ...",
		"a:b 3,000 «da» 'x y'":                       "a : b 3,000 « da » ' x y '",
	} {
		if got := strings.Join(punkt.Words(text), " "); got != want {
			t.Errorf("%q\n got %s\nwant %s", text, got, want)
		}
	}
}

func FuzzPieces(f *testing.F) {
	for _, s := range []string{"A. B", "\"x.\" y", ". . . .", "\xff. \xff", "a.\u2028b", "--. --", "1,2.3 'tis"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rest := text
		for _, s := range punkt.Sentences(text) {
			i := strings.Index(rest, s)
			if s == "" || i < 0 {
				t.Fatalf("%q is no part of %q", s, rest)
			}
			rest = rest[i+len(s):]
		}
		punkt.Words(text)
	})
}

func BenchmarkWords(b *testing.B) {
	text := strings.Repeat("Dr. Smith went home. It's \"late\", he said!\n", 160_000/44)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		punkt.Words(text)
	}
}
