package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func env(m map[string]string) func(string) string { return func(k string) string { return m[k] } }

func load(t *testing.T, body string, vars map[string]string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "repromill", "config.yaml")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"XDG_CONFIG_HOME": dir, "HOME": "/home/u"}
	for k, v := range vars {
		all[k] = v
	}
	return Load(env(all))
}

func TestPrecedenceAndSources(t *testing.T) {
	c, err := load(t, "endpoints:\n  hf: https://hub.example\nprices:\n  h200: 3.5\ncaps: {wall: 2h}\nindexes:\n  hosts: [a.example:443, b.example:443]\n",
		map[string]string{"HF_ENDPOINT": "https://env.example"})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.values["endpoints.hf"]; got.Value != "https://env.example" || got.Source != "env HF_ENDPOINT" {
		t.Errorf("endpoints.hf = %+v", got)
	}
	if got := c.values["prices.h200"]; got.Value != "3.5" || !strings.HasSuffix(got.Source, "config.yaml:4") {
		t.Errorf("prices.h200 = %+v", got)
	}
	if got := c.Group("prices")["h200"].Value; got != "3.5" {
		t.Errorf("Group = %q", got)
	}
	if c.Duration("caps.wall") != 2*time.Hour {
		t.Errorf("caps.wall = %v", c.Duration("caps.wall"))
	}
	if got := c.List("indexes.hosts"); len(got) != 2 || got[1] != "b.example:443" {
		t.Errorf("indexes.hosts = %q", got)
	}
	if got := c.values["paths.results"]; got.Value != "/home/u/.local/share/repromill" || got.Source != "default" {
		t.Errorf("paths.results = %+v", got)
	}
	if err := c.SetFlag("mirror", "/m", "mirror"); err != nil || c.values["mirror"].Source != "flag --mirror" {
		t.Errorf("flag: %v, %+v", err, c.values["mirror"])
	}
}

func TestMistakesNameTheLineAndTheFix(t *testing.T) {
	for name, tc := range map[string]struct{ body, want string }{
		"unknown key":  {"mirrror: /x\n", `config.yaml:1: unknown setting "mirrror"`},
		"bad number":   {"prices:\n  h200: cheap\n", `config.yaml:2: prices.h200 is "cheap"`},
		"NaN price":    {"prices: {h200: NaN}\n", "not a number"},
		"bad duration": {"caps: {wall: 2}\n", "not a duration"},
		"bad url":      {"endpoints: {hf: ftp://x}\n", "not an http(s) URL"},
		"not yaml":     {"a: [\n", "is not YAML"},
		"a list":       {"- a\n", "expected settings"},
		"deep":         {"a: {b: {c: {d: {e: 1}}}}\n", "expected settings"},
		"alias":        {"paths: &a {cache: /x}\nqueues: *a\n", "neither a value"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tc.body, nil)
			var ce *Error
			if !errors.As(err, &ce) || !strings.Contains(err.Error(), tc.want) || ce.UserError() == "" {
				t.Errorf("got %v, want %q with a fix", err, tc.want)
			}
		})
	}
}

func TestNamedFileMustExist(t *testing.T) {
	if _, err := Load(env(map[string]string{"REPROMILL_CONFIG": filepath.Join(t.TempDir(), "no.yaml")})); err == nil {
		t.Error("a missing REPROMILL_CONFIG was accepted")
	}
}

func FuzzMerge(f *testing.F) {
	f.Add("endpoints: {hf: https://a}\n")
	f.Add("a: &x [*x]\n")
	f.Add("? [1]\n: 2\n")
	f.Fuzz(func(t *testing.T, body string) {
		c := &Config{values: map[string]Value{}, File: "f"}
		if err := c.merge([]byte(body)); err != nil {
			var ce *Error
			if !errors.As(err, &ce) {
				t.Fatalf("not a user error: %v", err)
			}
		}
	})
}
