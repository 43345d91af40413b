package fetch

import (
	"encoding/json"
	"errors"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const goodOverlay = `{
  "links": [{"arxiv": "2604.08075", "url": "https://github.com/repromill/dual-pool", "note": "independent re-implementation", "simulated": true},
            {"arxiv": "hep-th/9901001", "url": "https://gitlab.com/a/b"}],
  "trees": {"https://github.com/repromill/dual-pool": "../papers/2604.08075", "https://gitlab.com/a/b": "trees/b"}
}`

func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "overlay.json", goodOverlay)
	c, err := New(Config{Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	want := Overlay{
		Links: []OverlayLink{
			{Arxiv: "2604.08075", URL: "https://github.com/repromill/dual-pool", Note: "independent re-implementation", Simulated: true},
			{Arxiv: "hep-th/9901001", URL: "https://gitlab.com/a/b"},
		},
		Trees: map[string]string{"https://github.com/repromill/dual-pool": "../papers/2604.08075", "https://gitlab.com/a/b": "trees/b"},
	}
	if diff := cmp.Diff(want, c.Overlay()); diff != "" {
		t.Error(diff)
	}
	c.Overlay().Trees["x"] = "y"
	if diff := cmp.Diff(want, c.Overlay()); diff != "" {
		t.Error("a caller changed the overlay:", diff)
	}
	if c, _ := client(t, nil, nil); len(c.Overlay().Links) != 0 {
		t.Error("an overlay without a mirror")
	}
}

func TestOverlayIsStrict(t *testing.T) {
	for _, doc := range []string{
		``, `null x`, `[]`, `{"links":[{}]}`, `{"link":[]}`, `{"links":[],"extra":1}`, goodOverlay + goodOverlay,
		`{"links":[{"arxiv":"2604.08075v2","url":"https://github.com/a/b"}]}`,
		`{"links":[{"arxiv":"2604.08075","url":"http://github.com/a/b"}]}`,
		`{"links":[{"arxiv":"2604.08075","url":"https://u:p@github.com/a/b"}]}`,
		`{"links":[{"arxiv":"2604.08075","url":"https://x/a"},{"arxiv":"2604.08075","url":"https://x/a","note":"again"}]}`,
		`{"trees":{"file:///x":"a"}}`, `{"trees":{"https://x/a":"/etc"}}`, `{"trees":{"https://x/a":""}}`,
		`{"trees":{"https://x/a":"a/../../b"}}`, `{"trees":{"https://x/a":"a\\b"}}`, `{"trees":{"https://x/a":".."}}`,
		`{"links":[` + strings.Repeat(" ", maxDocument) + `]}`,
	} {
		dir := t.TempDir()
		write(t, dir, "overlay.json", doc)
		_, err := New(Config{Mirror: dir})
		var user interface{ UserError() string }
		if !errors.As(err, &user) {
			t.Errorf("%.60s: error = %v, want a user's error", doc, err)
		}
	}
}

func FuzzOverlay(f *testing.F) {
	f.Add([]byte(goodOverlay))
	f.Add([]byte(`{"trees":{"https://x/a":"../../b"}}`))
	f.Add([]byte(`{"links":null}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		o, err := readOverlay(strings.NewReader(string(doc)))
		if err != nil {
			return
		}
		for u, dir := range o.Trees {
			if path.IsAbs(dir) || path.Clean(dir) != dir || !strings.HasPrefix(u, "https://") {
				t.Fatalf("tree %q: %q", u, dir)
			}
		}
		out, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readOverlay(strings.NewReader(string(out)))
		if err != nil || !cmp.Equal(normal(o), normal(again)) {
			t.Fatalf("%s reads back as %+v, %v", out, again, err)
		}
	})
}

func normal(o Overlay) Overlay {
	if len(o.Links) == 0 {
		o.Links = nil
	}
	if len(o.Trees) == 0 {
		o.Trees = nil
	}
	return o
}
