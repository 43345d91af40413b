package toolcalls

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// Values are what encoding/json makes of JSON, numbers as json.Number: Python
// tells 1 from 1.0 by its type and yet holds them, and true, to be equal.

// maxDigits is how many digits an integer may have before Python refuses it.
const maxDigits = 4300

// load reads one JSON value. Integers that Python refuses are an error.
func load(s string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("read JSON: more than one value")
	}
	if !sane(v) {
		return nil, fmt.Errorf("read JSON: an integer of more than %d digits", maxDigits)
	}
	return v, nil
}

func sane(v any) bool {
	switch x := v.(type) {
	case json.Number:
		return kind(x) != "int" || len(strings.TrimPrefix(string(x), "-")) <= maxDigits
	case []any:
		return !slices.ContainsFunc(x, func(e any) bool { return !sane(e) })
	case map[string]any:
		for _, e := range x {
			if !sane(e) {
				return false
			}
		}
	}
	return true
}

// kind is the name of a value's Python type.
func kind(v any) string {
	switch x := v.(type) {
	case string:
		return "str"
	case bool:
		return "bool"
	case []any:
		return "list"
	case map[string]any:
		return "dict"
	case json.Number:
		if strings.ContainsAny(string(x), ".eE") {
			return "float"
		}
		return "int"
	}
	return "NoneType"
}

// equal is == of Python.
func equal(a, b any) bool {
	if x, ok := number(a); ok {
		y, ok := number(b)
		return ok && x.Cmp(y) == 0
	}
	switch x := a.(type) {
	case string:
		y, ok := b.(string)
		return ok && x == y
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !equal(v, w) {
				return false
			}
		}
		return true
	}
	return a == nil && b == nil
}

// number reads numbers and truth values exactly; a float is what 64 bits hold.
func number(v any) (*big.Float, bool) {
	switch x := v.(type) {
	case bool:
		if x {
			return big.NewFloat(1), true
		}
		return new(big.Float), true
	case json.Number:
		if kind(x) == "int" {
			n, ok := new(big.Int).SetString(string(x), 10)
			if !ok {
				return nil, false
			}
			return new(big.Float).SetPrec(uint(max(64, n.BitLen()))).SetInt(n), true
		}
		f, err := x.Float64()
		if err != nil && f == 0 {
			return nil, false
		}
		return new(big.Float).SetFloat64(f), true // infinite where it is too large, as in Python
	}
	return nil, false
}

// float is float(n) of an integer: the nearest of 64 bits.
func float(n json.Number) json.Number {
	f, err := n.Float64()
	if err != nil {
		return n // Python raises an error; an integer is then of the wrong type
	}
	b, err := json.Marshal(f)
	if err != nil {
		return n
	}
	if !bytes.ContainsAny(b, ".eE") {
		b = append(b, ".0"...)
	}
	return json.Number(b)
}

func in(v any, list []any) bool {
	return slices.ContainsFunc(list, func(e any) bool { return equal(v, e) })
}

// member is a field of an object whose order is kept.
type member struct {
	key   string
	value any // object, []any, string, bool, json.Number or nil
}

type object []member

// MarshalJSON implements [json.Marshaler].
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		k, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		v, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(append(append(k, ':'), v...))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (o object) get(key string) any {
	for _, m := range o {
		if m.key == key {
			return m.value
		}
	}
	return nil
}

// set sets a field in its place, or at the end.
func (o object) set(key string, value any) object {
	for i := range o {
		if o[i].key == key {
			o[i].value = value
			return o
		}
	}
	return append(o, member{key, value})
}

// ordered reads JSON and keeps the order of fields.
func ordered(raw json.RawMessage) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return orderedValue(dec)
}

func orderedValue(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	switch tok {
	case json.Delim('{'):
		o := object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, fmt.Errorf("read JSON: %w", err)
			}
			v, err := orderedValue(dec)
			if err != nil {
				return nil, err
			}
			o = o.set(key.(string), v)
		}
		_, err = dec.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := orderedValue(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	}
	return tok, nil
}
