package inspect

import (
	"context"
	"os"
	"testing"
)

func TestTry(t *testing.T) {
	d := os.Getenv("TRYDIR")
	if d == "" {
		return
	}
	f, err := Dir(context.Background(), d, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("files %d readme %s lic %s langs %v", len(f.Files), f.Readme, f.Licence, f.Languages)
	for _, d := range f.Dependencies {
		t.Logf("dep %s %s pinned=%s n=%d py=%q cuda=%q inc=%v broken=%s", d.Path, d.Kind, d.Pinned(), len(d.Entries), d.Python.Spec, d.CUDA.Spec, d.Includes, d.Broken)
	}
	for _, v := range f.Python {
		t.Log("python", v.Spec, v.At.File, v.At.Line, v.At.Quote)
	}
	for _, v := range f.CUDA {
		t.Log("cuda", v.Spec, v.At.File, v.At.Line, v.At.Quote)
	}
	for _, v := range f.Frameworks {
		t.Log("fw", v.Name, v.Spec, v.At.File, v.At.Line)
	}
	for _, d := range f.Docs {
		for _, c := range d.Commands {
			t.Logf("cmd %s:%d %q", d.Path, c.Line, c.Text)
		}
	}
	t.Log(len(f.Modules), f.Warnings)
}
