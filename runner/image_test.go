package runner

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// stocked gives the image that it was made with, and looks at the source.
type stocked struct {
	img  Image
	err  error
	seen string
	asks int
}

func (s *stocked) Image(_ context.Context, req ImageRequest) (Image, error) {
	s.asks++
	b, err := os.ReadFile(filepath.Join(req.Source, "main.sh"))
	s.seen = string(b)
	req.Progress("building")
	return s.img, errors.Join(err, s.err)
}

func inImages(s *stocked) func(*Config) {
	return func(c *Config) { c.Images = map[string]Images{"local": s} }
}

// TestImage: where the executor runs images, every unit gets the one that was
// made from its source, with what installing built laid over it.
func TestImage(t *testing.T) {
	overlay := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(overlay, "pkg"), 0o755))
	must(t, os.WriteFile(filepath.Join(overlay, "pkg", "fast.so"), []byte("acc=0.91\n"), 0o755))
	s := &stocked{img: Image{
		Ref: "sha256:1", Key: "k", Python: "3.11", Source: "/src", Overlay: overlay,
		Deviations: []spec.Deviation{{What: "numpy", Declared: "==1.15.4", Used: "1.23.2", Reason: "has no build for Python 3.11"}},
	}}
	b := newBench(t, map[string]string{"main.sh": "cat pkg/fast.so\n"}, inImages(s))
	p := simple("sh", "main.sh")
	p.Environment.Requirements = []spec.Requirement{{Spec: "numpy==1.15.4"}}
	p.Runs[0].Seeds = []int64{1, 2}
	p.Seal()
	id := b.create(Request{Plan: p, Yes: true})
	out, err := b.Drive(t.Context(), id)
	must(t, err)
	if s.asks != 1 || s.seen != "cat pkg/fast.so\n" {
		t.Errorf("the image was asked for %d times, with the source %q", s.asks, s.seen)
	}
	if len(out.Metrics) != 2 || out.Python != "3.11" || out.Image == nil || out.Image.Key != "k" || !slices.ContainsFunc(out.Deviations, func(d spec.Deviation) bool { return d.What == "numpy" }) {
		t.Errorf("outcome = %+v", out)
	}
	for _, a := range b.res.recs[id].Attempts {
		if spec := string(a.Spec); !strings.Contains(spec, `"Image":"sha256:1"`) || !strings.Contains(spec, `"/src":"`+b.runDir(id)+`/work"`) {
			t.Errorf("attempt is %s", spec)
		}
	}
	b.consistent(id)
}

// TestNoImage: that an environment cannot be made is a verdict, and that it
// could not be tried is not.
func TestNoImage(t *testing.T) {
	s := &stocked{img: Image{Failure: "numpy (==9) from requirements.txt:1: no such release"}}
	b := newBench(t, map[string]string{"main.sh": ""}, inImages(s))
	out, err := b.Drive(t.Context(), b.create(Request{Plan: simple("sh", "main.sh"), Yes: true}))
	must(t, err)
	if len(out.Units) > 0 || !strings.Contains(out.InstallFailed, "requirements.txt:1") {
		t.Errorf("outcome = %+v", out)
	}

	s.err = &UserError{"no engine", "start it"}
	id := b.create(Request{Plan: simple("sh", "main.sh"), Yes: true})
	var user *UserError
	if _, err := b.Drive(t.Context(), id); !errors.As(err, &user) {
		t.Fatalf("got %v", err)
	}
	s.err, s.img = nil, Image{Ref: "sha256:2"}
	out, err = b.Drive(t.Context(), id)
	if err != nil || len(out.Units) != 1 {
		t.Errorf("afterwards it gave %+v, %v", out, err)
	}
}
