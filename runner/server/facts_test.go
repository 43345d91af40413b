package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares v as JSON with a file.
func golden(t *testing.T, path string, v any) {
	t.Helper()
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s", path, got)
	}
}

func logs(t testing.TB, dir string) map[string]string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join("testdata", dir, "*.log"))
	if err != nil || len(list) == 0 {
		t.Fatalf("no logs in %s: %v", dir, err)
	}
	out := map[string]string{}
	for _, path := range list {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(path, ".log")] = string(b)
	}
	return out
}

func TestParseLog(t *testing.T) {
	for path, text := range logs(t, "logs") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := ParseLog(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			golden(t, path+".json", f)
		})
	}
}

// TestParseLogColoured: a log from a terminal says the same.
func TestParseLogColoured(t *testing.T) {
	f, err := ParseLog(strings.NewReader("\x1b[0;36m(EngineCore pid=7476)\x1b[0;0m INFO 07-25 13:42:38 [kv_cache_utils.py:2146] GPU KV cache size: 1,823,372 tokens\r\n"))
	if err != nil || f.KVTokens != 1823372 {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestExplain(t *testing.T) {
	for path, text := range logs(t, "failures") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			cause, fix, lines := explain(strings.NewReader(text))
			golden(t, path+".json", map[string]any{"cause": cause, "fix": fix, "lines": lines})
		})
	}
}

// FuzzParseLog: whatever a server prints, reading it ends, numbers are finite and
// texts are bounded.
func FuzzParseLog(f *testing.F) {
	for _, dir := range []string{"logs", "failures"} {
		for _, text := range logs(f, dir) {
			f.Add([]byte(text))
		}
	}
	f.Add([]byte("GPU KV cache size: 99999999999999999999 tokens\nAvailable KV cache memory: 1e400 GiB"))
	f.Add([]byte("Selected \xff\xfeKernel for X\r\r\r"))
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := ParseLog(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if facts.KVTokens < 0 || facts.KVBlocks < 0 || facts.KVBytes < 0 || facts.WeightBytes < 0 || facts.MaxModelLen < 0 || facts.CompileS < 0 {
			t.Fatalf("negative: %+v", facts)
		}
		out, err := json.Marshal(facts)
		if err != nil {
			t.Fatalf("%v: %+v", err, facts)
		}
		if len(out) > 64<<10 {
			t.Fatalf("%d bytes of facts", len(out))
		}
		_, _, lines := explain(bytes.NewReader(b))
		if len(lines) > 3 {
			t.Fatalf("%d lines tell", len(lines))
		}
		for _, l := range lines {
			if len(l) > 310 || strings.ContainsAny(l, "\n\r\x1b") {
				t.Fatalf("line %q", l)
			}
		}
	})
}

func BenchmarkParseLog(b *testing.B) {
	var all strings.Builder
	for _, text := range logs(b, "logs") {
		all.WriteString(text)
	}
	text := strings.Repeat(all.String(), 50)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := ParseLog(strings.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	var all strings.Builder
	for _, text := range logs(b, "logs") {
		all.WriteString(text)
	}
	text := strings.Repeat(all.String(), 50)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		explain(strings.NewReader(text))
	}
}
