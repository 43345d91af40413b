package collect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// fromJSON takes the number at the pointer, or the numbers of the array there.
func fromJSON(body []byte, pointer, file string) ([]candidate, error) {
	body = finite(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	raw, at, err := lookup(body, pointer)
	if err != nil {
		return nil, inFile(err, file)
	}
	return values(raw, pointer, file, lineOf(body, at), lineAt(body, at))
}

func inFile(err error, file string) error {
	var nf notFound
	if errors.As(err, &nf) {
		return notFound(file + ": " + string(nf))
	}
	return err
}

// fromJSONLines looks the pointer up in every line. Lines without it and torn
// lines are passed over.
func fromJSONLines(body []byte, pointer, file string) ([]candidate, error) {
	var out []candidate
	n, torn := 0, 0
	for line := range bytes.SplitSeq(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), []byte("\n")) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		raw, at, err := lookup(finite(line), pointer)
		if err != nil {
			if !json.Valid(finite(line)) {
				torn++
			}
			continue
		}
		found, err := values(raw, pointer, file, n, func() string { return around(string(line), at)() })
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	if len(out) == 0 {
		return nil, missing("no line of %s has %s (%d lines, %d of them no JSON)", file, pointer, n, torn)
	}
	return out, nil
}

// values turns a JSON number, a number in a string, or an array of those into
// candidates.
func values(raw json.RawMessage, pointer, file string, line int, quote func() string) ([]candidate, error) {
	var elems []json.RawMessage
	if len(raw) > 0 && raw[0] == '[' {
		if err := json.Unmarshal(raw, &elems); err != nil {
			return nil, missing("%s: %v", file, err)
		}
		if len(elems) == 0 {
			return nil, missing("%s: the array at %s is empty", file, pointer)
		}
	} else {
		elems = []json.RawMessage{raw}
	}
	out := make([]candidate, 0, len(elems))
	for _, e := range elems {
		e = bytes.TrimSpace(e)
		text := string(e)
		if len(e) > 0 && e[0] == '"' {
			if err := json.Unmarshal(e, &text); err != nil {
				return nil, missing("%s: %v", file, err)
			}
		}
		out = append(out, candidate{text: text, line: line, quote: quote})
	}
	return out, nil
}

// lookup finds the value that an RFC 6901 pointer names, with its byte offset.
// It walks the tokens once, so the cost is linear; of a repeated name the
// last counts, as with most readers.
func lookup(body []byte, pointer string) (json.RawMessage, int, error) {
	tokens, err := parsePointer(pointer)
	if err != nil {
		return nil, 0, err
	}
	if !json.Valid(body) {
		return nil, 0, missing("not valid JSON")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	raw, at, ok, err := descend(dec, body, tokens)
	if err != nil {
		return nil, 0, missing("%v", err)
	}
	if !ok {
		return nil, 0, missing("nothing at %s", pointer)
	}
	return raw, at, nil
}

func parsePointer(p string) ([]string, error) {
	if p == "" {
		return nil, nil
	}
	if p[0] != '/' {
		return nil, missing("the pointer %q does not begin with /", p)
	}
	tokens := strings.Split(p[1:], "/")
	for i, t := range tokens {
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	return tokens, nil
}

// descend reads the next value of dec and returns the part that the tokens
// name, if it is there. The document is valid.
func descend(dec *json.Decoder, body []byte, tokens []string) (raw json.RawMessage, at int, ok bool, err error) {
	if len(tokens) == 0 {
		if err := dec.Decode(&raw); err != nil {
			return nil, 0, false, err
		}
		return raw, int(dec.InputOffset()) - len(raw), true, nil
	}
	tok, err := dec.Token()
	if err != nil {
		return nil, 0, false, err
	}
	delim, isDelim := tok.(json.Delim)
	if !isDelim {
		return nil, 0, false, nil
	}
	for i := 0; dec.More(); i++ {
		name := strconv.Itoa(i)
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return nil, 0, false, err
			}
			name = key.(string)
		}
		if name != tokens[0] {
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				return nil, 0, false, err
			}
			continue
		}
		r, a, found, err := descend(dec, body, tokens[1:])
		if err != nil {
			return nil, 0, false, err
		}
		raw, at, ok = r, a, found
	}
	_, err = dec.Token()
	return raw, at, ok, err
}

// finite puts NaN, Infinity and -Infinity, which Python writes without being
// asked, into quotes, so that the rest of the document can be read.
func finite(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	out := make([]byte, 0, len(b)+64)
	inString := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		if inString {
			out = append(out, c)
			if c == '\\' && i+1 < len(b) {
				i++
				out = append(out, b[i])
			} else if c == '"' {
				inString = false
			}
			continue
		}
		inString = c == '"'
		word := ""
		for _, w := range []string{"NaN", "Infinity", "-Infinity"} {
			if bytes.HasPrefix(b[i:], []byte(w)) {
				word = w
			}
		}
		if word == "" {
			out = append(out, c)
			continue
		}
		out = append(append(append(out, '"'), word...), '"')
		i += len(word) - 1
	}
	return out
}

func lineOf(body []byte, at int) int { return 1 + bytes.Count(body[:at], []byte("\n")) }

func lineAt(body []byte, at int) func() string {
	return func() string {
		from := max(bytes.LastIndexByte(body[:at], '\n')+1, at-maxQuote/2)
		to := len(body)
		if i := bytes.IndexByte(body[at:], '\n'); i >= 0 {
			to = at + i
		}
		return string(body[from:min(to, from+2*maxQuote)])
	}
}

// fromNotebook reads a Jupyter notebook (nbformat 4): the value at the pointer
// when the rule has one, else what the pattern finds in the text that the
// cells printed, in their order. With both, the pattern is applied to the
// text at the pointer.
func fromNotebook(body []byte, rule spec.Collect, file string) ([]candidate, error) {
	if rule.Pattern == "" {
		return fromJSON(body, rule.Pointer, file)
	}
	var text string
	if rule.Pointer != "" {
		raw, _, err := lookup(finite(body), rule.Pointer)
		if err != nil {
			return nil, inFile(err, file)
		}
		if text = multiline(raw); text == "" {
			return nil, missing("%s: no text at %s", file, rule.Pointer)
		}
	} else {
		var err error
		if text, err = printed(finite(body)); err != nil {
			return nil, missing("%s: %v", file, err)
		}
	}
	cands, err := matchLines(strings.NewReader(text), rule.Pattern, file)
	for i := range cands {
		cands[i].line = 0 // a line of the text is none of the file
	}
	return cands, err
}

// printed joins the outputs of all cells: streams and plain text results.
func printed(body []byte) (string, error) {
	var nb struct {
		Cells []struct {
			Outputs []struct {
				Text json.RawMessage            `json:"text"`
				Data map[string]json.RawMessage `json:"data"`
			} `json:"outputs"`
		} `json:"cells"`
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&nb); err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("it is no notebook: %w", err)
	}
	var b strings.Builder
	for _, c := range nb.Cells {
		for _, o := range c.Outputs {
			for _, raw := range []json.RawMessage{o.Text, o.Data["text/plain"]} {
				if t := multiline(raw); t != "" {
					b.WriteString(t)
					b.WriteByte('\n')
				}
			}
		}
	}
	return b.String(), nil
}

// multiline is nbformat's string that may also be a list of strings.
func multiline(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var l []string
	if json.Unmarshal(raw, &l) == nil {
		return strings.Join(l, "")
	}
	return ""
}
