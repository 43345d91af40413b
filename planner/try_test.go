package planner

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

func TestTry(t *testing.T) {
	for _, d := range strings.Fields(os.Getenv("TRYDIR")) {
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
		if os.Getenv("FULL") != "" {
			p.Encode(os.Stdout)
			continue
		}
		fmt.Println("#####", d)
		e := p.Environment
		fmt.Println("env", e.Manager, "py", e.Python.Version, "cuda", e.CUDA.Version, "fw", e.Framework.Name, e.Framework.Version, "sys", e.SystemPackages)
		for i, s := range e.DependencySources {
			if i < 5 {
				fmt.Println("   dep", s.Path, s.Role, s.Pinned, s.Reason)
			}
		}
		for i, s := range e.Requirements {
			if i < 12 {
				fmt.Println("   req", s.Spec)
			}
		}
		for _, r := range p.Runs {
			fmt.Println("  ", r.Kind, r.Route, r.Status, "|", r.Command, "| cwd", r.Cwd, "| gpus", r.GPUs.Min, "| ph", r.Placeholders, "| sel", r.Selected, "|", r.Reasons)
			for _, s := range r.Setup {
				fmt.Println("       setup", s.Argv, s.Cwd, s.Network)
			}
			for _, c := range r.Collect {
				fmt.Println("       collect", c.Metric, c.Kind, c.Path, c.Pointer, c.Pattern, c.Scale, c.Unit)
			}
			if x := r.Expects; x != nil {
				fmt.Println("       expects", x.Metric, x.Value, x.Unit, x.Dataset, *x.Tolerance)
			}
		}
		for i, c := range p.Claims {
			v := ""
			if c.Value != nil {
				v = fmt.Sprint(*c.Value)
			}
			if i < 14 {
				fmt.Println("   claim", c.ID, c.Metric, v, c.Unit, c.Dataset, c.Where, c.Checkable, c.Route)
			}
		}
		for _, dd := range p.Decisions {
			if dd.What == "minimal run" {
				fmt.Println("   because", dd.Because)
				for _, o := range dd.Over {
					fmt.Println("      over", o)
				}
			}
		}
		for _, w := range p.Warnings {
			fmt.Println("   warn", w.Code, w.Message)
		}
	}
}
