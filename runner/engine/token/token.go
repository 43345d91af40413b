// Package token turns text into the tokens of a model and back, as its
// tokenizer.json says. Merging is done by a library; words are split by the
// patterns of the file with another one, which knows look-ahead. It is the only
// importer of both.
//
// Byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM) and whole words are understood.
// Whatever else a file asks for is refused when it is read: a tokenizer that is
// only nearly right gives wrong scores and no error.
package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxFile bounds the size of tokenizer.json, in bytes.
const MaxFile = 64 << 20

// maxWord bounds a run of text that no pattern splits, in characters: merging
// takes time with the square of it.
const maxWord = 4096

// BadFileError says why a tokenizer.json is not used.
type BadFileError struct{ Why string }

func (e *BadFileError) Error() string { return "tokenizer.json: " + e.Why }

// UserError is what the user can do.
func (e *BadFileError) UserError() string {
	return "the engine reads byte-level BPE and word-level tokenizers as the tokenizers library writes them; serve models with others with vLLM or SGLang"
}

func badFile(format string, args ...any) error { return &BadFileError{fmt.Sprintf(format, args...)} }

// TextError says why a text has no tokens.
type TextError struct{ Why string }

func (e *TextError) Error() string { return "tokenize: " + e.Why }

// Tokenizer is safe for concurrent use.
type Tokenizer struct {
	model      model
	byteLevel  bool
	nfc        bool
	split      []splitter
	ids        map[string]int32
	tokens     []string // by id; "" where there is none
	special    map[int32]bool
	added      []addedToken // the longest first
	prefix     []int32      // of the post-processor
	suffix     []int32
	longest    int // bytes of the longest token
	addedIndex map[byte][]int
}

// model gives the tokens of a word.
type model interface {
	word(w string) ([]int32, error)
}

// addedToken is found in the text before anything else is done with it.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Special    bool   `json:"special"`
}

// Size is one more than the largest id.
func (t *Tokenizer) Size() int { return len(t.tokens) }

// Longest is the size of the longest token in bytes: a text of n bytes has at
// least n/Longest tokens.
func (t *Tokenizer) Longest() int { return t.longest }

// ID is that of a token as the vocabulary writes it.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Token is what the vocabulary writes for an id; "" for none.
func (t *Tokenizer) Token(id int32) string {
	if id < 0 || int(id) >= len(t.tokens) {
		return ""
	}
	return t.tokens[id]
}

// Bytes are those of the text that a token stands for.
func (t *Tokenizer) Bytes(id int32) []byte {
	s := t.Token(id)
	if t.byteLevel {
		return fromByteLevel(s)
	}
	return []byte(s)
}

// Special tells whether a token is left out of text.
func (t *Tokenizer) Special(id int32) bool { return t.special[id] }

// Encode gives the tokens of a text. With special it adds those that the file
// puts around a text, such as the one of its beginning; special tokens that stand
// in the text are recognised in either case. Its error is a [*TextError].
func (t *Tokenizer) Encode(text string, special bool) (ids []int32, err error) {
	defer func() {
		// The library panics on characters that it has no token for.
		if p := recover(); p != nil {
			ids, err = nil, &TextError{fmt.Sprintf("the tokenizer cannot read the text: %.100v", p)}
		}
	}()
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	if special {
		ids = append(ids, t.prefix...)
	}
	for len(text) > 0 {
		begin, end, id := t.nextAdded(text)
		if ids, err = t.plain(ids, text[:begin]); err != nil {
			return nil, err
		}
		if id >= 0 {
			ids = append(ids, id)
		}
		text = text[end:]
	}
	if special {
		ids = append(ids, t.suffix...)
	}
	return ids, nil
}

// nextAdded finds the first added token in a text, the longest where several
// begin; id is -1 and begin the length of the text where there is none.
func (t *Tokenizer) nextAdded(text string) (begin, end int, id int32) {
	for i := 0; i < len(text); i++ {
		for _, k := range t.addedIndex[text[i]] {
			a := &t.added[k]
			if !strings.HasPrefix(text[i:], a.Content) || a.SingleWord && !alone(text, i, i+len(a.Content)) {
				continue
			}
			begin, end = i, i+len(a.Content)
			if a.LStrip {
				begin = len(strings.TrimRightFunc(text[:begin], isSpace))
			}
			if a.RStrip {
				end = len(text) - len(strings.TrimLeftFunc(text[end:], isSpace))
			}
			return begin, end, a.ID
		}
	}
	return len(text), len(text), -1
}

// plain appends the tokens of a text without added tokens.
func (t *Tokenizer) plain(ids []int32, text string) ([]int32, error) {
	if text == "" {
		return ids, nil
	}
	if t.nfc {
		text = norm.NFC.String(text)
	}
	words := []string{text}
	for _, s := range t.split {
		next := make([]string, 0, len(words))
		for _, w := range words {
			var err error
			if next, err = s.split(next, w); err != nil {
				return nil, &TextError{err.Error()}
			}
		}
		words = next
	}
	for _, w := range words {
		if n := utf8.RuneCountInString(w); n > maxWord {
			return nil, &TextError{fmt.Sprintf("a word of %d characters is longer than %d", n, maxWord)}
		}
		if t.byteLevel {
			w = toByteLevel(w)
		}
		more, err := t.model.word(w)
		if err != nil {
			return nil, &TextError{err.Error()}
		}
		ids = append(ids, more...)
	}
	return ids, nil
}

// Decode gives the text of tokens. Bytes that are no UTF-8 become U+FFFD.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	d := t.Decoder(skipSpecial)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Add(id))
	}
	b.WriteString(d.Flush())
	return b.String()
}

// Decoder gives the text of tokens as they come.
type Decoder struct {
	t       *Tokenizer
	skip    bool
	some    bool
	pending []byte // the beginning of a character
}

// Decoder returns one for a new text.
func (t *Tokenizer) Decoder(skipSpecial bool) *Decoder { return &Decoder{t: t, skip: skipSpecial} }

// Add gives the text that a further token completes.
func (d *Decoder) Add(id int32) string {
	s := d.t.Token(id)
	if s == "" || d.skip && d.t.special[id] {
		return ""
	}
	if !d.t.byteLevel {
		if d.some {
			s = " " + s
		}
		d.some = true
		return s
	}
	d.pending = append(d.pending, fromByteLevel(s)...)
	return d.complete()
}

// complete takes all whole characters; what cannot become one is replaced.
func (d *Decoder) complete() string {
	var b strings.Builder
	in := d.pending
	for len(in) > 0 {
		r, n := utf8.DecodeRune(in)
		if r == utf8.RuneError && n <= 1 {
			if !utf8.FullRune(in) {
				break // more bytes may follow
			}
			// As in Rust, one replacement for as many bytes as begin a character.
			n = badPrefix(in)
		}
		b.WriteRune(r)
		in = in[n:]
	}
	d.pending = append(d.pending[:0], in...)
	return b.String()
}

// badPrefix is the length of a beginning that no byte can complete: the longest
// one that could have become a character, as Unicode recommends (The Unicode
// Standard, 3.9, "U+FFFD Substitution of Maximal Subparts").
func badPrefix(in []byte) int {
	n := 1
	for n < min(4, len(in)) && !utf8.FullRune(in[:n]) {
		n++
	}
	if n > 1 && utf8.FullRune(in[:n]) {
		n--
	}
	return max(1, n)
}

// Flush gives what is left at the end.
func (d *Decoder) Flush() string {
	if len(d.pending) == 0 {
		return ""
	}
	d.pending = nil
	return "\uFFFD"
}

// Load reads a tokenizer.json. Its error is a [*BadFileError].
func Load(file []byte) (t *Tokenizer, err error) {
	defer func() {
		if p := recover(); p != nil { // of the library
			t, err = nil, badFile("%.200v", p)
		}
	}()
	if len(file) > MaxFile {
		return nil, badFile("it has %d bytes, more than %d", len(file), MaxFile)
	}
	var f definition
	if err := json.Unmarshal(file, &f); err != nil {
		return nil, badFile("%v", err)
	}
	t = &Tokenizer{ids: map[string]int32{}, special: map[int32]bool{}, addedIndex: map[byte][]int{}}
	if err := f.fill(t); err != nil {
		return nil, err
	}
	slices.SortStableFunc(t.added, func(a, b addedToken) int { return len(b.Content) - len(a.Content) })
	for i := range t.added {
		c := t.added[i].Content[0]
		t.addedIndex[c] = append(t.addedIndex[c], i)
	}
	for _, s := range t.tokens {
		n := len(s)
		if t.byteLevel {
			n = len(fromByteLevel(s))
		}
		t.longest = max(t.longest, n)
	}
	t.longest = max(1, t.longest+1) // a space that joins words counts too
	return t, nil
}
