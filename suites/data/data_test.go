package data_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/schema/schematest"
	"github.com/repromill/repromill/suites/data"
)

const commit = "0123456789abcdef0123456789abcdef01234567"

type row struct {
	ID      int64    `json:"id"`
	Text    string   `json:"text"`
	Options []string `json:"options"`
}

// cached puts a file where the hub's tools keep it, and returns a hub that has
// nothing but an empty mirror beside it.
func cached(t *testing.T, path string, body []byte) (*data.Hub, data.File) {
	t.Helper()
	cache := t.TempDir()
	name := filepath.Join(cache, "datasets--org--set", "snapshots", commit, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, body, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := fetch.New(fetch.Config{CacheDir: t.TempDir(), Mirror: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return data.New(data.Config{Client: c, Cache: cache}), data.File{Repo: "org/set", Commit: commit, Path: path}
}

func TestFormats(t *testing.T) {
	var parquet bytes.Buffer
	if err := schematest.Write(&parquet, schematest.Column{Name: "id", Values: []int64{1, 2}}, schematest.Column{Name: "text", Values: []string{"a", "b,\"c\""}},
		schematest.Column{Name: "options", Values: [][]string{{"x"}, {"y", "z"}}}); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		"data/a.parquet": parquet.String(),
		"a.jsonl":        "{\"id\":1,\"text\":\"a\",\"options\":[\"x\"]}\n\n{\"id\":2,\"text\":\"b,\\\"c\\\"\",\"options\":[\"y\",\"z\"]}\n",
		"a.json":         "[{\"id\":1,\"text\":\"a\",\"options\":[\"x\"]},{\"id\":2,\"text\":\"b,\\\"c\\\"\",\"options\":[\"y\",\"z\"]}]",
	} {
		hub, f := cached(t, path, []byte(body))
		got, local, err := data.Read[row](t.Context(), hub, f, "id", "text", "options")
		if err != nil || len(got) != 2 || got[1].Text != `b,"c"` || strings.Join(got[1].Options, "") != "yz" || !local.Cached {
			t.Errorf("%s: %+v, %+v, %v", path, got, local, err)
		}
	}
	type line struct {
		ID   string `json:"id"`
		Text string `json:"text"`
	}
	hub, f := cached(t, "a.csv", []byte("id,text\r\n1,a\r\n2,\"b,\"\"c\"\"\"\r\n"))
	got, _, err := data.Read[line](t.Context(), hub, f, "id", "text")
	if err != nil || len(got) != 2 || got[1].Text != `b,"c"` {
		t.Errorf("csv: %+v, %v", got, err)
	}
}

// TestRefusals are what is the user's to correct, each with its fix.
func TestRefusals(t *testing.T) {
	body := []byte("{\"id\":1,\"text\":\"a\",\"options\":[]}\n")
	sum := sha256.Sum256(body)
	hub, f := cached(t, "a.jsonl", body)
	for name, c := range map[string]struct {
		change  func(*data.File)
		columns []string
		want    string
	}{
		"a missing column":     {func(*data.File) {}, []string{"id", "answer"}, "answer"},
		"another content":      {func(f *data.File) { f.SHA256 = strings.Repeat("0", 64) }, []string{"id"}, "has changed"},
		"not in the mirror":    {func(f *data.File) { f.Path = "b.jsonl" }, []string{"id"}, "mirror does not hold"},
		"a path out of it":     {func(f *data.File) { f.Path = "../b.jsonl" }, []string{"id"}, "no path within"},
		"no name of a dataset": {func(f *data.File) { f.Repo = "set" }, []string{"id"}, "no data set"},
	} {
		g := f
		c.change(&g)
		_, _, err := data.Read[row](t.Context(), hub, g, c.columns...)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || user.UserError() == "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.SHA256 = hex.EncodeToString(sum[:])
	if _, _, err := data.Read[row](t.Context(), hub, f, "id"); err != nil {
		t.Errorf("the content that was announced: %v", err)
	}
}

func TestCacheDir(t *testing.T) {
	for _, c := range []struct{ env, want string }{
		{"HF_HUB_CACHE=/a", "/a"}, {"HF_HOME=/b", "/b/hub"}, {"XDG_CACHE_HOME=/c", "/c/huggingface/hub"}, {"HOME=/d", "/d/.cache/huggingface/hub"},
	} {
		name, val, _ := strings.Cut(c.env, "=")
		got := data.CacheDir(func(n string) string {
			if n == name {
				return val
			}
			return ""
		})
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.env, got, c.want)
		}
	}
}
