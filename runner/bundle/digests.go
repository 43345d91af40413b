package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/suites/endpoint"
)

// Digests say what a run was made of, by content.
type Digests struct {
	PlanHash string `json:"plan_hash"`
	// LockSHA256 is of the list of packages; empty where nothing was installed.
	LockSHA256 string   `json:"lock_sha256,omitempty"`
	Source     Code     `json:"source,omitzero"`
	Model      string   `json:"model,omitempty"` // with its revision, "owner/name@commit"
	Image      *Image   `json:"image,omitempty"`
	Bound      []Bound  `json:"bound,omitempty"`
	Data       []Items  `json:"data_sets,omitempty"`
	Servers    []Server `json:"servers,omitempty"`
	Machine    Machine  `json:"machine"`
}

// Code is the code that ran.
type Code struct {
	Repo   string `json:"repo"`
	Commit string `json:"commit"`
	Subdir string `json:"subdir,omitempty"`
}

// Image is what the commands ran in.
type Image struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest,omitempty"`
	Base   string `json:"base,omitempty"` // with its digest
	Key    string `json:"key,omitempty"`  // of what it was built from
}

// Bound is a file, folder or word that the user gave.
type Bound struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	URL    string `json:"url,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
}

// Items are the questions of a suite.
type Items struct {
	Suite  string `json:"suite"`
	SHA256 string `json:"sha256"`
	Rule   string `json:"rule,omitempty"` // of grading, with its version
}

// Server is what an arm of a suite was served by.
type Server struct {
	Suite string `json:"suite"`
	Arm   string `json:"arm"`
	endpoint.Identity
}

// Machine is where the commands ran.
type Machine struct {
	Executor string   `json:"executor,omitempty"`
	Python   string   `json:"python,omitempty"`
	SKU      string   `json:"sku,omitempty"`
	Sandbox  []string `json:"sandbox,omitempty"`
}

// DigestsOf reads them off a run's plan and outcome.
func DigestsOf(p *spec.Plan, o *runner.Outcome) Digests {
	d := Digests{PlanHash: p.Hash, Machine: Machine{o.Executor, o.Python, o.Placement.SKU, o.Placement.Sandbox}}
	if lock := o.Packages(); lock != "" {
		sum := sha256.Sum256([]byte(lock))
		d.LockSHA256 = hex.EncodeToString(sum[:])
	}
	d.Source = Code{p.Source.Repo, p.Source.Commit, p.Source.Subdir}
	if p.Model != nil {
		d.Model = strings.TrimSuffix(p.Model.ID+"@"+p.Model.Revision, "@")
	}
	if i := o.Image; i != nil {
		d.Image = &Image{i.Ref, i.Digest, i.Base, i.Key}
	}
	for _, b := range p.Bindings {
		d.Bound = append(d.Bound, Bound{b.Kind, b.Name, b.Value, b.URL, b.SHA256, b.Bytes})
	}
	for _, s := range o.Suites {
		if r := s.Result; r != nil {
			d.Data = append(d.Data, Items{s.Suite, r.DatasetSHA, r.Rule})
			for _, l := range r.Looks {
				d.server(s.Suite, l.Arm, l.Identity)
			}
		}
		if t := s.Throughput; t != nil {
			for _, in := range t.Servers {
				d.server(s.Suite, in.Arm, in.Identity)
			}
		}
	}
	return d
}

// server keeps the first identity of an arm: where it changed, answers are void.
func (d *Digests) server(suite, arm string, id endpoint.Identity) {
	if !slices.ContainsFunc(d.Servers, func(s Server) bool { return s.Suite == suite && s.Arm == arm }) {
		d.Servers = append(d.Servers, Server{suite, arm, id})
	}
}

// patches are the recorded changes of a run, as a unified diff of the lines that
// are known; changes of a flag or of the environment stand as comments.
func patches(r spec.Run) string {
	var b strings.Builder
	for _, p := range r.Patches {
		fmt.Fprintf(&b, "# %s: %s\n", p.Kind, oneLine(p.Reason))
		if p.Kind == "flag" || p.Kind == "env" || p.File == "" {
			fmt.Fprintf(&b, "#   %s -> %s\n", oneLine(p.Before), oneLine(p.After))
			continue
		}
		before, after := lines(p.Before), lines(p.After)
		fmt.Fprintf(&b, "--- a/%s\n+++ b/%s\n@@ -%d,%d +%d,%d @@\n", p.File, p.File, max(p.Line, 1), len(before), max(p.Line, 1), len(after))
		for _, l := range before {
			b.WriteString("-" + l + "\n")
		}
		for _, l := range after {
			b.WriteString("+" + l + "\n")
		}
	}
	return b.String()
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// safeName keeps of an id what a member's name may hold.
func safeName(id string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, id[:min(len(id), 100)])
}
