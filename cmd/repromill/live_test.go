package main

import (
	"testing"
)

// TestPastedURL goes the whole way once, and once more without asking anybody.
func TestPastedURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.queueLens(0)
	o := w.must(0, "plan", "--json", "https://arxiv.org/abs/2511.98765")
	p := decode[planOf](t, o.stdout)
	if p.Paper.Version != "v2" || p.Source.Repo != "https://github.com/ada-example/queue_lens" || p.Source.Commit != commit || p.Source.StatedBy != "author" {
		t.Errorf("plan %+v", p)
	}
	o = w.must(0, "run", "https://arxiv.org/abs/2511.98765", "--yes")
	has(t, o.stdout, "aligned", "93.4")
	before := len(w.requests("", ""))
	o = w.must(0, "run", "https://arxiv.org/abs/2511.98765", "--yes", "--quiet")
	has(t, o.stdout, "aligned", "93.4")
	if again := w.requests("", "")[before:]; len(again) != 0 {
		t.Errorf("the second run asked for %+v", again)
	}
	has(t, w.must(0, "results", "verify").stdout, "clean")
}
