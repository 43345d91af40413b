package aalcr

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/suitetest"
)

// The documents of the test, in an archive as the publisher's: names in UTF-8
// without saying so, one decomposed, one as a tool for code page 437 leaves it.
var documents = []struct{ stored, asked, text string }{
	{"lcr/Legal/set1/EU\u2019s act.txt", "EU\u2019s act.txt", "First line.\r\n  Second:\r\n\r\n"},
	{"lcr/Legal/set1/Baris\u0327.txt", "Bari\u015f.txt", "\ufeff  Türkçe ş – “quoted” 12345.678 €\n\n   "},
	{"lcr/Legal/set1/it\u0393\u00c7\u00d6s plain.txt", "it's plain.txt", "no end"},
}

// tokens is what tiktoken counts for the prompt over all three in this order
// with the question "What is it?".
const tokens = 89

func archive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, d := range documents {
		f, err := w.CreateHeader(&zip.FileHeader{Name: d.stored, NonUTF8: true, Method: zip.Deflate})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(d.text)); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := w.Create("__MACOSX/lcr/Legal/set1/._x"); err != nil {
		t.Fatal(err)
	} else if _, err := f.Write([]byte{0, 1, 2}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func questions(t *testing.T, names string, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	for _, rec := range [][]string{
		{"document_category", "document_set_id", "question_id", "question", "answer", "data_source_filenames", "data_source_urls", "input_tokens", "input_tokens_band"},
		{"Legal", "set1", "1", "What is it?", "a; b", names, "", fmt.Sprint(n), "<80k"},
	} {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	w.Flush()
	return b.Bytes()
}

// env opens the suite over a mirror with these files.
func env(t *testing.T, variant string, csv []byte) suites.Env {
	t.Helper()
	dir := t.TempDir()
	for i, f := range files {
		name := filepath.Join(dir, "huggingface.co", "datasets", filepath.FromSlash(f.Repo), "resolve", f.Commit, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		body := csv
		if i == 2 {
			body = archive(t)
		}
		if err := os.WriteFile(name, body, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c, err := fetch.New(fetch.Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	return suites.Env{Hub: data.New(data.Config{Client: c}), Variant: variant, Files: files}
}

func inOrder() string {
	return documents[0].asked + ";" + documents[1].asked + ";" + documents[2].asked
}

func TestPrompt(t *testing.T) {
	for _, variant := range []string{"v1.1", "v1.0"} {
		s, err := open(t.Context(), env(t, variant, questions(t, inOrder(), tokens)))
		if err != nil {
			t.Fatal(err)
		}
		suitetest.Suite(t, s)
		items, err := s.Items(t.Context())
		if err != nil || len(items) != 1 || items[0].Cluster != "Legal/set1" || items[0].Reference != "a; b" {
			t.Fatalf("%+v, %v", items, err)
		}
		p, err := s.Prompt(items[0], 0)
		want := "BEGIN INPUT DOCUMENTS\n\nBEGIN DOCUMENT 1:\nFirst line.\n  Second:\n\n\nEND DOCUMENT 1\n\nBEGIN DOCUMENT 2:\n\ufeff  Türkçe ş – “quoted” 12345.678 €\n\n   \nEND DOCUMENT 2\n\n" +
			"BEGIN DOCUMENT 3:\nno end\nEND DOCUMENT 3\n\nEND INPUT DOCUMENTS\n\nAnswer the following question using the input documents provided above.\n\nSTART QUESTION\n\nWhat is it?\n\nEND QUESTION\n"
		if err != nil || p.Messages[0].Content != want {
			t.Errorf("%s: %v\n got %q\nwant %q", variant, err, p.Messages, want)
		}
		if got := s.Grader().Rule().Name; got != variant {
			t.Errorf("variant %s has the rule %s", variant, got)
		}
	}
}

// TestConformance refuses prompts that are not those whose tokens were counted.
func TestConformance(t *testing.T) {
	other := documents[2].asked + ";" + documents[0].asked + ";" + documents[1].asked
	for name, c := range map[string]struct{ csv, want string }{
		"a document less": {string(questions(t, documents[0].asked+";"+documents[1].asked, tokens)), "states 89"},
		"other count":     {string(questions(t, inOrder(), tokens+1)), "states 90"},
		"no such file":    {string(questions(t, "x.txt", tokens)), "not among the documents"},
		"no count":        {strings.Replace(string(questions(t, inOrder(), tokens)), ",89,", ",,", 1), `"" tokens`},
		"no column":       {"question_id,question\n1,x\n", "document_category"},
	} {
		_, err := open(t.Context(), env(t, "v1.1", []byte(c.csv)))
		var user interface{ UserError() string }
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Another order is another prompt, whether or not its count tells.
	a, err := open(t.Context(), env(t, "v1.1", questions(t, inOrder(), tokens)))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := open(t.Context(), env(t, "v1.1", questions(t, other, tokens))); err == nil {
		x, _ := a.Items(t.Context())
		y, _ := b.Items(t.Context())
		if x[0].SHA() == y[0].SHA() {
			t.Error("another order of documents is the same item")
		}
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"EU\u2019s": "EU's", "EU\u0393\u00c7\u00d6s": "EU's", "a\u0393\u00c7\u00f6b": "a\u2014b", "a\u0393\u00c7\u00f4b": "a\u2013b",
		"Baris\u0327": "Bari\u015f", "Baris\u2560\u00ba": "Bari\u015f", "caf\u00e9": "caf\u00e9", "plain.txt": "plain.txt", `a\b`: "a/b",
	} {
		if got := canonical(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	it := suites.Item{ID: "1", Question: "Q?", Reference: "R"}
	newer, older := &Data{}, &Data{old: true}
	if _, ask := newer.JudgePrompt(it, " \n"); ask {
		t.Error("a blank answer is judged")
	}
	p, ask := newer.JudgePrompt(it, "T")
	if !ask || len(p.Messages) != 2 || p.Messages[0].Role != "system" || !strings.HasSuffix(p.Messages[1].Content, "START QUESTION Q?\n\nEND QUESTION\n\nThe OFFICIAL ANSWER: R\n\nEND OFFICIAL ANSWER\n\nBEGIN CANDIDATE ANSWER TO ASSESS\n\nT\n\nEND CANDIDATE ANSWER TO ASSESS\n\nReply as JSON, with a verdict of CORRECT or INCORRECT.") {
		t.Errorf("%v %q", ask, p.Messages)
	}
	p, _ = older.JudgePrompt(it, "T")
	if len(p.Messages) != 1 || !strings.HasSuffix(p.Messages[0].Content, "The question, for reference only: Q?\nThe OFFICIAL ANSWER: R\nCANDIDATE ANSWER TO ASSESS: T\n\nReply only with CORRECT or INCORRECT.") {
		t.Errorf("%q", p.Messages)
	}
	for _, c := range []struct {
		d     *Data
		reply string
		want  suites.Outcome
		stage int
	}{
		{newer, `{"verdict":"CORRECT"}`, suites.Correct, 1},
		{newer, "```json\n{\"verdict\": \"incorrect\"}\n```", suites.Wrong, 1},
		{newer, `{"verdict":"CORRECT"} no: {"verdict":"INCORRECT"}`, suites.Wrong, 1},
		{newer, `{"reason":{"a":1},"verdict":"CORRECT"}`, suites.Correct, 1},
		{newer, "CORRECT.", suites.Correct, 2},
		{newer, "I think it is CORRECT", suites.Error, 0},
		{newer, "", suites.Error, 0},
		{older, "Correct, since", suites.Correct, 1},
		{older, "INCORRECT", suites.Wrong, 1},
		{older, "The answer is CORRECT", suites.Wrong, 1},
		{older, " ", suites.Error, 0},
	} {
		g := c.d.GradeJudged(it, "T", c.reply)
		if g.Outcome != c.want || g.Stage != c.stage || (g.Score == 1) != (c.want == suites.Correct) {
			t.Errorf("%q: %+v, want %s at %d", c.reply, g, c.want, c.stage)
		}
		if g := c.d.GradeJudged(it, "", c.reply); g.Outcome != suites.Empty {
			t.Errorf("a blank answer: %+v", g)
		}
	}
}

func TestGraders(t *testing.T) {
	for _, g := range Graders() {
		suitetest.Grader(t, g, []suitetest.Case{{Name: "not judged", Item: suites.Item{ID: "1", Reference: "x"}, Text: "x", Want: suites.Grade{Outcome: suites.NoAnswer}}})
	}
}

func FuzzJudge(f *testing.F) {
	for _, s := range []string{`{"verdict":"CORRECT"}`, "{{{", `{"verdict":1}`, "CORRECT", "\xff{"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reply string) {
		for _, d := range []*Data{{}, {old: true}} {
			g := d.GradeJudged(suites.Item{}, "text", reply)
			if (g.Stage == 0) != (g.Outcome == suites.Error) || g.Extracted != "" && g.Extracted != "CORRECT" && g.Extracted != "INCORRECT" {
				t.Errorf("%+v", g)
			}
		}
	})
}

func FuzzCanonical(f *testing.F) {
	f.Add("EU\u0393\u00c7\u00d6s")
	f.Fuzz(func(t *testing.T, name string) {
		if once := canonical(name); strings.ContainsAny(once, "’‘\\") {
			t.Errorf("%q", once)
		}
	})
}

// FuzzDocuments reads damaged archives: an error, never a panic.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte("PK\x05\x06"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "a.zip")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		docs, err := readDocuments(name)
		if err == nil && docs == nil {
			t.Error("no documents and no error")
		}
	})
}

// FuzzParts checks that the parts of a prompt have as many tokens as the whole.
func FuzzParts(f *testing.F) {
	f.Add(" \r\n", "q")
	f.Add("\n\n  x 'S\u2028", "12 3?\n ")
	f.Fuzz(func(t *testing.T, text, question string) {
		d := &Data{documents: map[string]string{"a": newlines(strings.ToValidUTF8(text, "")), "b": newlines(strings.ToValidUTF8(text+question, ""))}}
		raw, _ := json.Marshal(asked{Documents: []string{"a", "b"}})
		it := suites.Item{ID: "1", Question: strings.ToValidUTF8(question, ""), Data: string(raw)}
		p, err := d.Prompt(it, 0)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := encoder().Count(p.Messages[0].Content)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, part := range d.parts(it.Question, []string{"a", "b"}) {
			n, err := encoder().Count(part)
			if err != nil {
				t.Fatal(err)
			}
			sum += n
		}
		if sum != whole {
			t.Errorf("%d tokens in parts, %d as a whole", sum, whole)
		}
	})
}

func BenchmarkRunaway(b *testing.B) {
	for name, unit := range map[string]string{"braces": "{", "verdicts": `{"verdict":"`, "words": "CORRECT "} {
		reply := strings.Repeat(unit, 160_000/len(unit))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(reply)))
			for b.Loop() {
				(&Data{}).GradeJudged(suites.Item{}, reply, reply)
			}
		})
	}
}

// BenchmarkTokens counts the tokens of a document.
func BenchmarkTokens(b *testing.B) {
	text := strings.Repeat("The Commission adopted Regulation (EU) No 575/2013 on 26 June 2013; it applies since 2014.\n", 1000)
	enc := encoder()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := enc.Count(text); err != nil {
			b.Fatal(err)
		}
	}
}
