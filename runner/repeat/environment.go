package repeat

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/bundle"
	"github.com/repromill/repromill/runner/pip"
)

// environment lists what the two runs did not have in common.
func environment(a, b Side) []Difference {
	out := []Difference{}
	add := func(what, x, y string) {
		if x != y {
			out = append(out, Difference{what, x, y})
		}
	}
	x, y := bundle.DigestsOf(a.Plan, &a.Outcome), bundle.DigestsOf(b.Plan, &b.Outcome)
	add("plan", x.PlanHash, y.PlanHash)
	add("source commit", x.Source.Commit, y.Source.Commit)
	add("model", x.Model, y.Model)
	add("executor", x.Machine.Executor, y.Machine.Executor)
	add("GPU model", x.Machine.SKU, y.Machine.SKU)
	add("Python", x.Machine.Python, y.Machine.Python)
	add("isolation", strings.Join(x.Machine.Sandbox, ", "), strings.Join(y.Machine.Sandbox, ", "))
	if x.Image != nil && y.Image != nil {
		add("image", x.Image.Digest, y.Image.Digest)
		add("base image", x.Image.Base, y.Image.Base)
	}
	out = append(out, packages(a.Outcome.Packages(), b.Outcome.Packages())...)
	for _, s := range x.Data {
		if i := slices.IndexFunc(y.Data, func(t bundle.Items) bool { return t.Suite == s.Suite }); i >= 0 {
			add("data set of "+s.Suite, s.SHA256, y.Data[i].SHA256)
			add("grading rule of "+s.Suite, s.Rule, y.Data[i].Rule)
		}
	}
	for _, s := range x.Servers {
		i := slices.IndexFunc(y.Servers, func(t bundle.Server) bool { return t.Suite == s.Suite && t.Arm == s.Arm })
		if i < 0 {
			continue
		}
		for _, f := range [][3]string{
			{"engine", s.Engine + " " + s.Version, y.Servers[i].Engine + " " + y.Servers[i].Version}, {"revision", s.Revision, y.Servers[i].Revision},
			{"weights", s.WeightsSHA, y.Servers[i].WeightsSHA}, {"kernel", s.Kernel, y.Servers[i].Kernel}, {"KV cache", s.KVDtype, y.Servers[i].KVDtype},
			{"driver", s.Driver, y.Servers[i].Driver}, {"GPUs", fmt.Sprint(len(s.GPUUUIDs)), fmt.Sprint(len(y.Servers[i].GPUUUIDs))},
		} {
			add(f[0]+" of arm "+s.Arm, f[1], f[2])
		}
	}
	return append(out, deviations(a.Outcome.Deviations, b.Outcome.Deviations)...)
}

// packages compares two locks by name.
func packages(x, y string) (out []Difference) {
	read := func(lock string) map[string]string {
		m := map[string]string{}
		for _, p := range pip.Pins(lock) {
			name, version, _ := strings.Cut(p, "==")
			m[name] = version
		}
		return m
	}
	a, b := read(x), read(y)
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if a[name] != b[name] {
			out = append(out, Difference{"package " + name, a[name], b[name]})
		}
	}
	return out
}

// deviations lists those that one of the runs has alone.
func deviations(x, y []spec.Deviation) (out []Difference) {
	for _, d := range x {
		if !slices.Contains(y, d) {
			out = append(out, Difference{"deviation " + d.What, d.Declared + " → " + d.Used, ""})
		}
	}
	for _, d := range y {
		if !slices.Contains(x, d) {
			out = append(out, Difference{"deviation " + d.What, "", d.Declared + " → " + d.Used})
		}
	}
	return out
}
