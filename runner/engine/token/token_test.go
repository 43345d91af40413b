package token

import (
	"compress/gzip"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

type golden struct {
	Texts []string `json:"texts"`
	Cases map[string]struct {
		File  json.RawMessage `json:"file"`
		IDs   [][]int32       `json:"ids"`
		Plain [][]int32       `json:"plain"`
		Text  []string        `json:"text"`
		Cut   []string        `json:"cut"`
	} `json:"cases"`
}

// readGolden reads what the tokenizers library made; testdata/golden.py ran it.
func readGolden(t testing.TB) *golden {
	t.Helper()
	f, err := os.Open("testdata/golden.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	return &g
}

// TestAgainstTokenizers holds encoding and decoding to the library of Hugging
// Face, over texts in many scripts, spaces of all kinds and random characters.
func TestAgainstTokenizers(t *testing.T) {
	g := readGolden(t)
	for name, c := range g.Cases {
		t.Run(name, func(t *testing.T) {
			tok, err := Load(c.File)
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range g.Texts {
				ids, err := tok.Encode(text, true)
				if err != nil || !slices.Equal(ids, c.IDs[i]) {
					t.Errorf("%q: %v, want %v (%v)", text, ids, c.IDs[i], err)
				}
				if ids, _ := tok.Encode(text, false); !slices.Equal(ids, c.Plain[i]) {
					t.Errorf("%q without special tokens: %v, want %v", text, ids, c.Plain[i])
				}
				if got := tok.Decode(c.IDs[i], true); got != c.Text[i] {
					t.Errorf("%v decodes to %q, want %q", c.IDs[i], got, c.Text[i])
				}
			}
			at := 0
			for _, ids := range c.Plain[15:20] {
				for i := range min(12, len(ids)) {
					if got := tok.Decode(ids[i:min(i+3, len(ids))], false); got != c.Cut[at] {
						t.Errorf("%v decodes to %q, want %q", ids[i:min(i+3, len(ids))], got, c.Cut[at])
					}
					at++
				}
			}
		})
	}
}

// TestStreamsAreWholeCharacters decodes token by token: no piece cuts a
// character, and together they are the text.
func TestStreamsAreWholeCharacters(t *testing.T) {
	g := readGolden(t)
	c := g.Cases["qwen"]
	tok, err := Load(c.File)
	if err != nil {
		t.Fatal(err)
	}
	for i := range g.Texts {
		d := tok.Decoder(true)
		var all strings.Builder
		for _, id := range c.IDs[i] {
			piece := d.Add(id)
			if strings.ContainsRune(piece, '\uFFFD') {
				t.Fatalf("%q: piece %q", g.Texts[i], piece)
			}
			all.WriteString(piece)
		}
		all.WriteString(d.Flush())
		if all.String() != c.Text[i] {
			t.Errorf("%q streams as %q", c.Text[i], all.String())
		}
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for name, file := range map[string]string{
		"no JSON":         `{`,
		"no vocabulary":   `{"model":{"type":"WordLevel"}}`,
		"empty":           `{"model":{"type":"WordLevel","vocab":{}}}`,
		"unigram":         `{"model":{"type":"Unigram","vocab":[["a",-1]]}}`,
		"negative id":     `{"model":{"type":"WordLevel","vocab":{"a":-1}}}`,
		"huge id":         `{"model":{"type":"WordLevel","vocab":{"a":999999999}}}`,
		"unknown missing": `{"model":{"type":"WordLevel","unk_token":"?","vocab":{"a":1}}}`,
		"normalizer":      `{"normalizer":{"type":"Lowercase"},"model":{"type":"WordLevel","vocab":{"a":1}}}`,
		"pre-tokenizer":   `{"pre_tokenizer":{"type":"Metaspace"},"model":{"type":"WordLevel","vocab":{"a":1}}}`,
		"pattern":         `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"},"model":{"type":"WordLevel","vocab":{"a":1}}}`,
		"decoder":         `{"decoder":{"type":"WordPiece"},"model":{"type":"WordLevel","vocab":{"a":1}}}`,
		"merge":           `{"model":{"type":"BPE","vocab":{"a":1},"merges":["a b"]}}`,
		"merges":          `{"model":{"type":"BPE","vocab":{"a":1},"merges":[1]}}`,
		"byte fallback":   `{"model":{"type":"BPE","vocab":{"a":1},"merges":[],"byte_fallback":true}}`,
		"missing bytes":   `{"pre_tokenizer":{"type":"ByteLevel"},"decoder":{"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":1},"merges":[]}}`,
		"added":           `{"added_tokens":[{"id":1,"content":""}],"model":{"type":"WordLevel","vocab":{"a":1}}}`,
	} {
		if _, err := Load([]byte(file)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestTextsWithoutTokens(t *testing.T) {
	tok, err := Load([]byte(`{"pre_tokenizer":{"type":"Whitespace"},"model":{"type":"WordLevel","vocab":{"a":0}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Encode("a b", false); err == nil {
		t.Error("an unknown word was taken")
	}
	g := readGolden(t)
	if tok, err = Load(g.Cases["qwen"].File); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Encode(strings.Repeat("x", maxWord+1), false); err == nil {
		t.Error("a word without end was taken")
	}
	if ids, err := tok.Encode("\xff\xfea", false); err != nil || tok.Decode(ids, false) != "\uFFFDa" {
		t.Errorf("bytes that are no text: %v %v", ids, err)
	}
}

func FuzzLoad(f *testing.F) {
	g := readGolden(f)
	for _, c := range g.Cases {
		if len(c.File) < 1<<14 {
			f.Add([]byte(c.File), "a b")
		}
	}
	f.Add([]byte(`{"pre_tokenizer":{"type":"Split","pattern":{"String":"."},"behavior":"MergedWithNext"},"model":{"type":"BPE","unk_token":"a","fuse_unk":true,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}`), "ab.c")
	f.Fuzz(func(t *testing.T, file []byte, text string) {
		tok, err := Load(file)
		if err != nil || len(text) > 1000 {
			return
		}
		ids, err := tok.Encode(text, true)
		if err == nil {
			tok.Decode(ids, true)
		}
	})
}

// FuzzRoundTrip encodes any text with byte-level tokens and decodes it again.
func FuzzRoundTrip(f *testing.F) {
	g := readGolden(f)
	for _, s := range g.Texts {
		f.Add(s)
	}
	tok, err := Load(g.Cases["llama3"].File)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		ids, err := tok.Encode(text, false)
		if err != nil {
			return
		}
		if got, want := tok.Decode(ids, false), strings.ToValidUTF8(text, "\uFFFD"); got != want {
			t.Fatalf("%q comes back as %q", text, got)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	g := readGolden(b)
	tok, err := Load(g.Cases["smollm"].File)
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("the quick brown fox jumps over 12 lazy dogs. ", 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := tok.Encode(text, true); err != nil {
			b.Fatal(err)
		}
	}
}
