package model

import (
	"encoding/json"
	"math"
	"unicode/utf8"
)

// The limits of one entry. No model comes near them.
const (
	maxRank     = 16
	maxName     = 4096
	maxMetadata = 10_000 // entries
)

// headerParser reads the only JSON that a header may be: an object of tensors
// and one object of texts. A general decoder would keep the last of two equal
// names in silence, and could be made to use more memory than the text has.
type headerParser struct {
	text []byte
	at   int
	most int // tensors
}

func (p *headerParser) parse() (*Header, error) {
	h := &Header{}
	if p.text[0] != '{' {
		return nil, badHeader("it does not begin with {")
	}
	if !utf8.Valid(p.text) {
		return nil, badHeader("it is not UTF-8")
	}
	seen := map[string]bool{}
	err := p.object(func(name string) error {
		if seen[name] {
			return badHeader("the name %s occurs twice", short(name))
		}
		seen[name] = true
		if name == "__metadata__" {
			return p.metadata(h)
		}
		if len(h.Tensors) >= p.most {
			return badHeader("it lists more than %d tensors", p.most)
		}
		if name == "" || len(name) > maxName {
			return badHeader("a tensor has a name of %d bytes", len(name))
		}
		t, err := p.tensor(name)
		h.Tensors = append(h.Tensors, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	for ; p.at < len(p.text); p.at++ { // padding
		if c := p.text[p.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return nil, p.bad("the end")
		}
	}
	return h, nil
}

func (p *headerParser) tensor(name string) (Tensor, error) {
	t := Tensor{Name: name}
	var offsets []int64
	var has [3]bool
	once := func(i int) error {
		if has[i] {
			return badHeader("%s names a field twice", short(name))
		}
		has[i] = true
		return nil
	}
	err := p.object(func(field string) (err error) {
		switch field {
		case "dtype":
			if err = once(0); err == nil {
				t.DType, err = p.string()
			}
		case "shape":
			if err = once(1); err == nil {
				t.Shape, err = p.numbers(maxRank)
			}
		case "data_offsets":
			if err = once(2); err == nil {
				offsets, err = p.numbers(2)
			}
		default:
			err = badHeader("%s has an unknown field %s", short(name), short(field))
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if has != [3]bool{true, true, true} || len(offsets) != 2 {
		return t, badHeader("%s lacks dtype, shape or data_offsets", short(name))
	}
	t.Begin, t.End = offsets[0], offsets[1]
	return t, nil
}

func (p *headerParser) metadata(h *Header) error {
	h.Metadata = map[string]string{}
	return p.object(func(key string) error {
		if len(h.Metadata) >= maxMetadata {
			return badHeader("its metadata have more than %d entries", maxMetadata)
		}
		if _, twice := h.Metadata[key]; twice {
			return badHeader("its metadata name %s twice", short(key))
		}
		value, err := p.string()
		h.Metadata[key] = value
		return err
	})
}

// object reads an object and calls member at the value of each key.
func (p *headerParser) object(member func(key string) error) error {
	if err := p.expect('{'); err != nil {
		return err
	}
	if p.next() == '}' {
		p.at++
		return nil
	}
	for {
		key, err := p.string()
		if err != nil {
			return err
		}
		if err := p.expect(':'); err != nil {
			return err
		}
		if err := member(key); err != nil {
			return err
		}
		switch p.next() {
		case ',':
			p.at++
		case '}':
			p.at++
			return nil
		default:
			return p.bad("a comma or }")
		}
	}
}

// numbers reads a list of at most most natural numbers.
func (p *headerParser) numbers(most int) ([]int64, error) {
	if err := p.expect('['); err != nil {
		return nil, err
	}
	list := []int64{}
	if p.next() == ']' {
		p.at++
		return list, nil
	}
	for {
		n, err := p.number()
		if err != nil {
			return nil, err
		}
		if len(list) == most {
			return nil, badHeader("a list has more than %d numbers", most)
		}
		list = append(list, n)
		switch p.next() {
		case ',':
			p.at++
		case ']':
			p.at++
			return list, nil
		default:
			return nil, p.bad("a comma or ]")
		}
	}
}

// number reads a natural number below 2^63.
func (p *headerParser) number() (int64, error) {
	p.next()
	start := p.at
	var n int64
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		d := int64(p.text[p.at] - '0')
		if n > (math.MaxInt64-d)/10 {
			return 0, badHeader("a number is larger than 2^63-1")
		}
		n = 10*n + d
		p.at++
	}
	if p.at == start || p.text[start] == '0' && p.at > start+1 {
		return 0, p.bad("a natural number")
	}
	return n, nil
}

// string reads a string; the common one without escapes is cut out as it is.
func (p *headerParser) string() (string, error) {
	if err := p.expect('"'); err != nil {
		return "", err
	}
	start, plain := p.at, true
	for ; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '\\':
			plain = false
			p.at++
		case c < 0x20:
			return "", p.bad("no control character")
		case c == '"':
			p.at++
			if plain {
				return string(p.text[start : p.at-1]), nil
			}
			var s string
			if err := json.Unmarshal(p.text[start-1:p.at], &s); err != nil {
				return "", badHeader("a string cannot be read: %v", err)
			}
			return s, nil
		}
	}
	return "", badHeader("it ends inside of a string")
}

// next is the next byte that is not a space; 0 at the end.
func (p *headerParser) next() byte {
	for ; p.at < len(p.text); p.at++ {
		if c := p.text[p.at]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (p *headerParser) expect(c byte) error {
	if p.next() != c {
		return p.bad(string(c))
	}
	p.at++
	return nil
}

func (p *headerParser) bad(want string) error {
	if p.at >= len(p.text) {
		return badHeader("it ends where %s should be", want)
	}
	return badHeader("byte %d is %q where %s should be", p.at, p.text[p.at], want)
}
