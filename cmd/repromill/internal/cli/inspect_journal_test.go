package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/model"
)

func TestLayerJournal(t *testing.T) {
	dir := t.TempDir()
	open := func() *layerJournal {
		t.Helper()
		j, err := openJournal(dir, []string{"a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	for _, name := range []string{"x", "y", "z"} {
		if err := j.keep(model.Layer{Name: name, Verdict: "ok"}); err != nil {
			t.Fatal(err)
		}
	}
	var user interface{ UserError() string }
	if _, err := openJournal(dir, []string{"a"}, nil); !errors.As(err, &user) {
		t.Errorf("two at once: %v", err)
	}
	if other, err := openJournal(dir, []string{"b"}, nil); err != nil || len(other.done) != 0 {
		t.Errorf("another sweep: %v", err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(j.path)
	if err != nil {
		t.Fatal(err)
	}
	// Cut at every byte: what is whole is kept, and the file can be written on.
	for cut := range len(text) + 1 {
		if err := os.WriteFile(j.path, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open()
		if want := strings.Count(string(text[:cut]), "\n"); len(j.done) != want {
			t.Fatalf("cut at %d: %d layers, want %d", cut, len(j.done), want)
		}
		if err := errors.Join(j.keep(model.Layer{Name: "w"}), j.close()); err != nil {
			t.Fatal(err)
		}
		j = open()
		if _, ok := j.done["w"]; !ok {
			t.Fatalf("cut at %d: what came after is lost", cut)
		}
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
	}
	j = open()
	if err := errors.Join(j.close(), j.remove()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(j.path + "*"); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func FuzzJournalLine(f *testing.F) {
	f.Add([]byte("00000000 {}\n"))
	f.Add([]byte("0f3a5b77 {\"name\":\"x\",\"verdict\":\"ok\"}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if l, ok := readJournalLine(line); ok && l.Name == "" {
			t.Fatal("a layer without a name")
		}
	})
}
