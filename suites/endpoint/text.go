package endpoint

import (
	"bytes"
	"encoding/json"
	"strings"
)

// decode reads JSON, also such as Python writes it: NaN and Infinity in place of
// numbers, as log-probabilities have them, become null.
func decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	if fixed, changed := fixNumbers(b); changed {
		return json.Unmarshal(fixed, v)
	}
	return err
}

// fixNumbers replaces NaN, Infinity and -Infinity outside of strings by null.
func fixNumbers(b []byte) ([]byte, bool) {
	var out []byte
	changed := false
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case '"':
			j := i + 1
			for j < len(b) && b[j] != '"' {
				if b[j] == '\\' {
					j++
				}
				j++
			}
			j = min(j+1, len(b))
			out = append(out, b[i:j]...)
			i = j
			continue
		case 'N', 'I', '-':
			n := 0
			for _, word := range []string{"NaN", "Infinity", "-Infinity", "-NaN"} {
				if bytes.HasPrefix(b[i:], []byte(word)) {
					n = len(word)
				}
			}
			if n > 0 {
				out = append(out, "null"...)
				i += n
				changed = true
				continue
			}
		}
		out = append(out, b[i])
		i++
	}
	return out, changed
}

// splitThinking takes reasoning that stands in the text itself off it:
// <think>…</think> at the beginning, or everything before a </think> whose
// opening tag the chat template had put into the prompt. Reasoning that was cut
// before its end leaves no text.
func splitThinking(text, reasoning string) (string, string) {
	const begin, end = "<think>", "</think>"
	join := func(more string) string {
		more = strings.Trim(more, "\n")
		if reasoning == "" || more == "" {
			return reasoning + more
		}
		return reasoning + "\n" + more
	}
	rest, opened := strings.CutPrefix(strings.TrimLeft(text, " \t\r\n"), begin)
	if opened {
		inside, after, closed := strings.Cut(rest, end)
		if !closed {
			return "", join(rest)
		}
		return strings.TrimLeft(after, "\r\n"), join(inside)
	}
	if reasoning != "" {
		return text, reasoning
	}
	// Without an opening tag only the first closing one counts, and only if no
	// opening one stands between: a model may write about the tags themselves.
	inside, after, closed := strings.Cut(text, end)
	if closed && !strings.Contains(inside, begin) {
		return strings.TrimLeft(after, "\r\n"), join(inside)
	}
	return text, reasoning
}
