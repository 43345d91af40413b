package sse

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func events(t testing.TB, r io.Reader) (out []string) {
	t.Helper()
	er := NewReader(r)
	for {
		ev, err := er.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, ev.Name+"|"+string(ev.Data))
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", 300_000)
	for name, c := range map[string]struct {
		in   string
		want []string
	}{
		"plain":                  {"data: a\n\ndata:b\n\n", []string{"|a", "|b"}},
		"CRLF and CR":            {"data: a\r\n\r\ndata: b\r\rdata: c\n\r", []string{"|a", "|b", "|c"}},
		"lines joined":           {"data: a\ndata:\ndata:  b\n\n", []string{"|a\n\n b"}},
		"names, comments, mark":  {"\xef\xbb\xbf: ping\n\nevent: e\nid: 7\nretry: 10\ndata: a\n\n", []string{"e|a"}},
		"no data is no event":    {"event: e\n\n: x\n\n", nil},
		"last without its end":   {"data: a\n\ndata: [DONE]", []string{"|a", "|[DONE]"}},
		"longer than any buffer": {"data: " + long + "\n\n", []string{"|" + long}},
		"empty data":             {"data\n\n", []string{"|"}},
	} {
		if got := events(t, strings.NewReader(c.in)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %.80q, want %.80q", name, got, c.want)
		}
		if got := events(t, &pieces{[]byte(c.in), rand.New(rand.NewPCG(1, 2))}); !slices.Equal(got, c.want) {
			t.Errorf("%s in pieces: %.80q, want %.80q", name, got, c.want)
		}
	}
}

// pieces gives a few bytes at a time.
type pieces struct {
	b   []byte
	rng *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(len(p.b), 3+p.rng.IntN(2000))])
	p.b = p.b[n:]
	return n, nil
}

// TestEventsComeAtOnce reads from a server that says nothing after an event.
func TestEventsComeAtOnce(t *testing.T) {
	pr, pw := io.Pipe()
	go fmt.Fprint(pw, "data: a\r\n\r")
	r := NewReader(pr)
	if ev, err := r.Next(); err != nil || string(ev.Data) != "a" {
		t.Errorf("%q, %v", ev.Data, err)
	}
	go func() { fmt.Fprint(pw, "\ndata: b\n\n"); pw.CloseWithError(errors.New("reset")) }()
	if ev, err := r.Next(); err != nil || string(ev.Data) != "b" {
		t.Errorf("%q, %v", ev.Data, err)
	}
	if _, err := r.Next(); err == nil || err.Error() != "reset" {
		t.Errorf("want the stream's own error, got %v", err)
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"data: a\n\n", "data: a\r\rdata: b", "\xef\xbb\xbfdata", ":\n\n", "id: \x00\ndata:x\r\n\r\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		whole := events(t, strings.NewReader(in))
		cut := events(t, &pieces{[]byte(in), rand.New(rand.NewPCG(3, 4))})
		if !slices.Equal(whole, cut) {
			t.Errorf("%q whole, %q in pieces", whole, cut)
		}
	})
}
