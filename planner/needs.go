package planner

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// need records what stands against a run, beside the words for people.
func need(r *spec.Run, what, name, status, why string) {
	r.Reasons = append(r.Reasons, why)
	r.Needs = append(r.Needs, spec.Need{What: what, Name: name, Status: status, Reason: why})
}

// target is one thing of a plan that a person can supply, under one name over
// all runs.
type target struct {
	name string // as in the options, "imagenet"
	what string // of the need
	kind string // of the binding that fits best: data|checkpoint|set
	text string // the placeholder, file or asset itself
	runs []string
	open bool // without it a run cannot go; otherwise only the network can give it
}

// targets lists what can be supplied, in the order of the runs. It reads only
// the document, so that a plan written by hand is served like any other.
func targets(p *spec.Plan) []*target {
	var out []*target
	add := func(r *spec.Run, what, name, kind, hint string, open bool) {
		if i := slices.IndexFunc(out, func(t *target) bool { return t.text == name }); i >= 0 {
			t := out[i]
			if t.open = t.open || open; !slices.Contains(t.runs, r.ID) {
				t.runs = append(t.runs, r.ID)
			}
			return
		}
		short, taken := shortName(name, hint), func(s string) bool {
			return slices.ContainsFunc(out, func(t *target) bool { return t.name == s }) ||
				slices.ContainsFunc(p.Bindings, func(b spec.Binding) bool { return b.Name == s })
		}
		unique := short
		for n := 2; taken(unique); n++ {
			unique = fmt.Sprintf("%s-%d", short, n)
		}
		out = append(out, &target{name: unique, what: what, kind: kind, text: name, runs: []string{r.ID}, open: open})
	}
	for i := range p.Runs {
		r := &p.Runs[i]
		for _, ph := range r.Placeholders {
			hint := option(r, ph)
			add(r, "placeholder", ph, kindOf(ph, hint), hint, true)
		}
		for _, n := range r.Needs {
			if n.What == "file" {
				add(r, n.What, n.Name, "data", "", true)
			}
		}
		for _, a := range r.Assets {
			if a.Access == "in_repo" || a.Access == "bound" || strings.ContainsAny(a.Name, " \t") {
				continue
			}
			kind := a.Kind
			if kind == "dataset" {
				kind = "data"
			}
			add(r, a.Kind, a.Name, kind, "", a.Access != "auto")
		}
	}
	return out
}

// Flags writes beside every need the option that supplies it.
func Flags(p *spec.Plan) {
	byNeed := map[string]string{}
	for _, t := range targets(p) {
		byNeed[t.text] = t.flag()
	}
	for i := range p.Runs {
		for j := range p.Runs[i].Needs {
			n := &p.Runs[i].Needs[j]
			switch n.What {
			case "placeholder", "file", "checkpoint", "dataset":
				n.Flag = byNeed[n.Name]
			}
		}
	}
}

func (t *target) flag() string {
	switch {
	case t.kind == "set":
		return "--set " + t.name + "=VALUE"
	case t.kind == "checkpoint":
		return "--checkpoint " + t.name + "=PATH"
	case fileRE.MatchString(t.text):
		return "--data " + t.name + "=FILE"
	}
	return "--data " + t.name + "=DIR"
}

var (
	fileRE       = regexp.MustCompile(`\.[A-Za-z][A-Za-z0-9]{0,7}$`)
	checkpointRE = regexp.MustCompile(`(?i)ckpt|check[_-]?point|weights?\b|resume|pre[_-]?train|\.(?:pth?|ckpt|safetensors|bin)\b|model[_-](?:name[_-]or[_-])?(?:path|dir|file)|load[_-](?:from|model)`)
	pathRE       = regexp.MustCompile(`(?i)data|imagenet|coco|corpus|dir(?:ectory)?\b|_dir|root|path|folder|images?\b|/`)
	choiceRE     = regexp.MustCompile(`^[\[{].*[/|].*[\]}]$`)
	wordsRE      = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
)

// kindOf tells from a placeholder and the option before it what belongs there.
func kindOf(ph, hint string) string {
	text := hint + " " + ph
	switch {
	case choiceRE.MatchString(ph):
		return "set"
	case checkpointRE.MatchString(text):
		return "checkpoint"
	case outputRE.MatchString(hint):
		return "set"
	case pathRE.MatchString(text):
		return "data"
	}
	return "set"
}

// outputRE are options whose value is written, not read.
var outputRE = regexp.MustCompile(`(?i)out|save|log|result|dump|export`)

// option is the name of the option or variable whose value holds a
// placeholder, without dashes; "" for a positional argument.
func option(r *spec.Run, ph string) string {
	prev := ""
	for _, w := range r.Argv {
		name, val, eq := strings.Cut(w, "=")
		if _, in := replace(w, ph, "x"); in {
			if eq && strings.Contains(val, strings.Trim(ph, "${}")) {
				return strings.TrimLeft(name, "-")
			}
			return strings.TrimLeft(prev, "-")
		}
		if prev = ""; strings.HasPrefix(w, "-") && !eq {
			prev = w
		}
	}
	for k, v := range r.Env {
		if _, in := replace(v, ph, "x"); in {
			return k
		}
	}
	return ""
}

// fillers are words of a placeholder that name nothing.
var fillers = map[string]bool{"path": true, "to": true, "your": true, "my": true, "the": true, "of": true, "a": true, "some": true, "dir": true, "here": true, "insert": true}

// shortName makes a name for the command line out of a placeholder or path:
// "/path/to/imagenet" and "<YOUR_IMAGENET>" become imagenet.
func shortName(s, hint string) string {
	if choiceRE.MatchString(s) && hint != "" {
		s = hint
	}
	s = strings.Trim(s, "<>{}[]()$\"'/ ")
	last := ""
	for _, seg := range strings.Split(s, "/") {
		parts := strings.FieldsFunc(seg, func(c rune) bool { return c == '_' || c == '-' || c == ' ' })
		if slices.ContainsFunc(parts, func(w string) bool { return !fillers[strings.ToLower(w)] }) && strings.Trim(seg, ".") != "" {
			for len(parts) > 1 && fillers[strings.ToLower(parts[0])] {
				parts, seg = parts[1:], strings.TrimLeft(seg[len(parts[0]):], "_- ")
			}
			last = seg
		}
	}
	if last == "" {
		last = hint
	}
	last = strings.Trim(strings.Map(func(c rune) rune {
		if c == '.' || c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return '_'
	}, last), "._-")
	if last == "" {
		return "value"
	}
	return last[:min(len(last), 40)]
}

// find is the target that a person's word means: its name, the placeholder or
// path itself, or the last part of the path.
func find(list []*target, word string) *target {
	for _, is := range []func(*target) bool{
		func(t *target) bool { return t.name == word },
		func(t *target) bool { return t.text == word },
		func(t *target) bool { return strings.Trim(t.text, "<>{}[]$") == word },
		func(t *target) bool { return t.what != "placeholder" && path.Base(t.text) == word },
	} {
		if i := slices.IndexFunc(list, is); i >= 0 {
			return list[i]
		}
	}
	return nil
}

// sharePlaceholders lists in every run the placeholders of the others that
// stand in its command as a whole word: what one command leaves to the reader
// the next one does not state either.
func sharePlaceholders(p *spec.Plan) {
	type known struct {
		text string
		need spec.Need
	}
	var all []known
	for _, r := range p.Runs {
		for _, n := range r.Needs {
			if n.What == "placeholder" {
				all = append(all, known{n.Name, n})
			}
		}
	}
	for i := range p.Runs {
		r := &p.Runs[i]
		for _, k := range all {
			if slices.Contains(r.Placeholders, k.text) || !slices.ContainsFunc(r.Argv, func(w string) bool {
				_, val, eq := strings.Cut(w, "=")
				return w == k.text || eq && val == k.text
			}) {
				continue
			}
			r.Placeholders = append(slices.Clone(r.Placeholders), k.text)
			if need(r, k.need.What, k.text, k.need.Status, k.need.Reason); r.Status == "auto" {
				r.Status, r.Selected = k.need.Status, false
			}
		}
	}
}
