package token

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/sugarme/tokenizer/model/bpe"
)

// definition is a tokenizer.json.
type definition struct {
	Added         []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         struct {
		Type         string          `json:"type"`
		Vocab        json.RawMessage `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		Unknown      *string         `json:"unk_token"`
		Prefix       *string         `json:"continuing_subword_prefix"`
		Suffix       *string         `json:"end_of_word_suffix"`
		Dropout      *float32        `json:"dropout"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		FuseUnknown  bool            `json:"fuse_unk"`
	} `json:"model"`
}

// part is a normalizer, pre-tokenizer, post-processor or decoder.
type part struct {
	Type           string            `json:"type"`
	Normalizers    []json.RawMessage `json:"normalizers"`
	PreTokenizers  []json.RawMessage `json:"pretokenizers"`
	Processors     []json.RawMessage `json:"processors"`
	AddPrefixSpace bool              `json:"add_prefix_space"`
	UseRegex       *bool             `json:"use_regex"`
	Individual     bool              `json:"individual_digits"`
	Behavior       string            `json:"behavior"`
	Invert         bool              `json:"invert"`
	Pattern        struct {
		Regex  *string `json:"Regex"`
		String *string `json:"String"`
	} `json:"pattern"`
	Single []struct {
		Special *struct {
			ID string `json:"id"`
		} `json:"SpecialToken"`
		Sequence *struct{} `json:"Sequence"`
	} `json:"single"`
	SpecialTokens map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
}

func readPart(b json.RawMessage) (*part, error) {
	if len(b) == 0 || string(b) == "null" {
		return nil, nil
	}
	var p part
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, badFile("%v", err)
	}
	return &p, nil
}

// maxTokens bounds the vocabulary.
const maxTokens = 1 << 20

func (f *definition) fill(t *Tokenizer) error {
	vocab := map[string]int{}
	if err := json.Unmarshal(f.Model.Vocab, &vocab); err != nil {
		return badFile("its vocabulary is no table of ids: %v", err)
	}
	most := -1
	for s, id := range vocab {
		if id < 0 || id >= maxTokens {
			return badFile("the token %.40q has the id %d", s, id)
		}
		most = max(most, id)
	}
	for _, a := range f.Added {
		if a.ID < 0 || a.ID >= maxTokens || a.Content == "" {
			return badFile("the added token %.40q has the id %d", a.Content, a.ID)
		}
		most = max(most, int(a.ID))
	}
	if len(vocab) == 0 {
		return badFile("its vocabulary is empty")
	}
	t.tokens = make([]string, most+1)
	for s, id := range vocab {
		t.tokens[id], t.ids[s] = s, int32(id)
	}
	for _, a := range f.Added {
		t.tokens[a.ID], t.ids[a.Content] = a.Content, a.ID
		if a.Special {
			t.special[a.ID] = true
		}
	}
	t.added = f.Added
	for _, fill := range []func(*Tokenizer) error{f.normalize, f.preTokenize, f.postProcess, f.decode} {
		if err := fill(t); err != nil {
			return err
		}
	}
	return f.model(t, vocab)
}

func (f *definition) normalize(t *Tokenizer) error {
	var walk func(b json.RawMessage) error
	walk = func(b json.RawMessage) error {
		p, err := readPart(b)
		if p == nil || err != nil {
			return err
		}
		switch p.Type {
		case "NFC":
			t.nfc = true
		case "Sequence":
			for _, n := range p.Normalizers {
				if err := walk(n); err != nil {
					return err
				}
			}
		default:
			return badFile("its normalizer is %.40q; known is NFC", p.Type)
		}
		return nil
	}
	return walk(f.Normalizer)
}

func (f *definition) preTokenize(t *Tokenizer) error {
	var walk func(b json.RawMessage) error
	walk = func(b json.RawMessage) error {
		p, err := readPart(b)
		if p == nil || err != nil {
			return err
		}
		if t.byteLevel {
			return badFile("a pre-tokenizer of type %.40q follows ByteLevel", p.Type)
		}
		add := func(pattern, behavior string, invert bool) error {
			s, err := newPattern(pattern, behavior, invert)
			if err == nil {
				t.split = append(t.split, s)
			}
			return err
		}
		switch p.Type {
		case "Sequence":
			for _, n := range p.PreTokenizers {
				if err := walk(n); err != nil {
					return err
				}
			}
		case "ByteLevel":
			if p.AddPrefixSpace {
				t.split = append(t.split, prefixSpace{})
			}
			if p.UseRegex == nil || *p.UseRegex {
				if err := add(patternGPT2, "Isolated", false); err != nil {
					return err
				}
			}
			t.byteLevel = true
		case "Split":
			switch {
			case p.Pattern.Regex != nil:
				return add(*p.Pattern.Regex, p.Behavior, p.Invert)
			case p.Pattern.String != nil:
				return add(escape(*p.Pattern.String), p.Behavior, p.Invert)
			}
			return badFile("its pre-tokenizer Split has no pattern")
		case "Digits":
			t.split = append(t.split, byDigits{p.Individual})
		case "Whitespace":
			return add(patternWhitespace, "Removed", true)
		case "WhitespaceSplit":
			t.split = append(t.split, bySpace{})
		default:
			return badFile("its pre-tokenizer is %.40q; known are ByteLevel, Split, Digits, Whitespace and WhitespaceSplit", p.Type)
		}
		return nil
	}
	return walk(f.PreTokenizer)
}

// escape makes a pattern that matches a text itself.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(`\.+*?()|[]{}^$#`, r) || r == ' ' {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (f *definition) postProcess(t *Tokenizer) error {
	var walk func(b json.RawMessage) error
	walk = func(b json.RawMessage) error {
		p, err := readPart(b)
		if p == nil || err != nil {
			return err
		}
		switch p.Type {
		case "ByteLevel": // moves offsets, which nobody asks for
		case "Sequence":
			for _, n := range p.Processors {
				if err := walk(n); err != nil {
					return err
				}
			}
		case "TemplateProcessing":
			before := true
			for _, s := range p.Single {
				if s.Special == nil {
					before = false
					continue
				}
				for _, id := range p.SpecialTokens[s.Special.ID].IDs {
					if t.Token(id) == "" {
						return badFile("its template names the token %d, which there is not", id)
					}
					if before {
						t.prefix = append(t.prefix, id)
					} else {
						t.suffix = append(t.suffix, id)
					}
				}
			}
		default:
			return badFile("its post-processor is %.40q; known are ByteLevel and TemplateProcessing", p.Type)
		}
		return nil
	}
	return walk(f.PostProcessor)
}

func (f *definition) decode(t *Tokenizer) error {
	p, err := readPart(f.Decoder)
	switch {
	case err != nil:
		return err
	case p == nil && t.byteLevel:
		return badFile("it has a pre-tokenizer ByteLevel and no such decoder")
	case p != nil && (p.Type != "ByteLevel" || !t.byteLevel):
		return badFile("its decoder is %.40q, which does not fit its pre-tokenizer", p.Type)
	}
	return nil
}

func (f *definition) model(t *Tokenizer, vocab map[string]int) error {
	m := &f.Model
	if m.ByteFallback || m.Prefix != nil && *m.Prefix != "" || m.Suffix != nil && *m.Suffix != "" || m.Dropout != nil && *m.Dropout != 0 {
		return badFile("its model uses byte_fallback, dropout, or marks at the ends of words")
	}
	unknown := int32(-1)
	if m.Unknown != nil {
		id, ok := t.ids[*m.Unknown]
		if !ok {
			return badFile("its token for what is unknown, %.40q, is not in the vocabulary", *m.Unknown)
		}
		unknown = id
	}
	switch m.Type {
	case "WordLevel":
		t.model = words{t.ids, unknown}
		return nil
	case "BPE", "":
	default:
		return badFile("its model is %.40q; known are BPE and WordLevel", m.Type)
	}
	if t.byteLevel {
		for b, r := range byteRunes {
			if _, ok := vocab[string(r)]; !ok && unknown < 0 {
				return badFile("its vocabulary has no token for the byte %d", b)
			}
		}
	}
	merges, err := f.merges()
	if err != nil {
		return err
	}
	table := bpe.Merges{}
	for rank, p := range merges {
		a, okA := vocab[p[0]]
		b, okB := vocab[p[1]]
		id, ok := vocab[p[0]+p[1]]
		if !okA || !okB || !ok {
			return badFile("its merge %d of %.40q and %.40q names tokens that are not in the vocabulary", rank, p[0], p[1])
		}
		table[bpe.Pair{C1: a, C2: b}] = bpe.PairVal{Rank: rank, NewId: id}
	}
	b := bpe.NewBpeBuilder()
	b.VocabAndMerges(vocab, table)
	b.CacheCapacity(bpe.DefaultCacheCapacity)
	if m.Unknown != nil {
		b.UnkToken(*m.Unknown)
	}
	built, err := b.Build()
	if err != nil {
		return badFile("%v", err)
	}
	t.model = &pairs{built, vocab, m.IgnoreMerges, unknown, m.FuseUnknown}
	return nil
}

// merges are pairs, in either of the forms in which files write them.
func (f *definition) merges() ([][2]string, error) {
	var lists [][2]string
	if json.Unmarshal(f.Model.Merges, &lists) == nil {
		return lists, nil
	}
	var lines []string
	if err := json.Unmarshal(f.Model.Merges, &lines); err != nil {
		return nil, badFile("its merges are no list of pairs: %v", err)
	}
	for i, l := range lines {
		a, b, ok := strings.Cut(l, " ")
		if !ok || strings.Contains(b, " ") {
			return nil, badFile("its merge %d is %.40q", i, l)
		}
		lists = append(lists, [2]string{a, b})
	}
	return lists, nil
}

// pairs is byte pair encoding (Sennrich, Haddow, Birch, arXiv 1508.07909).
type pairs struct {
	bpe          *bpe.BPE
	vocab        map[string]int
	ignoreMerges bool
	unknown      int32
	fuse         bool
}

func (p *pairs) word(w string) ([]int32, error) {
	if p.ignoreMerges {
		if id, ok := p.vocab[w]; ok {
			return []int32{int32(id)}, nil
		}
	}
	tokens, err := p.bpe.Tokenize(w)
	if err != nil {
		return nil, fmt.Errorf("merge pairs: %w", err)
	}
	out := make([]int32, 0, len(tokens))
	for _, t := range tokens {
		if p.fuse && int32(t.Id) == p.unknown && len(out) > 0 && out[len(out)-1] == p.unknown {
			continue
		}
		out = append(out, int32(t.Id))
	}
	return out, nil
}

// words looks up whole words.
type words struct {
	ids     map[string]int32
	unknown int32
}

func (m words) word(w string) ([]int32, error) {
	if id, ok := m.ids[w]; ok {
		return []int32{id}, nil
	}
	if m.unknown < 0 {
		return nil, fmt.Errorf("the word %.40q is not in the vocabulary", w)
	}
	return []int32{m.unknown}, nil
}
