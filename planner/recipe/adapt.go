package recipe

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/claim"
	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// Row is a claim of a table with the document it stands in.
type Row struct {
	File  string
	Claim *claim.Claim
}

// Adapt makes commands of table rows that state a result for settings of their
// own, such as a shorter schedule: the documented command that the row's names
// belong to, with those settings. A row whose settings the command has already
// needs none, and of several rows that one command serves the first is taken.
func Adapt(f *inspect.Facts, cmds []*Command, rows []Row) []*Command {
	r := &resolver{f: f}
	var out []*Command
	done := map[*Command]bool{}
	for _, row := range rows {
		if len(row.Claim.Settings) == 0 || len(out) >= 20 {
			continue
		}
		for _, c := range cmds {
			if c.Role != RoleRun || c.Doc < 0 || f.Docs[c.Doc].Path != row.File || done[c] || !named(c, row.Claim) || settled(c, row.Claim) {
				continue
			}
			if a := r.adapt(c, row); a != nil {
				done[c] = true
				out = append(out, a)
				break
			}
		}
	}
	return out
}

// adapt is a copy of a command with the settings of a row, or nil when the
// program has no such options.
func (r *resolver) adapt(c *Command, row Row) *Command {
	m := r.f.Modules[c.core().Entry]
	var flags []string
	for _, s := range row.Claim.Settings {
		option := ""
		for _, a := range c.Args {
			if p := configRE.FindString(a); p != "" && option == "" {
				option = p + s.Name
			}
		}
		if m != nil {
			for _, fl := range m.Flags {
				if slices.Contains(fl.Names, "--"+s.Name) && fl.By != "global" {
					option = "--" + s.Name
				}
			}
		}
		if option == "" {
			return nil
		}
		flags = append(flags, option+"="+s.Value)
	}
	a := *c
	a.Display = c.Display + " " + strings.Join(flags, " ")
	a.Args = append(slices.Clone(c.Args), flags...)
	if c.Script != nil {
		a.Reasons = nil
		x := r.script(&a, "as the documented command does", &state{env: map[string]string{}})
		a = *x
	} else {
		a.Argv = append(slices.Clone(c.Argv), flags...)
	}
	a.Quoted, a.Adapted = false, true
	a.Comment = strings.Join(row.Claim.Names, " | ")
	a.Patches = append(slices.Clone(c.Patches), spec.Patch{Kind: "flag", File: row.File, Line: c.Line, Before: c.Display, After: a.Display,
		Reason: fmt.Sprintf("%s:%d states a result for these settings", row.File, row.Claim.Line)})
	return &a
}

// configRE is the prefix of options that reach into a settings object.
var configRE = regexp.MustCompile(`^--config\.`)

// settled says that a command has the settings of a row.
func settled(c *Command, cl *claim.Claim) bool {
	for _, s := range cl.Settings {
		ok := false
		for _, a := range c.Args {
			name, val, _ := strings.Cut(a, "=")
			name = strings.TrimLeft(name, "-")
			ok = ok || val == s.Value && (name == s.Name || strings.HasSuffix(name, "."+s.Name))
		}
		if !ok {
			return false
		}
	}
	return true
}
