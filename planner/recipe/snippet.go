package recipe

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/python"
	"github.com/repromill/repromill/planner/spec"
)

// snippets makes a run of a Python example that the README shows in full, where
// the repository documents nothing else that could be run: it imports what it
// uses and calls something.
func (r *resolver) snippets(have []*Command) []*Command {
	for _, c := range have {
		if c.Role == RoleRun && c.Missing == "" {
			return nil
		}
	}
	for i := range r.f.Docs {
		d := &r.f.Docs[i]
		if d.Path != r.f.Readme {
			continue
		}
		for n, b := range d.Doc.Blocks {
			text := strings.Join(b.Text, "\n") + "\n"
			if b.Lang != "py" && b.Lang != "python" || len(text) > 20_000 || strings.Contains(text, ">>>") || strings.Contains(text, "...") {
				continue
			}
			m := python.Scan(text)
			if len(m.Imports) == 0 || len(m.Calls) == 0 {
				continue
			}
			sum := sha256.Sum256([]byte(text))
			c := &Command{Role: RoleRun, Display: fmt.Sprintf("python (the example at %s:%d)", d.Path, b.Line), Cwd: ".", Env: map[string]string{}, Program: "python",
				Script: &spec.Script{Interpreter: "python", Text: text, SHA256: hex.EncodeToString(sum[:])}, Quoted: true, Doc: i, Block: n, Line: b.Line,
				Evidence: spec.Evidence{File: d.Path, Line: b.Line, Quote: clip(text)}, Context: b.Intro + "\n" + b.After}
			_, c.Section = d.Doc.Section(b.Line)
			return []*Command{c}
		}
	}
	return nil
}

// isSnippet says that a command is an example out of a document.
func (c *Command) isSnippet() bool {
	return c.Script != nil && c.Script.Interpreter == "python" && c.Entry == ""
}

// scanned is the code that a command starts with: its entry, or the example.
func (c *Command) scanned(f *inspect.Facts) *python.Module {
	if c.isSnippet() {
		return python.Scan(c.Script.Text)
	}
	return f.Modules[c.Entry]
}
