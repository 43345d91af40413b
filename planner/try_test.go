package planner

import (
	"context"
	"os"
	"testing"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

func TestTry(t *testing.T) {
	d := os.Getenv("TRYDIR")
	if d == "" {
		return
	}
	f, err := inspect.Dir(context.Background(), d, inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Target: spec.Target{Input: d, Kind: "local"}, Source: spec.Source{Repo: d}, Repo: f}
	if a := os.Getenv("ABSTRACT"); a != "" {
		in.Paper = &spec.Paper{ID: "x", Abstract: a}
	}
	p, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	p.Encode(os.Stdout)
}
