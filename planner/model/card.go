package model

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// MaxCard bounds the part of a model card that is read, in bytes.
const MaxCard = 1 << 20

// maxClaims bounds the claims taken from one card.
const maxClaims = 64

// Claim is something that a name, a card or the hub's metadata says about a
// model and that its files can check.
type Claim struct {
	// Kind is parameters, active_parameters, memory_reduction, size_share,
	// bits_per_parameter, context, licence, base_model, format or
	// quantised_layers.
	Kind   string `json:"kind"`
	Text   string `json:"text"`   // the words, at most 300 bytes
	Source string `json:"source"` // "README.md:12", "name", "hub: safetensors.total"
	// Value is in the unit of the kind: parameters, times, share of the size,
	// bits, tokens. Word is set for claims without a number.
	Value float64 `json:"value,omitempty"`
	Word  string  `json:"word,omitempty"`
	// Step is the size of the last digit that Value is stated with.
	Step float64 `json:"step,omitempty"`
}

// Card is what a model card says.
type Card struct {
	Licence string   `json:"licence,omitempty"`
	Base    []string `json:"base,omitempty"`
	Claims  []Claim  `json:"claims,omitempty"`
	// Commands are the serving commands of its code blocks, one line each.
	Commands []string `json:"commands,omitempty"`
}

var (
	number = `(\d{1,4}(?:,\d{3})+|\d+(?:\.\d+)?)`
	// "reducing the disk size and GPU memory requirements by approximately 3.5x"
	reduceRE = regexp.MustCompile(`(?i)\breduc\w*[^.]*?\b(?:disk|memory|model size)\b[^.]*?~?` + number + `\s?(x\b|×|%)`)
	// "~3.5x smaller"
	smallerRE = regexp.MustCompile(`(?i)~?` + number + `\s?(?:x|×)\s+(?:smaller|less (?:disk|memory)|memory reduction|reduction in (?:disk|memory|model))`)
	bitsRE    = regexp.MustCompile(`(?i)\bbits per (?:parameter|weight)s? from (\d+) to (\d+)\b`)
	// "27B parameters", "235B in total and 22B activated", "Number of Parameters: 235B"
	paramsRE = regexp.MustCompile(`(?i)\b` + number + `\s?(B|M|T|billion|million|trillion)\s+(?:total |model |in total\b|parameters?\b|params\b)|\b(?:total |number of |model )+param(?:eter)?s?(?: count| \(B\))?\W{1,8}` + number + `\s?(B|M|T|billion|million|trillion)\b`)
	activeRE = regexp.MustCompile(`(?i)\b` + number + `\s?(B|M|billion|million)\s+(?:parameters? )?(?:are )?activ(?:e|ated)\b|\b(?:activated|active) param(?:eter)?s?\W{1,8}` + number + `\s?(B|M|billion|million)\b`)
	// "context length up to 131,072 tokens", "128K context"
	contextRE = regexp.MustCompile(`(?i)\bcontext(?: (?:length|window|size))?s?\b[^.]{0,40}?\b` + number + `\s?([KM])?\b|\b` + number + `\s?([KM])?(?:[- ]tokens?)?[- ]context\b`)
	formatRE  = regexp.MustCompile(`(?i)\bquantiz\w*[^.]*?\bto (?:the )?(NVFP4|MXFP4|MXFP8|FP8|FP4|INT8|INT4|W4A16|W8A8)\b`)
	onlyRE    = regexp.MustCompile(`(?i)\bonly (?:the )?(weights(?: and activations)?) of (?:the )?linear (?:operators|layers)(?: within (?:the )?transformers? blocks?)?[^.]*?\bquantized\b`)
	serveRE   = regexp.MustCompile(`(?:\bvllm serve\b|\bvllm\.entrypoints\.openai\.api_server\b|\bsglang\.launch_server\b|\btrtllm-serve\b)`)
)

// ReadCard takes what can be checked from a model card: the front matter, the
// sentences about size, format, parameters and context, and the serving
// commands. It never fails: what is not understood says nothing.
func ReadCard(b []byte) *Card {
	text := strings.ToValidUTF8(string(b[:min(len(b), MaxCard)]), "\uFFFD")
	r := cardReader{card: &Card{}}
	lines := strings.Split(text, "\n")
	i := 0
	if strings.TrimSpace(lines[0]) == "---" {
		i = r.frontMatter(lines)
	}
	code, command := false, ""
	for ; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if strings.HasPrefix(line, "```") {
			r.paragraph()
			code, command = !code, ""
			continue
		}
		if !code {
			r.line(line, i+1)
			continue
		}
		if command += " " + strings.TrimSuffix(line, "\\"); strings.HasSuffix(line, "\\") && len(command) < 4096 {
			continue
		}
		if serveRE.MatchString(command) && len(r.card.Commands) < 8 && len(command) < 4096 {
			r.card.Commands = append(r.card.Commands, strings.Join(strings.Fields(command), " "))
		}
		command = ""
	}
	r.paragraph()
	return r.card
}

// cardReader collects the lines of a paragraph, as sentences go over several.
type cardReader struct {
	card  *Card
	text  strings.Builder
	lines []cardLine
}

// cardLine is where a line of the card begins in its paragraph.
type cardLine struct{ at, number int }

// maxParagraph bounds the text that is searched at once, in bytes.
const maxParagraph = 16 << 10

// line adds a line of prose. Headings, list items and rows of tables stand
// alone.
func (r *cardReader) line(line string, n int) {
	if line == "" || strings.ContainsRune("#-*|+>", rune(line[0])) || r.text.Len()+len(line) > maxParagraph {
		r.paragraph()
	}
	if line == "" || len(line) > maxParagraph {
		return
	}
	r.lines = append(r.lines, cardLine{r.text.Len(), n})
	r.text.WriteString(strings.NewReplacer("**", "", "__", "", "`", "", "<br>", " ").Replace(line))
	r.text.WriteByte(' ')
	if line[0] == '#' || line[0] == '|' {
		r.paragraph()
	}
}

// paragraph takes the claims of the lines collected.
func (r *cardReader) paragraph() {
	if len(r.lines) > 0 {
		r.claims(r.text.String())
	}
	r.text.Reset()
	r.lines = r.lines[:0]
}

// where names the line of a place in the paragraph.
func (r *cardReader) where(at int) string {
	i := sort.Search(len(r.lines), func(i int) bool { return r.lines[i].at > at })
	return fmt.Sprintf("README.md:%d", r.lines[i-1].number)
}

// frontMatter reads the few keys that matter of the YAML at the beginning, and
// returns the line after it.
func (r *cardReader) frontMatter(lines []string) int {
	key := ""
	for i := 1; i < len(lines) && i < 500; i++ {
		line := strings.TrimRight(lines[i], " \r")
		if line == "---" {
			return i + 1
		}
		value := ""
		switch item, isItem := strings.CutPrefix(strings.TrimSpace(line), "- "); {
		case isItem:
			value = item
		case line != strings.TrimLeft(line, " "):
			continue
		default:
			key, value, _ = strings.Cut(line, ":")
		}
		if value = strings.Trim(strings.TrimSpace(value), `"'`); value == "" || len(value) > 200 {
			continue
		}
		where := fmt.Sprintf("README.md:%d", i+1)
		switch key {
		case "license":
			if r.card.Licence == "" {
				r.card.Licence = value
				r.add(Claim{Kind: "licence", Text: strings.TrimSpace(line), Source: where, Word: value})
			}
		case "license_name":
			if r.card.Licence == "other" {
				r.card.Licence = value
			}
		case "base_model":
			r.card.Base = append(r.card.Base, value)
			r.add(Claim{Kind: "base_model", Text: strings.TrimSpace(line), Source: where, Word: value})
		}
	}
	return 0 // no end: it is no front matter
}

func (r *cardReader) add(c Claim) {
	if len(c.Text) > 300 {
		c.Text = strings.ToValidUTF8(c.Text[:297], "") + "…"
	}
	for _, known := range r.card.Claims {
		if known.Kind == c.Kind && known.Value == c.Value && known.Word == c.Word {
			return // said before
		}
	}
	if len(r.card.Claims) < maxClaims {
		r.card.Claims = append(r.card.Claims, c)
	}
}

// claims takes the claims of a paragraph.
func (r *cardReader) claims(plain string) {
	lower := strings.ToLower(plain)
	// Most paragraphs have none of the words, and looking for them is cheap.
	find := func(re *regexp.Regexp, words ...string) []int {
		if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(lower, w) }) {
			return nil
		}
		return re.FindStringSubmatchIndex(plain)
	}
	quote := func(at []int) string { return sentence(plain, at[0], at[1]) }
	group := func(at []int, i int) string {
		if 2*i+1 >= len(at) || at[2*i] < 0 {
			return ""
		}
		return plain[at[2*i]:at[2*i+1]]
	}
	value := func(kind string, at []int, i int, scale float64) {
		v, step, ok := decimal(group(at, i))
		if v *= scale; scale > 1 {
			v = math.Round(v)
		}
		if ok {
			r.add(Claim{Kind: kind, Text: quote(at), Source: r.where(at[2*i]), Value: v, Step: step * scale})
		}
	}
	if at := find(reduceRE, "reduc"); at != nil {
		if group(at, 2) == "%" {
			value("size_share", at, 1, 0.01)
		} else {
			value("memory_reduction", at, 1, 1)
		}
	} else if at := find(smallerRE, "smaller", "memory", "reduction"); at != nil {
		value("memory_reduction", at, 1, 1)
	}
	if at := find(bitsRE, "bits per"); at != nil {
		value("bits_per_parameter", at, 2, 1)
	}
	if at := find(paramsRE, "param", "total"); at != nil {
		i := 1 + 2*btoi(at[2] < 0)
		value("parameters", at, i, magnitude(group(at, i+1)))
	}
	if at := find(activeRE, "activ"); at != nil {
		i := 1 + 2*btoi(at[2] < 0)
		value("active_parameters", at, i, magnitude(group(at, i+1)))
	}
	if at := find(contextRE, "context"); at != nil {
		i := 1 + 2*btoi(at[2] < 0)
		scale := map[string]float64{"K": 1024, "M": 1 << 20}[strings.ToUpper(group(at, i+1))]
		if v, _, ok := decimal(group(at, i)); ok && v*max(scale, 1) >= 1000 && v*max(scale, 1) <= 1<<30 {
			value("context", at, i, max(scale, 1))
		}
	}
	if at := find(formatRE, "quantiz"); at != nil {
		r.add(Claim{Kind: "format", Text: quote(at), Source: r.where(at[0]), Word: strings.ToUpper(group(at, 1))})
	}
	if at := find(onlyRE, "only"); at != nil {
		r.add(Claim{Kind: "quantised_layers", Text: quote(at), Source: r.where(at[0]), Word: strings.ToLower(group(at, 1))})
	}
}

// sentence is the sentence around a place. A point inside of a number ends none.
func sentence(s string, from, to int) string {
	if at := strings.LastIndex(s[:from], ". "); at >= 0 {
		from = at + 2
	} else {
		from = 0
	}
	if at := strings.Index(s[to:], ". "); at >= 0 {
		to += at + 1
	} else {
		to = len(s)
	}
	return strings.TrimSpace(s[from:to])
}

// decimal reads 1,234 or 3.5, and the size of its last digit.
func decimal(s string) (v, step float64, ok bool) {
	v, err := strconv.ParseFloat(strings.ReplaceAll(s, ",", ""), 64)
	if err != nil || v <= 0 {
		return 0, 0, false
	}
	step = 1
	if _, fraction, has := strings.Cut(s, "."); has {
		for range min(len(fraction), 12) {
			step /= 10
		}
	}
	return v, step, true
}

func magnitude(unit string) float64 {
	switch strings.ToLower(unit) {
	case "t", "trillion":
		return 1e12
	case "b", "billion":
		return 1e9
	case "m", "million":
		return 1e6
	}
	return 1
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

var (
	expertSizeRE = regexp.MustCompile(`(?i)(?:^|[-_/ ])(\d+)x(\d+(?:\.\d+)?)([BM])(?:$|[-_. ])`)
	sizeRE       = regexp.MustCompile(`(?i)(?:^|[-_/ ])(\d+(?:\.\d+)?)([BMT])(?:$|[-_. ])`)
	activeSizeRE = regexp.MustCompile(`(?i)(?:^|[-_/ ])A(\d+(?:\.\d+)?)([BM])(?:$|[-_. ])`)
)

// NameClaims are what the name of a model says about its size: "397B-A17B" are
// total and active parameters. "8x7B" says nothing that can be checked, as the
// experts of a mixture share the rest.
func NameClaims(id string) []Claim {
	name := id[strings.LastIndex(id, "/")+1:]
	var out []Claim
	take := func(kind string, m []string) {
		if m == nil {
			return
		}
		if v, step, ok := decimal(m[1]); ok {
			scale := magnitude(m[2])
			out = append(out, Claim{Kind: kind, Text: strings.Trim(m[0], "-_/. "), Source: "name", Value: v * scale, Step: step * scale})
		}
	}
	if !expertSizeRE.MatchString(name) {
		take("parameters", sizeRE.FindStringSubmatch(name))
	}
	take("active_parameters", activeSizeRE.FindStringSubmatch(name))
	return out
}

// licences are the beginnings of licence texts, by the identifiers that cards
// use.
var licences = []struct{ id, words string }{
	{"apache-2.0", "Apache License"}, {"mit", "MIT License"}, {"mit", "Permission is hereby granted, free of charge"},
	{"llama3.3", "LLAMA 3.3 COMMUNITY LICENSE"}, {"llama3.2", "LLAMA 3.2 COMMUNITY LICENSE"}, {"llama3.1", "LLAMA 3.1 COMMUNITY LICENSE"},
	{"llama4", "LLAMA 4 COMMUNITY LICENSE"}, {"llama3", "META LLAMA 3 COMMUNITY LICENSE"},
	{"gemma", "Gemma Terms of Use"}, {"nvidia-open-model-license", "NVIDIA Open Model License"},
	{"cc-by-nc-4.0", "Attribution-NonCommercial 4.0"}, {"cc-by-4.0", "Attribution 4.0"},
}

// RecogniseLicence names the licence of a text; empty when it is not known.
func RecogniseLicence(text []byte) string {
	head := strings.ToLower(string(text[:min(len(text), 4096)]))
	for _, l := range licences {
		if strings.Contains(head, strings.ToLower(l.words)) {
			return l.id
		}
	}
	return ""
}
